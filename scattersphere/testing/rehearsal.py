"""Rehearsal: a real Server for one test, with fakes, injections and assertions that explain."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scattersphere._blocking import ready
from scattersphere.errors import (
    ArgumentError,
    BundleRefusedError,
    ClosedError,
    ConflictError,
    NoSuchTaskError,
    NotFoundError,
)
from scattersphere.model.builder import JobBuilder
from scattersphere.model.definition import JobDefinition
from scattersphere.model.events import EventKind
from scattersphere.testing.clocks import running_clock
from scattersphere.testing.fakes import Fake
from scattersphere.testing.injections import InjectedError, Injection, Injections
from scattersphere.testing.memory_journal import MemoryJournal
from scattersphere.testing.stage import StageServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scattersphere.engine.run import Run

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from scattersphere.engine.run import Run
    from scattersphere.registry.records import Bundle
    from scattersphere.runnable import RunnableTask
    from scattersphere.schedules.schedule import Schedule
    from scattersphere.server import Server
    from scattersphere.testing.clocks import HeldClock

    Job = str | os.PathLike[str] | JobDefinition | JobBuilder


TOLD_RUNS = 5
"""Runs that a story tells: first those that did not succeed, then the newest."""
TOLD_LINES = 30
"""Log lines of each run that a story shows, the last ones."""


class RehearsalError(AssertionError):
    """A test leaves runs behind, or has asked for something that never came to pass."""


class Rehearsal:
    """One test's own Server: the real executor, started in the test's loop when it is first needed.

    `root` is the folder from which paths are read, and in which (or beside a definition) bundles lie. `scratch` is
    where everything is kept that has to be in files. `seed` makes the jitter of retries repeatable.
    As the fixture `scattersphere` it closes itself when the test ends; elsewhere use `async with`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = ".",
        *,
        scratch: str | os.PathLike[str] | None = None,
        seed: int | None = None,
    ) -> None:
        self.root: Path = Path(root).absolute()
        self.scratch: Path | None = None if scratch is None else Path(scratch)
        self.seed: int = random.randrange(2**32) if seed is None else seed  # noqa: S311 - no secret
        self._options: dict[str, object] = {}
        self._host_tasks: list[tuple[str, tuple[type[RunnableTask], ...]]] = []
        self._fakes: dict[str, Fake] = {}
        self._injections = Injections()
        self._bundles: list[tuple[Path, str | None]] = []
        self._server: StageServer | None = None
        self._earlier: list[StageServer] = []
        """The Servers that have crashed, or were restarted."""
        self._clock: HeldClock | None = None
        self._before: tuple[dict[str, Fake], Injections] | None = None

    def __repr__(self) -> str:
        return f"<Rehearsal in {self.root}, seed {self.seed}: {self._server or 'no Server yet'}>"

    # ---- life

    @property
    def server(self) -> Server:
        """The Server, for all that is not here. Raises `ClosedError` before the first `await` on a rehearsal."""
        if self._server is None:
            raise ClosedError(
                "the Server is not there yet: await something of the rehearsal first, as `open()`"
            )
        return self._server

    @property
    def is_open(self) -> bool:
        """Whether the Server is there."""
        return self._server is not None

    def configure(self, **options: object) -> None:
        """Say with which arguments the Server is made: `configure(pools={"db": 2})`. Raises `ConflictError`."""
        if self._server is not None:
            raise ConflictError("the Server is there already: configure it before it is first needed")
        self._options.update(options)

    async def open(self) -> Server:
        """Start the Server in the loop that runs now, if that has not been done; return it."""
        if self._server is None:
            self._clock = running_clock()
            self._server = await self._begin(self._clock)
            self._check_fakes()
        return self._server

    async def _begin(self, clock: HeldClock, before: StageServer | None = None) -> StageServer:
        """Start a Server, the one after `before`."""
        # No roots: the Server would adopt whatever looks like a bundle in them, the tests themselves too.
        options = {"snapshot_folder": self.scratch, "watch": False, **self._options}
        server = StageServer(self._fakes, self._injections, clock, self.seed, **options)
        if before is not None:
            server.go_on_at(before)
        with self._held():  # the code of runs that go on is loaded
            await server.__aenter__()
        for name, classes in self._host_tasks:
            server.register_tasks(name, classes)
        return server

    async def __aenter__(self) -> Self:
        self._before = (dict(self._fakes), self._injections.copy())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        live = (
            [] if self._server is None else [run for run in self._server.runs.values() if not run.state.ended]
        )
        leaked = [f"run {run.id} of {run.job} is still {run.state}" for run in live]
        unmet = [] if exc is not None else self._unmet()
        await self.aclose()
        for server in self._servers:
            leaked += [f"{label} does not end; it stands at {line}" for label, line in server.stuck.items()]
        told = self.story()
        if self._before is not None:  # Hypothesis calls a test many times with one fixture
            self._fakes, self._injections = self._before
        self._told, self._server = told, None
        self._earlier.clear()
        if exc is None and (leaked or unmet):
            raise RehearsalError(_complaint(leaked, unmet))

    async def aclose(self) -> None:
        """Close the Server: what still runs is cancelled, then killed."""
        if self._server is not None:
            with self._held():
                await self._server.aclose(cancel=True)

    @property
    def _servers(self) -> list[StageServer]:
        return self._earlier if self._server is None else [*self._earlier, self._server]

    def _unmet(self) -> list[str]:
        if self._server is None:
            return []
        unmet = [f"{injection} never happened" for injection in self._injections.unmet()]
        for fake in self._fakes.values():
            if not fake.met:
                try:
                    self._server.registry.find(fake.path)
                except NotFoundError as error:
                    unmet.append(f"the fake of {fake.path} never stood in for anything: {error.args[0]}")
                except ConflictError as error:
                    unmet.append(str(error))
        return unmet

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let time pass as on the wall: files are read, and bundles loaded, in threads."""
        if self._clock is None:
            raise ClosedError("the rehearsal has no loop yet")
        self._clock.hold()
        try:
            yield
        finally:
            self._clock.release()

    # ---- what is on stage

    async def register(self, path: str | os.PathLike[str], *, name: str | None = None) -> Bundle:
        """Load a bundle; `path` is read from the root. Raises `BundleError`, `FakeError`."""
        server = await self.open()
        with self._held():
            bundle = await server.register(self.root / path, name=name)
        self._bundles.append((self.root / path, name))
        self._check_fakes()
        return bundle

    def register_tasks(self, name: str, classes: Iterable[type[RunnableTask]]) -> None:
        """Offer task classes of the test itself, under the bundle `name`."""
        self._host_tasks.append((name, tuple(classes)))
        if self._server is not None:
            self._server.register_tasks(*self._host_tasks[-1])
            self._check_fakes()

    def fake(self, path: str, function: Callable[..., object]) -> Fake:
        """Let `function` stand in for the task class at `path`, in all runs that are started from now on.

        It is called by name with all parameters of the real task, structured and with defaults filled in, and may be
        async. A parameter called `context` gets the `TaskContext`. It runs on the loop, whatever
        backend the definition names, and the real task's hooks are not called. Raises `FakeError`, now or when
        the real task is first seen, unless it takes exactly what the real task takes.
        """
        fake = self._fakes[path] = Fake(path, function)
        self._check_fakes()
        return fake

    def _check_fakes(self) -> None:
        """Check the fakes whose real task can be found by now."""
        if self._server is None:
            return
        for fake in self._fakes.values():
            try:
                task_class = self._server.registry.find(fake.path)
            except (NoSuchTaskError, NotFoundError, ConflictError):
                continue  # its bundle may come later
            fake.check(task_class)

    def fail(
        self,
        task: str,
        *,
        attempt: int | None = 1,
        index: int | None = None,
        error: BaseException | type[BaseException] | None = None,
    ) -> None:
        """Let an attempt of the task with this name raise `error` instead of running its body.

        `attempt=None` means every attempt. `index` picks one instance of a map.
        """
        words = f"injected into {task} by the test"
        self._injections.add(Injection(task, attempt, index, error=error or InjectedError(words)))

    def delay(
        self, task: str, seconds: float, *, attempt: int | None = None, index: int | None = None
    ) -> None:
        """Let attempts of the task with this name wait before their body begins; their timeout runs already."""
        self._injections.add(Injection(task, attempt, index, delay=seconds))

    def die(self, task: str, *, attempt: int | None = 1, index: int | None = None) -> None:
        """Let an attempt of the task with this name end as if the process that carries it out had died."""
        self._injections.add(Injection(task, attempt, index, dies=True))

    # ---- runs

    async def load(self, job: Job) -> JobDefinition:
        """Define a job and return it, with its bundles registered.

        `job` is a path to a definition, read from the root, a `JobDefinition` or a builder. Its bundles lie relative to
        its file, else to the root; in the root or in the file's own folder. Raises `DefinitionError`,
        `BundleError`, `OSError`, `FakeError`.
        """
        server = await self.open()
        if isinstance(job, JobBuilder):
            job = job.done()
        definition = job if isinstance(job, JobDefinition) else JobDefinition.load(self.root / job)
        for name, place in self._places(definition).items():
            await self.register(place, name=name)
        return server.define(definition, replace=True)

    def _places(self, definition: JobDefinition) -> dict[str, Path]:
        """Return where the bundles of a definition lie; all of them in the root or beside the file."""
        folder = self.root if definition.path is None else Path(definition.path).resolve().parent
        places = {name: (folder / relative).resolve() for name, relative in definition.bundles.items()}
        for name, place in places.items():
            if not any(place.is_relative_to(root.resolve()) for root in (self.root, folder)):
                raise BundleRefusedError(
                    f"bundle {name!r} lies at {place}, outside of {self.root} and {folder}"
                )
        return places

    async def start(self, job: Job, params: Mapping[str, object] | None = None) -> Run:
        """Start a job, and return its run at once. `job` is what `load` takes, or the name of a defined job."""
        server = await self.open()
        name = job if isinstance(job, str) and job in server.definitions else (await self.load(job)).name
        return await server.start(name, params)

    async def run(
        self,
        job: Job,
        params: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as `Run.wait` has it
    ) -> Run:
        """Start a job, wait for its end and return its run: for jobs that are to succeed.

        Raises `RunFailedError` unless it has succeeded, with what the first failed task raised as its cause;
        `TimeoutError` after `timeout` seconds. Where it is to fail, write `await (await scattersphere.start(job))`.
        """
        return (await (await self.start(job, params)).wait(timeout)).raise_if_failed()

    async def run_task(
        self,
        path: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as `Run.wait` has it
    ) -> Run:
        """Run one task by its path, wait for its end and return its run. Raises `RunFailedError` as `run` does."""
        return (await (await self.start_task(path, args)).wait(timeout)).raise_if_failed()

    async def start_task(self, path: str, args: Mapping[str, object] | None = None) -> Run:
        """Start a run of one task, known by its path, and return it at once."""
        server = await self.open()
        return await server.start_task(path, args)

    # ---- restarts

    async def crash(self) -> Server:
        """Let the Server die as if its program had been killed now, and start the next one on its journal; return it.

        Needs `configure(journal=MemoryJournal())`. What was not committed is lost; runs that had not ended go on, as
        `server.runs[run.id]`. Bundles, classes of the test, definitions, fakes and injections are there again, as when
        a program is started anew. The test's own process goes on, so bodies that execute are cancelled: what they do in
        `finally` a killed program would not do. Raises `ConflictError` without such a journal.
        """
        journal, before = self._journal("crash"), self._stage
        after = journal.crash()
        await before.aclose(finish=0)
        return await self._next_life(after)

    async def restart(self, *, finish: float | None = None) -> Server:
        """Close the Server in order, as a deploy does, and start the next one on its journal; return that.

        Runs are suspended, and go on. `finish` is that of `Server.aclose`; else as `crash`.
        """
        journal = self._journal("restart")
        await self._stage.aclose(finish=finish)
        return await self._next_life(journal.again())

    def _journal(self, word: str) -> MemoryJournal:
        """Return the journal of the Server. Raises `ConflictError` where there is none that can be used twice."""
        journal = self._options.get("journal")
        if not isinstance(journal, MemoryJournal):
            raise ConflictError(
                f"nothing outlives a {word} without a journal of the test's own: "
                "configure(journal=MemoryJournal()) before the Server is first needed"
            )
        return journal

    async def _next_life(self, journal: MemoryJournal) -> Server:
        before, clock = self._stage, running_clock()
        self._earlier.append(before)
        self._options["journal"], self._server = journal, None
        self._server = server = await self._begin(clock, before)
        with self._held():
            for path, name in self._bundles:
                await server.register(path, name=name)
        for name, definition in before.definitions.items():
            if name not in server.definitions:
                server.define(definition)
        self._check_fakes()
        return server

    # ---- schedules

    async def set_time(self, when: dt.datetime | str) -> None:
        """Let the wall clock, as schedules see it, show `when` and go on from there; an ISO text needs an offset.

        What is due by then fires, or is missed, as when a clock is set or a machine wakes up. The loop's clock, with
        its timeouts and delays, knows nothing of it.
        """
        await self.open()
        instant = dt.datetime.fromisoformat(when) if isinstance(when, str) else when
        if instant.utcoffset() is None:
            raise ArgumentError(f"a time needs an offset, like 2026-03-29T00:30:00+01:00; {when} has none")
        self._stage.move_wall(instant.astimezone(dt.UTC))

    async def next_firing(self, job: str | None = None, name: str | None = None) -> Run:
        """Move the wall clock to when the next schedule fires, of this job and name if given; return its run.

        Raises `RehearsalError` where none fires any more, or where its run is refused.
        """
        await self.open()
        found: list[tuple[dt.datetime, Schedule]] = [
            (schedule.table.due(nominal), schedule)
            for schedule in self.server.schedules.values()
            if job in {None, schedule.job} and name in {None, schedule.name} and schedule.fires
            for nominal in schedule.next()
        ]
        if not found:
            wanted = " ".join(filter(None, [job, name])) or "any job"
            raise RehearsalError(
                f"no schedule of {wanted} fires any more; there are {dict(self.server.schedules)}"
            )
        due, schedule = min(found, key=lambda pair: pair[0])
        before = schedule.state.fired
        self._stage.move_wall(due)
        if schedule.state.fired == before or schedule.last_run is None:
            raise RehearsalError(f"{schedule} was refused: {schedule.state.refused}")
        return self.server.runs[schedule.last_run]

    @property
    def _stage(self) -> StageServer:
        if self._server is None:
            raise ClosedError("the rehearsal has no Server yet")
        return self._server

    # ---- what came of it

    def assert_order(self, run: Run, *names: str) -> None:
        """Assert that each of these tasks had ended before the next one started."""
        _check_order(run, names)

    def assert_states(self, run: Run, states: Mapping[str, str] | None = None, /, **more: str) -> None:
        """Assert where tasks are: `assert_states(run, load="succeeded", mail="skipped")`."""
        _check_states(run, {**(states or {}), **more})

    def story(self) -> str:
        """Return what happened by now: what became of each run, and the end of its log."""
        if self._server is None:
            return self._told
        ended = {run.id: run for server in self._earlier for run in server.runs.values() if run.state.ended}
        return _story_of({**ended, **self._server.runs}.values())

    _told = "no run was started"


def _complaint(leaked: list[str], unmet: list[str]) -> str:
    words = []
    if leaked:
        words.append("the test leaves behind what it started; wait for it, or cancel it and wait:")
        words += [f"  {line}" for line in leaked]
    if unmet:
        words.append("the test asked for what never came to pass:")
        words += [f"  {line}" for line in unmet]
    return "\n".join(words)


# ---- assertions, and the story of runs that a failed test shows


def _check_order(run: Run, names: Iterable[str]) -> None:
    """Raise AssertionError unless each of the tasks had ended before the next one started."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for event in ready(run.events()):
        if event.task is not None and event.index is None:
            if event.kind is EventKind.TASK_STARTED:
                starts.setdefault(event.task, event.seq)
            elif event.kind is EventKind.TASK_ENDED:
                ends[event.task] = event.seq
    wanted = list(names)
    _check_names(run, wanted)
    for name in wanted:
        if name not in starts:
            raise AssertionError(f"{name!r} has not started: it is {run.tasks[name].state}\n{run.explain()}")
    for before, after in itertools.pairwise(wanted):
        if ends.get(before, starts[after] + 1) > starts[after]:
            order = ", ".join(sorted(starts, key=starts.__getitem__))
            raise AssertionError(
                f"{before!r} had not ended when {after!r} started; they started in this order: {order}\n"
                f"{run.explain()}"
            )


def _check_states(run: Run, states: Mapping[str, str]) -> None:
    """Raise AssertionError unless each of the tasks is in that state."""
    _check_names(run, states)
    wrong = [
        f"{name!r} is {run.tasks[name].state}, not {state}"
        for name, state in states.items()
        if run.tasks[name].state != state
    ]
    if wrong:
        raise AssertionError("\n".join([*wrong, run.explain()]))


def _check_names(run: Run, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in run.tasks]
    if unknown:
        raise AssertionError(f"job {run.job!r} has no task {unknown[0]!r}; it has {', '.join(run.tasks)}")


def _story_of(runs: Iterable[Run]) -> str:
    """Return the story of some runs: what became of each, and the end of its log."""
    ordered = sorted(runs, key=lambda run: (run.succeeded, -run.id))
    parts = [_told(run) for run in ordered[:TOLD_RUNS]]
    if len(ordered) > TOLD_RUNS:
        parts.append(f"... and {len(ordered) - TOLD_RUNS} more runs")
    return "\n\n".join(parts) if parts else "no run was started"


def _told(run: Run) -> str:
    lines = run.logs(tail=TOLD_LINES)
    told = [run.explain()]
    if lines:
        told += ["", "its log ends:" if len(lines) == TOLD_LINES else "its log:", *map(str, lines)]
    return "\n".join(told)

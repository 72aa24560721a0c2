"""Server: a host enters it with `async with`, registers code, defines jobs, starts runs. It holds no algorithm."""

from __future__ import annotations

import datetime as dt
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

from scattersphere._lifecycle import AsyncResource
from scattersphere._parts import Closing, ServerCalls, ServerParts
from scattersphere._text import did_you_mean
from scattersphere.engine.views.news import tell_failed_run
from scattersphere.errors import BundleBusyError, NoSuchBundleError, ScattersphereError
from scattersphere.jobs.jobs import Unresolved
from scattersphere.jobs.reruns import PINNED
from scattersphere.model.arguments import check_count, check_seconds, check_text
from scattersphere.model.events import EventKind
from scattersphere.model.schedules import ScheduleDefinition
from scattersphere.model.states import RunState
from scattersphere.options import ServerOptions
from scattersphere.pictures.notebook import table_html
from scattersphere.schedules.driver import Clocks

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from scattersphere.abc.ports import Trigger
    from scattersphere.engine.events.streams import FeedStream
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.run import Run
    from scattersphere.functions import TaskFunction
    from scattersphere.jobs.history import History
    from scattersphere.model.builder import JobBuilder
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.logs import LogLine
    from scattersphere.model.problem import Problem
    from scattersphere.options import ServerKeywords
    from scattersphere.registry.records import Bundle
    from scattersphere.registry.registry import TaskRegistry
    from scattersphere.remote.listener import Listening
    from scattersphere.remote.listening import ListenKeywords
    from scattersphere.runnable import RunnableTask
    from scattersphere.schedules.schedule import Schedule


class Server(AsyncResource):
    """An embedded job engine. Constructing assigns; entering acts; leaving undoes it all.

    The keyword arguments are those of `ServerOptions`, which says what each means; `options` has them. Raises
    `TypeError`, `ArgumentError` for one that cannot be meant.
    """

    _without_loop = "; in a program without an event loop `with SyncServer(...)`"

    def __init__(self, **options: Unpack[ServerKeywords]) -> None:
        self._options = ServerOptions.of(options)
        parts = self._parts = ServerParts(
            self._options,
            ServerCalls(
                check_loop=self._check_loop,
                require_open=self._require_open,
                clocks=lambda: self._clocks(),  # noqa: PLW0108 - the one of then
                run_moved=self._run_moved,
                job_changed=self._job_changed,
            ),
        )
        self._registry, self._executor, self._feed = parts.registry, parts.executor, parts.feed
        self._jobs, self._claims, self._files = parts.jobs, parts.claims, parts.files
        self._bundles, self._scheduler = parts.bundles, parts.scheduler
        self._factory, self._history, self._history_log = parts.factory, parts.history, parts.history_log
        self._listeners = parts.listeners

    def __repr__(self) -> str:
        live = len(self._executor.running)
        state = "closed" if self._closed else f"{live} live runs"
        return f"<Server: {state}, {len(self._jobs)} jobs, {len(self._registry.bundles)} bundles>"

    @property
    def registry(self) -> TaskRegistry:
        """The bundles and their task classes."""
        return self._registry

    @property
    def options(self) -> ServerOptions:
        """What it was made with, and the defaults of the rest."""
        return self._options

    @property
    def is_open(self) -> bool:
        """Whether it takes work: it was entered, and is neither draining nor closed."""
        try:
            self._require_open()
        except ScattersphereError:
            return False
        return True

    def _repr_html_(self) -> str:
        """Show the newest runs in a notebook."""
        runs = sorted(self.runs.values(), key=lambda run: -run.id)
        rows = [(str(run.state), (f"{run.id}", run.job, run.reason)) for run in runs]
        return table_html(repr(self).strip("<>"), ("run", "job", "why"), rows)

    # ---- life

    async def _open(self) -> None:
        await self._parts.open()

    async def _release(self) -> None:
        await self._parts.release()

    def _clocks(self) -> Clocks:
        executor = self._executor
        if executor.loop.is_virtual:  # the wall goes with it, and is not set by anybody
            return Clocks(executor.clock, executor.now, executor.call_at, look=math.inf)
        return Clocks(executor.clock, lambda: dt.datetime.now(dt.UTC), executor.call_at)

    async def drain(self) -> None:
        """Accept no new runs, and wait until those that are there have ended.

        With a journal it does not wait for those that are paused, or wait for their code: they go on at the next start.
        """
        self._check_loop()
        self._closing = True
        self._scheduler.stop()
        await self._parts.drained()

    async def aclose(self, *, cancel: bool = False, finish: float | None = None) -> None:
        """Let go of everything. May be repeated; what the first call says counts.

        Without a journal, or with `cancel`: cancel all runs, give them the grace, kill the rest. With a journal runs
        are *suspended*: nothing more begins, what executes has `finish` seconds (the grace, if nothing is said) to end
        by itself, then it is cancelled with the grace, then killed; the runs go on when a Server next opens the
        journal. Who waits for them gets `SuspendedError`.

        It is done whole, whoever is cancelled meanwhile; who waits for it is cancelled when it is done.
        """
        check_seconds(finish, "finish", optional=True)
        if not self._parts.closing.is_said:
            self._parts.closing = Closing(cancel, finish, is_said=True)
        await super().aclose()

    def hurry(self) -> None:
        """Have the closing that is under way, or about to begin, kill at once what executes: for a second Ctrl-C.

        With a journal runs go on at the next start all the same; without one they end as killed.
        """
        self._parts.hurry()

    def _leave(self) -> None:
        super()._leave()
        self._parts.begin_suspend()

    def listen(self, **options: Unpack[ListenKeywords]) -> Listening:
        """Let sessions in from outside: `await` it, or use it with `async with`; closing the Server closes it.

        The keyword arguments are those of `scattersphere.remote.listen`; `bundle_roots` and `job_folder` are
        this Server's.
        Raises `scattersphere.remote.ListenError` where an address would be unsafe.
        """
        from scattersphere.remote.listening import listen  # noqa: PLC0415 - nothing of it loads unasked

        self._require_open()
        options.setdefault("bundle_roots", self._options.bundle_roots)
        options.setdefault("job_folder", self._files.folder)
        listening = listen(self, **options)
        self._listeners.append(listening)
        return listening

    # ---- code

    async def register(
        self, path: str | os.PathLike[str], *, name: str | None = None, watch: bool = True
    ) -> Bundle:
        """Load a bundle and offer its task classes; `watch` it for changes, if this Server watches at all.

        Raises `BundleError`, `ExistsError`.
        """
        self._require_open()
        return await self._bundles.register(path, name=name, watch=watch)

    def register_tasks(
        self, name: str, classes: Iterable[type[RunnableTask] | TaskFunction[..., Any]]
    ) -> Bundle:
        """Offer the host's own classes under the bundle `name`. Raises `ExistsError`."""
        self._check_loop()
        return self._registry.register_tasks(name, classes)

    async def reload(self, name: str) -> Bundle:
        """Take up what changed. On an error the last good version stays current."""
        self._require_open()
        check_text(name, "the name of a bundle")
        return await self._bundles.reload(name)

    async def deregister(self, name: str, *, force: bool = False, require_idle: bool = False) -> None:
        """Withdraw a bundle: no new runs; those that run keep their version until they end.

        `require_idle` raises `BundleBusyError` where runs need it; `force` cancels those first.
        """
        self._check_loop()
        bundle = self._registry.bundles.get(name)
        if bundle is None and not self._bundles.waits_for(name):
            raise NoSuchBundleError(f"no bundle {name!r}{did_you_mean(name, self._registry.bundles)}")
        busy = sorted(bundle.runs) if bundle is not None else []
        if busy and require_idle:
            raise BundleBusyError(f"bundle {name!r} is needed by runs {busy}", busy)
        if busy and force:
            await self._executor.requests.cancel_runs(busy, f"bundle {name!r} is deregistered")
        await self._bundles.deregister(name)

    # ---- jobs

    @property
    def definitions(self) -> Mapping[str, JobDefinition]:
        """The defined jobs, by name."""
        return MappingProxyType(self._jobs)

    def define(self, definition: JobDefinition | JobBuilder, *, replace: bool = False) -> JobDefinition:
        """Take up a definition and return it resolved: each task's bundle filled in where known.

        Never loads code. Raises `DefinitionError` with everything that is wrong, `ExistsError`. It is judged where
        it is called: one that was read costs some 0.3 us of the event loop a task, one made in Python 20 us, which is
        four seconds for the 200,000 that a job may have. `adefine` leaves the loop its turns meanwhile.
        """
        self._check_loop()
        return self._claims.define(definition, replace=replace)

    async def adefine(
        self, definition: JobDefinition | JobBuilder, *, replace: bool = False
    ) -> JobDefinition:
        """Do as `define`, in a thread where the definition is large: the event loop goes on meanwhile."""
        self._check_loop()
        return await self._claims.adefine(definition, replace=replace)

    def undefine(self, name: str) -> None:
        """Forget a job; its runs go on. Raises `NoSuchJobError`."""
        self._check_loop()
        self._claims.undefine(name)

    async def aundefine(self, name: str) -> None:
        """Do as `undefine`; what a job of many tasks has held is freed in a thread: the loop goes on meanwhile."""
        self._check_loop()
        await self._claims.aundefine(name)

    def validate(self, definition: JobDefinition | JobBuilder | str | bytes) -> list[Problem]:
        """Return everything that is wrong with a definition or its text, by itself and against the code here."""
        return self._jobs.validate(definition)

    async def avalidate(self, definition: JobDefinition | JobBuilder | str | bytes) -> list[Problem]:
        """Do as `validate`, in a thread where the definition is large: the event loop goes on meanwhile."""
        self._check_loop()
        return await self._jobs.avalidate(definition)

    async def load(self, path: str | os.PathLike[str], *, replace: bool = False) -> JobDefinition:
        """Register the bundles that a definition file names, then define it.

        Raises `DefinitionError`, `BundleError`, `OSError`; `BundleRefusedError` for a bundle
        outside the `bundle_roots`.
        """
        self._require_open()
        return await self._files.load(path, replace=replace)

    async def load_all(self) -> list[JobDefinition]:
        """Load the definitions in the `job_folder`, and the bundles that they name.

        A file that cannot be read is left as it is, and named in `problems`.
        """
        self._require_open()
        return await self._files.load_all()

    def save(self, name: str, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """Write the resolved definition to `path`, to the file that it came from, or into the `job_folder`.

        Raises `NoSuchJobError`, `FileChangedError`, `ExistsError`, `ConflictError`, `OSError`.
        """
        self._check_loop()
        self._files.save(self._jobs.named(name), path, overwrite=overwrite)

    @property
    def unresolved(self) -> Mapping[str, tuple[Problem, ...]]:
        """The jobs that cannot be started with the code that is here, each with what it lacks."""
        return Unresolved(self._jobs)

    def _job_changed(self, name: str, definition: JobDefinition | None) -> None:
        if definition is None or definition.schedules or name in self._scheduler.by_job:
            self._scheduler.job_changed(name, definition)

    # ---- schedules

    @property
    def schedules(self) -> Mapping[tuple[str, str], Schedule]:
        """The schedules of the defined jobs: `schedules[job, name]`. Raises `NoSuchScheduleError`."""
        return MappingProxyType(self._scheduler)

    def schedule(self, job: str, name: str, *, trigger: Trigger | None = None, **fields: Any) -> Schedule:
        """Give a job a schedule, in place of one with the same name: `schedule("etl", "nightly", cron="30 2 * * *")`.

        The keyword arguments are the fields of `ScheduleDefinition`. It becomes part of the job's definition, which
        `save` writes. One with a `trigger` of your own, in place of `cron`, `every` or `at`, is part of none: it stays
        until `unschedule` or `undefine`, and a program makes it each time that it starts; with a journal and equal
        `words` it goes on where it was. Raises `NoSuchJobError`, `DefinitionError`, `ArgumentError`, `ConflictError`,
        and `ValueError` for what a trigger may not answer.
        """
        definition = self._jobs.named(job)
        check_text(name, "the name of a schedule")
        if trigger is not None:
            self._check_loop()
            return self._scheduler.define_own(definition, name, trigger, fields, self._jobs.resolved)
        schedules = {**definition.schedules, name: ScheduleDefinition(**fields)}
        self.define(definition.evolve(schedules=schedules), replace=True)
        return self._scheduler[job, name]

    def unschedule(self, job: str, name: str) -> None:
        """Take a schedule out of a job's definition. Raises `NoSuchScheduleError`."""
        self._scheduler[job, name]  # raises
        if self._scheduler.undefine_own(job, name):
            return
        definition = self._jobs.named(job)
        schedules = {other: held for other, held in definition.schedules.items() if other != name}
        self.define(definition.evolve(schedules=schedules), replace=True)

    # ---- runs

    @property
    def runs(self) -> Mapping[int, Run]:
        """The live runs and the kept ended ones, by id. Raises `NoSuchRunError`."""
        return self._factory.runs

    @property
    def history(self) -> History:
        """All runs that are known: `await history.list(job="etl", state="failed")`, `await history.get(17)`.

        Without a journal those are the ones of `runs`.
        """
        return self._history

    @property
    def stuck(self) -> dict[str, str]:
        """The attempts that refuse to end, and where each stands."""
        return {attempt.label: self._executor.attempts.where(attempt) for attempt in self._executor.stuck}

    async def start(
        self,
        job: str | JobDefinition | JobBuilder,
        params: Mapping[str, object] | None = None,
        *,
        key: str | None = None,
        user: str = "",
    ) -> Run:
        """Start a run of a defined job, or of a definition that is not taken up; return it at once.

        `user` says for whom: what is kept of runs is shared out by user, so that nobody takes the others' history,
        and the same key of another user is another key.
        Raises `NoSuchJobError`, `UnresolvedError`, `DefinitionError` for wrong parameters or a wrong definition,
        `BusyError`, `ConflictError` where `key` stands for another job or other parameters.
        """
        return await self._factory.start_job(job, params, key=key, user=user)

    async def run(
        self,
        job: str | JobDefinition | JobBuilder,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as `Run.wait` has it
    ) -> Run:
        """Do as `start`, wait for the end, and return the run if it has succeeded: `(await server.run("job")).result`.

        Raises `RunFailedError` (`.run` is the run, the cause what its first failed task raised) unless it has
        succeeded; `TimeoutError` after `timeout` seconds, when the run goes on; and what `start` raises.
        """
        run = await self.start(job, params, key=key, user=user)
        return (await run.wait(timeout)).raise_if_failed()

    async def start_task(
        self,
        path: str | type[RunnableTask] | TaskFunction[..., Any],
        args: Mapping[str, object] | None = None,
        *,
        key: str | None = None,
        user: str = "",
    ) -> Run:
        """Start a run of one task, known by its path, with literal arguments."""
        return await self._factory.start_task(path, args, key=key, user=user)

    async def run_task(
        self,
        path: str | type[RunnableTask] | TaskFunction[..., Any],
        args: Mapping[str, object] | None = None,
        *,
        key: str | None = None,
        user: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as `Run.wait` has it
    ) -> Run:
        """Do as `start_task`, and then as `run`: `(await server.run_task("etl.Count", {"day": 3})).result`."""
        run = await self.start_task(path, args, key=key, user=user)
        return (await run.wait(timeout)).raise_if_failed()

    async def rerun(
        self, run_id: int, *, from_failed: bool = True, code: str = PINNED, user: str = ""
    ) -> Run:
        """Start a new run of the plan of an ended run, with its parameters; `parent` is the old one's id.

        With `from_failed` the results of tasks that succeeded are taken over (`Run.reused`), as are those of
        single instances of maps; what depends on anything that is done again is done again too.
        `code` is "pinned", the versions that the old run had, or "latest"; `user` as in `start`. Raises
        `NoSuchRunError`, `RunStateError` while it is live, `NoSuchBundleError` where the pinned code is gone,
        `UnresolvedError` where the latest does not fit, `BusyError`.
        """
        self._require_open()
        check_text(user, "user")
        earlier = await self._history.get(run_id)
        return await self._factory.rerun(earlier.execution, from_failed=from_failed, code=code, user=user)

    async def committed(self) -> None:
        """Wait until all that was asked for so far is in the journal: what `pause` or `cancel` said is durable then.

        Without a journal it returns at once. Raises `JournalError` while the journal commits nothing: what was asked
        for has taken effect all the same.
        """
        self._check_loop()
        if self._parts.durable is not None:
            await self._parts.durable.recorder.committed()

    # ---- what happens

    def events(self, since: int | str = 0) -> FeedStream:
        """Yield what happens to bundles, jobs and runs, from number `since` on, as long as it is kept.

        `since` may be an `Event.id`: of one of an earlier life a `lagged` event comes first, then all of this life.
        Raises `TypeError`, `ArgumentError`.
        """
        self._check_loop()
        return self._feed.read(since)

    @property
    def problems(self) -> Mapping[Path, str]:
        """What lies in the bundle roots and the job folder and could not be taken up, and why.

        What is wrong with the code of a bundle is told by `registry.bundles`.
        """
        return MappingProxyType(self._parts.problems)

    @property
    def life(self) -> int:
        """How often its journal was opened, this time included: numbers of events begin anew each time.

        0 without a journal.
        """
        return self._executor.life

    @property
    def journal_id(self) -> str:
        """The name of its journal for ever, which `context.idempotency_key` begins with; "" without one."""
        return "" if self._parts.durable is None else self._parts.durable.recorder.id

    @property
    def last_event(self) -> int:
        """The number of the newest event of the Server's own stream."""
        return self._feed.last

    def logs(
        self,
        *,
        run: int | None = None,
        job: str | Callable[[str], bool] | None = None,
        level: int = 0,
        tail: int | None = None,
    ) -> list[LogLine]:
        """Return the Server's log of its runs: which started, and how they ended, also those that were evicted.

        One line for each start, request and end; 10,000 of them, each user and job its share. `job` is a name, or a
        test of names. What their tasks logged is in `Run.logs`.
        """
        check_count(tail, "tail", least=0, optional=True)
        return self._history_log.lines(run=run, job=job, level=level, tail=tail)

    def bundle_logs(self, tail: int | None = None) -> list[LogLine]:
        """Return what bundles logged outside any run: while they were imported, or in threads of their own."""
        return self._parts.process_hooks.strays.lines(tail=tail)

    def stats(self) -> dict[str, float]:
        """Return how many runs live, wait and are kept, how many bundles, jobs and schedules there are.

        `begun` counts all runs since the start, the names of the terminal states how they ended. `schedule_lag` is the
        seconds by which the newest start of a schedule was late, or one that waits is by now.
        """
        return self._parts.statistics()

    def _run_moved(self, execution: Execution, kind: EventKind) -> None:
        job, when = execution.plan.job, execution.epoch + self._executor.clock()
        when = self._feed.moved(kind, execution.id, job, execution.state, when)
        if kind is EventKind.RUN_QUEUED:
            return  # most start at once; how long others waited is told when they do
        self._history_log.moved(execution, kind, when)
        if kind in {EventKind.RUN_STARTED, EventKind.RUN_RECOVERED}:
            if self._options.capture_loggers:
                self._parts.process_hooks.look()
        elif kind is EventKind.RUN_ENDED:
            if execution.state in {RunState.FAILED, RunState.CRASHED}:
                tell_failed_run(execution)
            self._factory.ended(execution)
            if job in self._scheduler.by_job:
                self._scheduler.run_ended(execution.id, job)

"""Server: puts the parts together; holds no algorithm.

A host enters it with `async with`, registers code, defines jobs, starts runs. Everything else is
in the package that bears its name.
"""

from __future__ import annotations

import datetime as dt
import math
import os
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

import anyio
import attrs

from scattersphere._lifecycle import AsyncResource
from scattersphere._text import did_you_mean
from scattersphere._version import own_version
from scattersphere.abc.triggers import Trigger
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.engine.events.streams import EventFeed, FeedStream
from scattersphere.engine.execution import RunObserver
from scattersphere.engine.executor import JobExecutor
from scattersphere.engine.instruments import Instruments
from scattersphere.engine.views.historylog import RunHistoryLog
from scattersphere.engine.views.news import (
    BundleNews,
    tell_crashed_run,
    tell_failed_file,
    tell_failed_run,
    tell_failed_task,
    tell_journal,
)
from scattersphere.errors import (
    ArgumentError,
    BundleBusyError,
    ConflictError,
    NoSuchBundleError,
    ScattersphereError,
)
from scattersphere.jobs.bundled import BundledJobs
from scattersphere.jobs.claims import Claims
from scattersphere.jobs.durable import DurableRuns
from scattersphere.jobs.files import JobFiles
from scattersphere.jobs.history import History
from scattersphere.jobs.jobs import Jobs, Unresolved, job_of_task
from scattersphere.jobs.reruns import PINNED
from scattersphere.jobs.runs import RunFactory
from scattersphere.logs.spill import LogFolder
from scattersphere.model.arguments import check_count, check_mapping, check_seconds, check_text
from scattersphere.model.builder import path_of
from scattersphere.model.events import EventKind
from scattersphere.model.schedules import MissedPolicy, ScheduleDefinition
from scattersphere.model.states import RunState
from scattersphere.options import ServerOptions
from scattersphere.pictures.notebook import table_html
from scattersphere.registry.folders import BundleFolders
from scattersphere.registry.records import BundleEventKind
from scattersphere.registry.registry import TaskRegistry
from scattersphere.schedules.driver import Clocks
from scattersphere.schedules.occurrences import TRIGGERS
from scattersphere.schedules.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scattersphere.abc.journal import StoredRun
    from scattersphere.engine.attempt import Attempt
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.run import Run
    from scattersphere.functions import TaskFunction
    from scattersphere.model.builder import JobBuilder
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.logs import LogLine
    from scattersphere.model.problem import Problem
    from scattersphere.options import ServerKeywords
    from scattersphere.registry.records import Bundle, BundleEvent
    from scattersphere.remote.listener import Listening
    from scattersphere.remote.listening import ListenKeywords
    from scattersphere.runnable import RunnableTask
    from scattersphere.schedules.occurrences import ScheduledFor, ScheduleState
    from scattersphere.schedules.schedule import Schedule


YEAR = 365 * 86_400
"""Stands for the times of a trigger of the host's while the other fields of its schedule are looked at."""
KILL_SECONDS = 2.0
"""Seconds after the second grace of a suspend: what was killed is gone by then, or given up."""


@attrs.frozen
class _Closing:
    """How the Server is to be closed, and whether somebody has said so."""

    cancel: bool = False
    finish: float | None = None
    is_said: bool = False


class Server(AsyncResource):
    """An embedded job engine. Constructing assigns; entering acts; leaving undoes it all.

    The keyword arguments are those of `ServerOptions`, which says what each means; `options` has them. Raises
    `TypeError`, `ArgumentError` for one that cannot be meant.
    """

    def __init__(self, **options: Unpack[ServerKeywords]) -> None:
        self._options = known = ServerOptions.of(options)
        self._roots = known.bundle_roots
        self._feed = EventFeed(known.keep_events)
        self._log_folder = None if known.log_folder is None else LogFolder(known.log_folder)
        self._history_log = RunHistoryLog()
        self._told = BundleNews()
        self._registry = TaskRegistry(
            shared=known.shared,
            limits=known.bundle_limits,
            roots=self._roots,
            load_timeout=known.load_timeout,
            on_event=self._bundle_event,
            snapshot_folder=known.snapshot_folder,
        )
        self._executor = JobExecutor(
            backends={
                "thread": ThreadBackend(limit=known.threads),
                "process": ProcessBackend(
                    known.processes,
                    environment=self._registry.child_environment,
                    on_late_line=self._late_line,
                ),
                **known.backends,
            },
            pools=known.pools,
            max_parallel=known.max_parallel,
            max_runs=known.max_runs,
            queue_limit=known.queue_limit,
            grace=known.grace,
            log_limit=known.log_limit,
            log_folder=self._log_folder,
            keep_events=known.keep_events,
            takes_prints=known.capture_print,
            around=known.around,
            observer=RunObserver(
                run_moved=self._run_moved,
                run_left=lambda execution: self._registry.unpin(execution.id),
                task_failed=tell_failed_task,
                task_blocked=self._task_blocked,
            ),
        )
        self._instruments = Instruments(
            self._executor,
            owns=self._registry.owns,
            capture_print=known.capture_print,
            blocked_after=known.blocked_after,
            log_limit=known.log_limit,
            capture_loggers=known.capture_loggers,
        )
        self._executor.child_starter = self._start_child
        self._bundles = BundleFolders(
            self._registry,
            self._roots if known.adopt else (),
            watch=known.watch,
            limits=known.bundle_limits,
        )
        self._jobs = Jobs(
            self._registry.find,
            self._registry.known,
            self._registry.bundles.__contains__,
            self._executor.traits,
            known.pools,
        )
        self._claims = Claims(self._jobs, self._feed)
        self._bundled = BundledJobs(self._claims)
        self._files = JobFiles(
            self._jobs,
            self._bundles,
            roots=self._roots,
            folder=known.job_folder,
            claims=self._claims,
            failed=self._job_failed,
        )
        self._factory = RunFactory(self._jobs, self._registry, self._executor, known.history)
        self._history = History(self._factory.runs, self._check_loop)
        self._scheduler = Scheduler(
            self._start_scheduled,
            self._feed.add,
            fires=known.fire_schedules,
            check=self._check_loop,
            missed=MissedPolicy.SKIP if known.journal is None else MissedPolicy.LAST,
        )
        self._jobs.on_change = self._job_changed
        self._listeners: list[Listening] = []
        self._durable: DurableRuns | None = None
        self._closing_how = _Closing()

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
        if self._log_folder is not None:
            self._log_folder.open(self._executor.instance)
        await self._executor.open()
        self._feed.open(self._executor.wall_clock.now)
        self._instruments.open()
        if self._options.journal is not None:
            await self._open_journal()
        await self._bundles.open(self._executor.loop.start)
        await self._files.open(watch=self._options.watch_jobs)
        if self._durable is not None:
            await self._durable.restore(self._options.load_timeout)
            for run in self._factory.runs.values():
                if run.scheduled is not None:
                    self._scheduler.lives(run.id, run.job, run.scheduled.schedule)
        self._scheduler.open(self._clocks())

    async def _open_journal(self) -> None:
        """Take the journal; raises `JournalBusyError` where another Server holds it, `JournalError`."""
        journal = self._options.journal
        from scattersphere.journal import SqliteJournal  # noqa: PLC0415 - sqlite3 is loaded where there is a journal
        from scattersphere.journal.values import ValueCodec  # noqa: PLC0415 - as above

        if isinstance(journal, str | os.PathLike):
            journal = SqliteJournal(journal)
        self._durable = DurableRuns(
            journal,
            ValueCodec(allow_pickle=self._options.results == "pickle"),
            jobs=self._jobs,
            registry=self._registry,
            executor=self._executor,
            factory=self._factory,
            version=own_version(),
            on_failed=self._journal_failed,
            on_mended=self._journal_mended,
            on_crashed=self._crashed_by_restart,
        )
        await self._durable.open()
        self._feed.life = self._executor.life
        self._history._open(self._durable)  # noqa: SLF001 - nobody else may
        self._factory.durable = self._durable
        self._scheduler.restore(*self._durable.schedules)
        self._scheduler.driver.remember = self._durable.keep_schedule
        self._scheduler.started_before = self._durable.find_keys
        self._scheduler.durable = self._durable.durable
        self._executor.requests.cancel_waiting = self._durable.cancel_waiting

    def _journal_failed(self, words: str) -> None:
        self._feed.add(EventKind.JOURNAL_FAILED, message=words)
        tell_journal(words)

    def _journal_mended(self) -> None:
        self._feed.add(EventKind.JOURNAL_MENDED)
        tell_journal(None)

    def _crashed_by_restart(self, stored: StoredRun) -> None:
        run, words = stored.run, stored.state.failure or ""
        now = self._executor.now().timestamp()
        self._feed.moved(EventKind.RUN_ENDED, run.id, run.job, RunState.CRASHED, now)
        tell_crashed_run(run.id, run.job, words)

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
        if self._durable is None:
            await self._executor.all_ended()
            return
        events = self._feed.read(self._feed.last)
        while any(not self._may_stay(execution) for execution in self._executor.running.values()):
            if await anext(events, None) is None:
                return

    def _may_stay(self, execution: Execution) -> bool:
        """Whether a run goes on at the next start, and does nothing before somebody does something for it."""
        waits = execution.waits_for or execution.state is RunState.PAUSED
        return bool(waits) and self._durable is not None and self._durable.survives(execution)

    async def aclose(self, *, cancel: bool = False, finish: float | None = None) -> None:
        """Let go of everything. May be repeated; what the first call says counts.

        Without a journal, or with `cancel`: cancel all runs, give them the grace, kill the rest. With a journal runs
        are *suspended*: nothing more begins, what executes has `finish` seconds (the grace, if nothing is said) to end
        by itself, then it is cancelled with the grace, then killed; the runs go on when a Server next opens the
        journal. Who waits for them gets `SuspendedError`.

        It is done whole, whoever is cancelled meanwhile; who waits for it is cancelled when it is done.
        """
        check_seconds(finish, "finish", optional=True)
        if not self._closing_how.is_said:
            self._closing_how = _Closing(cancel, finish, is_said=True)
        await super().aclose()

    def hurry(self) -> None:
        """Have the closing that is under way, or about to begin, kill at once what executes: for a second Ctrl-C.

        With a journal runs go on at the next start all the same; without one they end as killed.
        """
        executor, durable = self._executor, self._durable
        executor.hurry()
        for execution in list(executor.running.values()):
            survives = durable is not None and durable.survives(execution)
            if not execution.state.ended and not survives:
                executor.requests.request(execution, "kill", "interrupted while the server was closing", None)

    def _leave(self) -> None:
        super()._leave()
        durable = self._durable
        if durable is None or not durable.recorder.is_open or self._executor.is_suspending:
            return
        if (
            not self._closing_how.cancel or durable.recorder.failure is not None
        ):  # at once: bodies find it closing
            self._executor.begin_suspend(filter(durable.survives, list(self._executor.running.values())))

    async def _release(self) -> None:
        async with AsyncExitStack() as stack:  # an error in one part keeps no other from being let go of
            stack.callback(self._feed.close)
            stack.callback(self._instruments.close)
            stack.push_async_callback(self._registry.aclose)
            stack.push_async_callback(self._executor.aclose)
            if self._durable is not None:
                stack.push_async_callback(self._durable.close)
            stack.push_async_callback(self._end_runs)
            stack.push_async_callback(self._bundles.aclose)
            for listening in self._listeners:
                stack.push_async_callback(listening.aclose)
            stack.callback(self._scheduler.stop)

    async def _end_runs(self) -> None:
        executor, durable = self._executor, self._durable
        if durable is not None and executor.is_suspending:
            await self._suspend_runs(durable)
        await executor.end_all("cancel", "the server is closing", self._options.grace)
        with anyio.move_on_after(self._options.grace):
            await executor.all_ended()
        await executor.end_all("kill", "the server is closing", None)
        await executor.all_ended()

    async def _suspend_runs(self, durable: DurableRuns) -> None:
        """Suspend all runs that survive; those that do not are left, to be cancelled."""
        executor, grace, finish = self._executor, self._options.grace, self._closing_how.finish
        for execution in [each for each in executor.running.values() if not durable.survives(each)]:
            executor.requests.request(execution, "cancel", "the server is closing", grace)
        finish = grace if finish is None else min(finish, grace)
        await executor.suspend(finish=finish, grace=grace, kill=KILL_SECONDS)
        durable.recorder.flush()
        executor.let_go()

    def listen(self, **options: Unpack[ListenKeywords]) -> Listening:
        """Let sessions in from outside: `await` it, or use it with `async with`; closing the Server closes it.

        The keyword arguments are those of `scattersphere.remote.listen`; `bundle_roots` and `job_folder` are
        this Server's.
        Raises `scattersphere.remote.ListenError` where an address would be unsafe.
        """
        from scattersphere.remote.listening import listen  # noqa: PLC0415 - nothing of it loads unasked

        self._require_open()
        options.setdefault("bundle_roots", self._roots)
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
        """Take up the definitions in the `job_folder`, and the bundles that they name.

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
        scheduler = self._scheduler
        if definition is None:
            scheduler.undefine(name)
        elif definition.schedules or name in scheduler.by_job:
            scheduler.define(name, definition.schedules)
            scheduler.driver.try_again(name)

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
            return self._schedule_own(definition, name, trigger, fields)
        schedules = {**definition.schedules, name: ScheduleDefinition(**fields)}
        self.define(definition.evolve(schedules=schedules), replace=True)
        return self._scheduler[job, name]

    def _schedule_own(
        self, definition: JobDefinition, name: str, trigger: Trigger, fields: dict[str, Any]
    ) -> Schedule:
        """Give a job a schedule with a trigger of the host's, whose other fields are as right as any."""
        self._check_loop()
        if not isinstance(trigger, Trigger):
            raise ArgumentError(
                f"trigger has next, previous and words, as scattersphere.abc.Trigger says; {trigger!r} has not"
            )
        if given := [word for word in TRIGGERS if word in fields]:
            raise ArgumentError(f"the trigger says when {name!r} fires: leave out {given[0]!r}")
        if name in definition.schedules:
            raise ConflictError(f"the definition of job {definition.name!r} has a schedule {name!r} itself")
        yearly = ScheduleDefinition(every=YEAR, **fields)
        self._jobs.resolved(definition.evolve(schedules={**definition.schedules, name: yearly}))
        return self._scheduler.define_own(definition.name, name, ScheduleDefinition(**fields), trigger)

    def unschedule(self, job: str, name: str) -> None:
        """Take a schedule out of a job's definition. Raises `NoSuchScheduleError`."""
        self._scheduler[job, name]  # raises
        if self._scheduler.undefine_own(job, name):
            return
        definition = self._jobs.named(job)
        schedules = {other: held for other, held in definition.schedules.items() if other != name}
        self.define(definition.evolve(schedules=schedules), replace=True)

    def _start_scheduled(
        self,
        job: str,
        params: Mapping[str, Any],
        key: str | None,
        scheduled: ScheduledFor,
        state: ScheduleState | None,
    ) -> Run:
        self._require_open()
        return self._factory.start(self._jobs.named(job), params, key, scheduled=scheduled, schedule=state)

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
        params: Mapping[str, Any] | None = None,
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
        self._require_open()
        check_text(user, "user")
        definition, plan = await self._jobs.ready(job)
        earlier = None if key is None else await self._earlier(definition, key, user)
        if plan is not None or not isinstance(job, str):  # perhaps it was judged in a thread
            self._require_open()
        run = self._factory.start(definition, params, key, plan=plan, earlier=earlier, user=user)
        return run if self._durable is None else await self._started(run)

    async def _earlier(self, definition: JobDefinition, key: str, user: str) -> Run | None:
        """Return the run that a user has started with a key and that only the journal remembers."""
        if self._durable is None:
            return None
        check_text(key, "key")
        found = await self._durable.find_key(definition, key, user)
        self._require_open()
        return found

    async def _started(self, run: Run) -> Run:
        """Return a new run when it is durable, where there is a journal."""
        if self._durable is not None:
            await self._durable.durable(run)
        return run

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
        args: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user: str = "",
    ) -> Run:
        """Start a run of one task, known by its path, with literal arguments."""
        self._require_open()
        known: str = path if isinstance(path, str) else path_of(path)
        if not isinstance(path, str):
            check_text(known, "the path of a task")
        if args is not None:
            check_mapping(args, "args")
        check_text(user, "user")
        args = dict(args or {})
        definition = job_of_task(self._registry.find(known), args)
        earlier = None if key is None else await self._earlier(definition, key, user)
        run = self._factory.start(definition, None, key, args=args, earlier=earlier, user=user)
        return run if self._durable is None else await self._started(run)

    async def run_task(
        self,
        path: str | type[RunnableTask] | TaskFunction[..., Any],
        args: Mapping[str, Any] | None = None,
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
        return await self._started(
            await self._factory.rerun(
                earlier.execution, from_failed=from_failed, code=code, user=user, alive=self._require_open
            )
        )

    async def committed(self) -> None:
        """Wait until all that was asked for so far is in the journal: what `pause` or `cancel` said is durable then.

        Without a journal it returns at once. Raises `JournalError` while the journal commits nothing: what was asked
        for has taken effect all the same.
        """
        self._check_loop()
        if self._durable is not None:
            await self._durable.recorder.committed()

    async def _start_child(
        self, attempt: Attempt, job: str | JobDefinition, params: Mapping[str, Any] | None
    ) -> Run:
        self._require_open(draining=True)  # a run that may finish may start what it needs for that
        definition, plan = await self._jobs.ready(job)
        self._require_open(draining=True)
        if self._durable is None:
            return self._factory.start(definition, params, child_of=attempt, plan=plan)
        key = self._durable.child_key(attempt)
        known, key = await self._durable.known_child(key, definition, params, attempt)
        if known is not None:
            return known
        self._require_open(draining=True)
        run = self._factory.start(definition, params, child_of=attempt, child_key=key, plan=plan)
        return await self._started(run)

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
        problems = {**self._bundles.problems, **self._files.problems}
        if self._durable is not None and (problem := self._durable.recorder.problem):
            problems[Path(str(self._options.journal))] = problem
        return MappingProxyType(problems)

    @property
    def life(self) -> int:
        """How often its journal was opened, this time included: numbers of events begin anew each time.

        0 without a journal.
        """
        return self._executor.life

    @property
    def journal_id(self) -> str:
        """The name of its journal for ever, which `context.idempotency_key` begins with; "" without one."""
        return "" if self._durable is None else self._durable.recorder.id

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
        return self._instruments.strays.lines(tail=tail)

    def stats(self) -> dict[str, float]:
        """Return how many runs live, wait and are kept, how many bundles, jobs and schedules there are.

        `begun` counts all runs since the start, the names of the terminal states how they ended. `schedule_lag` is the
        seconds by which the newest start of a schedule was late, or one that waits is by now.
        """
        return {
            **self._history_log.counts(self._executor.begun),
            "evicted": self._factory.runs.evicted,
            "live": len(self._executor.running),
            "queued": self._executor.admission.queued,
            "kept": len(self._factory.runs),
            "jobs": len(self._jobs),
            "bundles": len(self._registry.bundles),
            "stuck": len(self._executor.stuck),
            **self._scheduler.statistics(),
        }

    def _bundle_event(self, event: BundleEvent) -> None:
        if event.kind is BundleEventKind.RELEASED:  # no name means another code now
            self._jobs.code_released(event.version)
        else:
            self._jobs.code_changed()
            self._bundled.follow(event)
            if event.kind is BundleEventKind.REMOVED:
                self._files.bundle_removed()
            if self._scheduler.driver.waiting:
                self._scheduler.driver.try_again()
            if self._durable is not None and event.kind is BundleEventKind.LOADED:
                self._durable.code_changed()
            self._told.bundle(event)
        self._feed.add(EventKind(event.kind), bundle=event.bundle, message=event.error or event.label)

    def _job_failed(self, file: Path, message: str) -> None:
        self._feed.add(EventKind.JOB_FAILED, job=file.stem, message=message)
        tell_failed_file(file, message)

    def _run_moved(self, execution: Execution, kind: EventKind) -> None:
        job, when = execution.plan.job, execution.epoch + self._executor.clock()
        when = self._feed.moved(kind, execution.id, job, execution.state, when)
        if kind is EventKind.RUN_QUEUED:
            return  # most start at once; how long others waited is told when they do
        self._history_log.moved(execution, kind, when)
        if kind in {EventKind.RUN_STARTED, EventKind.RUN_RECOVERED}:
            if self._options.capture_loggers:
                self._instruments.look()
        elif kind is EventKind.RUN_ENDED:
            if execution.state in {RunState.FAILED, RunState.CRASHED}:
                tell_failed_run(execution)
            self._factory.ended(execution)
            if job in self._scheduler.by_job:
                self._scheduler.run_ended(execution.id, job)

    def _late_line(self, level: int, message: str, logger: str, ago: float) -> None:
        self._instruments.late_line(level, message, logger, ago)

    def _task_blocked(self, attempt: Attempt, words: str) -> None:
        self._feed.add(
            EventKind.TASK_BLOCKED, run=attempt.run_id, job=attempt.job, task=attempt.task, message=words
        )

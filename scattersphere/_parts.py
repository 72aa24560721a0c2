"""The parts of a Server: constructed, connected by callbacks, opened and closed in order. No algorithm."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from scattersphere._version import own_version
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.engine.events.streams import EventFeed
from scattersphere.engine.execution import Execution
from scattersphere.engine.executor import JobExecutor
from scattersphere.engine.observer import RunObserver
from scattersphere.engine.processhooks import ProcessHooks
from scattersphere.engine.views.historylog import RunHistoryLog
from scattersphere.engine.views.news import (
    BundleNews,
    tell_crashed_run,
    tell_failed_file,
    tell_failed_task,
    tell_journal,
)
from scattersphere.jobs.claims import BundledJobs, Claims
from scattersphere.jobs.durable import DurableRuns
from scattersphere.jobs.files import JobFiles
from scattersphere.jobs.history import History
from scattersphere.jobs.jobs import Jobs
from scattersphere.jobs.runs import RequireOpen, RunFactory
from scattersphere.jobs.secrets import Secrets
from scattersphere.logs.spill import LogFolder
from scattersphere.model.definition import JobDefinition
from scattersphere.model.events import EventKind
from scattersphere.model.schedules import MissedPolicy
from scattersphere.model.states import RunState
from scattersphere.registry.folders import BundleFolders
from scattersphere.registry.records import BundleEventKind
from scattersphere.registry.registry import TaskRegistry
from scattersphere.schedules.driver import Clocks
from scattersphere.schedules.scheduler import Scheduler

if TYPE_CHECKING:
    from scattersphere.abc.journal import StoredRun
    from scattersphere.engine.execution import Attempt
    from scattersphere.options import ServerOptions
    from scattersphere.registry.records import BundleEvent
    from scattersphere.remote.listener import Listening

PROGRAM_SECONDS = 60.0
"""What a program may take after the opening until there are the jobs that bodies of recovered runs start."""
KILL_SECONDS = 2.0
"""Seconds after the second grace of a suspend: what was killed is gone by then, or given up."""


@attrs.frozen
class Closing:
    """How a Server is to be closed, and whether somebody has said so."""

    cancel: bool = False
    finish: float | None = None
    is_said: bool = False


@attrs.frozen(kw_only=True)
class ServerCalls:
    """What the parts call of their Server."""

    check_loop: Callable[[], None]
    """Raises `WrongLoopError` anywhere but in its thread and loop."""
    require_open: RequireOpen
    """Raises `ClosedError` where the Server takes no work."""
    clocks: Callable[[], Clocks]
    """Returns the clocks of schedules."""
    run_moved: Callable[[Execution, EventKind], None]
    """A run has started, has ended, or waits."""
    job_changed: Callable[[str, JobDefinition | None], None]
    """A job is defined anew, or is no more."""


class ServerParts:
    """What a Server is made of. Constructing assigns; `open` acts; `release` undoes it all."""

    def __init__(self, options: ServerOptions, server: ServerCalls) -> None:
        self.options: ServerOptions = options
        self._server = server
        self.closing: Closing = Closing()
        self.listeners: list[Listening] = []
        self.durable: DurableRuns | None = None
        """Writes and restores runs, where there is a journal, from when the Server is entered."""
        self.feed: EventFeed = EventFeed(options.keep_events)
        self.history_log: RunHistoryLog = RunHistoryLog()
        self._log_folder = None if options.log_folder is None else LogFolder(options.log_folder)
        self._told = BundleNews()
        self.registry: TaskRegistry = self._make_registry()
        self.executor: JobExecutor = self._make_executor()
        self.process_hooks: ProcessHooks = ProcessHooks(
            self.executor,
            owns=self.registry.owns,
            capture_print=options.capture_print,
            blocked_after=options.blocked_after,
            log_limit=options.log_limit,
            capture_loggers=options.capture_loggers,
        )
        self.bundles: BundleFolders = BundleFolders(
            self.registry,
            options.bundle_roots if options.adopt else (),
            watch=options.watch,
            limits=options.bundle_limits,
        )
        self.jobs: Jobs = Jobs(
            self.registry.find,
            self.registry.known,
            self.registry.bundles.__contains__,
            self.executor.traits,
            options.pools,
        )
        self.claims: Claims = Claims(self.jobs, self.feed)
        self._bundled = BundledJobs(self.claims)
        self.files: JobFiles = JobFiles(
            self.jobs,
            self.bundles,
            roots=options.bundle_roots,
            folder=options.job_folder,
            claims=self.claims,
            failed=self._job_failed,
        )
        self.factory: RunFactory = RunFactory(
            self.jobs,
            self.registry,
            self.executor,
            options.history,
            server.require_open,
            Secrets(options.secret_env, options.secrets),
        )
        self.executor.child_starter = self.factory.start_child
        self.history: History = History(self.factory.runs, server.check_loop)
        self.scheduler: Scheduler = Scheduler(
            self.factory.start_scheduled,
            self.feed.add,
            fires=options.fire_schedules,
            check=server.check_loop,
            missed=MissedPolicy.SKIP if options.journal is None else MissedPolicy.LAST,
        )
        self.scheduler.ready = self.factory.read_early
        self.factory.early.on_read = self.scheduler.driver.try_again
        self.jobs.on_change = server.job_changed

    def _make_registry(self) -> TaskRegistry:
        options = self.options
        registry = TaskRegistry(
            shared=options.shared,
            limits=options.bundle_limits,
            roots=options.bundle_roots,
            load_timeout=options.load_timeout,
            on_event=self._bundle_event,
            snapshot_folder=options.snapshot_folder,
        )
        if options.journal is not None and options.results != "pickle":
            from scattersphere.journal.annotations import why_not_kept  # noqa: PLC0415 - sqlite3 is loaded with it

            registry.judge_results(why_not_kept)
        return registry

    def _make_executor(self) -> JobExecutor:
        options, registry = self.options, self.registry
        return JobExecutor(
            backends={
                "thread": ThreadBackend(limit=options.threads),
                "process": ProcessBackend(
                    options.processes,
                    environment=registry.child_environment,
                    on_late_line=self._late_line,
                ),
                **options.backends,
            },
            pools=options.pools,
            max_parallel=options.max_parallel,
            max_runs=options.max_runs,
            queue_limit=options.queue_limit,
            grace=options.grace,
            log_limit=options.log_limit,
            log_folder=self._log_folder,
            keep_events=options.keep_events,
            takes_prints=options.capture_print,
            around=options.around,
            observer=RunObserver(
                run_moved=self._server.run_moved,
                run_left=lambda execution: registry.unpin(execution.id),
                task_failed=tell_failed_task,
                task_blocked=self._task_blocked,
            ),
        )

    # ---- opened and closed

    async def open(self) -> None:
        """Open everything in order; what was opened by half is let go of by `release`."""
        if self._log_folder is not None:
            self._log_folder.open(self.executor.instance)
        await self.executor.open()
        self.feed.open(self.executor.wall_clock.now)
        self.process_hooks.open()
        if self.options.journal is not None:
            await self._open_journal()
        await self.bundles.open(self.executor.loop.start)
        await self.files.open(watch=self.options.watch_jobs)
        if self.durable is not None:
            self.factory.recovers_until = math.inf
            await self.durable.unfinished.restore(self.options.load_timeout)
            program = min(self.options.load_timeout, PROGRAM_SECONDS)  # which goes on when this returns
            self.factory.recovers_until = self.executor.clock() + program
            for run in self.factory.runs.values():
                if run.scheduled is not None:
                    self.scheduler.lives(run.id, run.job, run.scheduled.schedule)
        self.scheduler.open(self._server.clocks())

    async def _open_journal(self) -> None:
        """Take the journal; raises `JournalBusyError` where another Server holds it, `JournalError`."""
        journal = self.options.journal
        from scattersphere.journal import SqliteJournal  # noqa: PLC0415 - sqlite3 is loaded where there is a journal
        from scattersphere.journal.values import ValueCodec  # noqa: PLC0415 - as above

        if isinstance(journal, str | os.PathLike):
            journal = SqliteJournal(journal)
        self.durable = DurableRuns(
            journal,
            ValueCodec(allow_pickle=self.options.results == "pickle"),
            jobs=self.jobs,
            registry=self.registry,
            executor=self.executor,
            factory=self.factory,
            secrets=self.factory.secrets,
            version=own_version(),
            on_failed=self._journal_failed,
            on_mended=self._journal_mended,
            on_crashed=self._crashed_by_restart,
        )
        await self.durable.open()
        self.feed.life = self.executor.life
        self.history._open(self.durable.stored)  # noqa: SLF001 - nobody else may
        self.factory.durable = self.durable
        self.scheduler.restore(*self.durable.schedules)
        self.scheduler.driver.remember = self.durable.writer.keep_schedule
        self.scheduler.started_before = self.durable.stored.find_keys
        self.scheduler.durable = self.durable.writer.durable
        self.executor.requests.cancel_waiting = self.durable.unfinished.cancel_waiting

    async def release(self) -> None:
        """Let go of everything."""
        async with AsyncExitStack() as stack:  # an error in one part keeps no other from being let go of
            stack.callback(self.feed.close)
            stack.callback(self.process_hooks.close)
            stack.push_async_callback(self.registry.aclose)
            stack.push_async_callback(self.executor.aclose)
            if self.durable is not None:
                stack.push_async_callback(self.durable.close)
            stack.callback(self.factory.early.close)
            stack.push_async_callback(self._end_runs)
            stack.push_async_callback(self.bundles.aclose)
            for listening in self.listeners:
                stack.push_async_callback(listening.aclose)
            stack.callback(self.scheduler.stop)

    def begin_suspend(self) -> None:
        """Let nothing more begin where runs are to go on at the next start: bodies find it closing at once."""
        durable = self.durable
        if durable is None or not durable.recorder.is_open or self.executor.suspension.has_begun:
            return
        if not self.closing.cancel or durable.recorder.failure is not None:
            self.executor.suspension.begin(filter(durable.survives, list(self.executor.running.values())))

    def hurry(self) -> None:
        """Kill at once what executes; what goes on at the next start is not ended by that."""
        executor, durable = self.executor, self.durable
        executor.suspension.hurry()
        for execution in list(executor.running.values()):
            survives = durable is not None and durable.survives(execution)
            if not execution.state.ended and not survives:
                executor.requests.request(execution, "kill", "interrupted while the server was closing", None)

    async def drained(self) -> None:
        """Wait until the runs that are there have ended, but for those that wait for the next start."""
        if self.durable is None:
            await self.executor.all_ended()
            return
        events = self.feed.read(self.feed.last)
        while any(not self._may_stay(execution) for execution in self.executor.running.values()):
            if await anext(events, None) is None:
                return

    async def _end_runs(self) -> None:
        executor, durable = self.executor, self.durable
        if durable is not None and executor.suspension.has_begun:
            await self._suspend_runs(durable)
        await executor.end_all("cancel", "the server is closing", self.options.grace)
        with anyio.move_on_after(self.options.grace):
            await executor.all_ended()
        await executor.end_all("kill", "the server is closing", None)
        await executor.all_ended()

    async def _suspend_runs(self, durable: DurableRuns) -> None:
        """Suspend all runs that survive; those that do not are left, to be cancelled."""
        executor, grace, finish = self.executor, self.options.grace, self.closing.finish
        for execution in [each for each in executor.running.values() if not durable.survives(each)]:
            executor.requests.request(execution, "cancel", "the server is closing", grace)
        finish = grace if finish is None else min(finish, grace)
        await executor.suspension.end_attempts(finish=finish, grace=grace, kill=KILL_SECONDS)
        durable.recorder.flush()
        executor.suspension.let_go()

    def _may_stay(self, execution: Execution) -> bool:
        """Whether a run goes on at the next start, and does nothing before somebody does something for it."""
        waits = execution.waits_for or execution.state is RunState.PAUSED
        return bool(waits) and self.durable is not None and self.durable.survives(execution)

    # ---- what the parts are told of one another

    def _bundle_event(self, event: BundleEvent) -> None:
        if event.kind is BundleEventKind.RELEASED:  # no name means another code now
            self.jobs.code_released(event.version)
        else:
            self.jobs.code_changed()
            self._bundled.follow(event)
            if event.kind is BundleEventKind.REMOVED:
                self.files.bundle_removed()
            if self.scheduler.driver.waiting:
                self.scheduler.driver.try_again()
            if self.durable is not None and event.kind is BundleEventKind.LOADED:
                self.durable.unfinished.look_again()
            self._told.bundle(event)
        self.feed.add(EventKind(event.kind), bundle=event.bundle, message=event.error or event.label)

    def _job_failed(self, file: Path, message: str) -> None:
        self.feed.add(EventKind.JOB_FAILED, job=file.stem, message=message)
        tell_failed_file(file, message)

    def _late_line(self, level: int, message: str, logger: str, ago: float) -> None:
        self.process_hooks.late_line(level, message, logger, ago)

    def _task_blocked(self, attempt: Attempt, words: str) -> None:
        self.feed.add(
            EventKind.TASK_BLOCKED, run=attempt.run_id, job=attempt.job, task=attempt.task, message=words
        )

    def _journal_failed(self, words: str) -> None:
        self.feed.add(EventKind.JOURNAL_FAILED, message=words)
        tell_journal(words)

    def _journal_mended(self) -> None:
        self.feed.add(EventKind.JOURNAL_MENDED)
        tell_journal(None)

    def _crashed_by_restart(self, stored: StoredRun) -> None:
        run, words = stored.run, stored.state.failure or ""
        now = self.executor.now().timestamp()
        self.feed.moved(EventKind.RUN_ENDED, run.id, run.job, RunState.CRASHED, now)
        tell_crashed_run(run.id, run.job, words)

    # ---- what is seen

    @property
    def problems(self) -> dict[Path, str]:
        """What lies in the bundle roots and the job folder and could not be taken up, and what ails the journal."""
        problems = {**self.bundles.problems, **self.files.problems}
        if self.durable is not None and (problem := self.durable.recorder.problem):
            problems[Path(str(self.options.journal))] = problem
        return problems

    def statistics(self) -> dict[str, float]:
        """Return the numbers of `Server.stats`."""
        executor, runs = self.executor, self.factory.runs
        return {
            **self.history_log.counts(executor.begun),
            "evicted": runs.evicted,
            "live": len(executor.running),
            "queued": executor.admission.queued,
            "kept": len(runs),
            "jobs": len(self.jobs),
            "bundles": len(self.registry.bundles),
            "stuck": len(executor.stuck),
            **self.scheduler.statistics(),
        }

"""RunFactory: how runs are started, by name, by idempotency key or again; which are kept, and which go first."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import attrs

from scattersphere._mapping import LiveMapping
from scattersphere._shares import FairShares
from scattersphere.definitions import resolve_params, secret_names
from scattersphere.engine.run import Run
from scattersphere.errors import (
    ConflictError,
    DefinitionError,
    NoSuchJobError,
    NoSuchRunError,
    UnresolvedError,
)
from scattersphere.jobs.jobs import job_of_task
from scattersphere.jobs.reruns import check_again, plan_again, take_over
from scattersphere.jobs.secrets import NOTHING_READ, EarlySecrets, hide_in_error
from scattersphere.model.arguments import check_mapping, check_text
from scattersphere.model.builder import path_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import Plan
    from scattersphere.functions import TaskFunction
    from scattersphere.jobs.durable import DurableRuns
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.jobs.secrets import Secrets, SecretsRead
    from scattersphere.jobs.unfinished import ChildKey
    from scattersphere.model.builder import JobBuilder
    from scattersphere.model.definition import JobDefinition
    from scattersphere.registry.registry import TaskRegistry
    from scattersphere.runnable import RunnableTask
    from scattersphere.schedules.occurrences import ScheduledFor, ScheduleState


T = TypeVar("T")


class RequireOpen(Protocol):
    """Raises `ClosedError` where a Server takes no work."""

    def __call__(self, *, draining: bool = False) -> None:
        """Raise it; not for what a run asks for that may still finish, where the Server is `draining`."""


class RunHistory(LiveMapping[int, "Run"]):
    """Keeps at most `keep` ended runs, none for longer than `keep_for` seconds.

    Only whole ended runs are evicted: what is too old, in the order in which they ended; of what is too many, the
    oldest of the user that has the most, and of his the job that has the most: neither somebody who starts runs all
    the time nor a job that runs all the time takes the others' history.
    `on_evict` is told of each.
    `remind(when, callback)` has `callback(now)` called at `when`: age needs no new run to take effect.
    """

    def __init__(
        self,
        keep: int,
        keep_for: float,
        on_evict: Callable[[Run], None],
        remind: Callable[[float, Callable[[float], None]], None],
    ) -> None:
        self._keep = keep
        self._keep_for = keep_for
        self._on_evict = on_evict
        self._remind = remind
        self._reminded = False
        self._runs: dict[int, Run] = {}
        self._ended: dict[int, float] = {}
        """When the ended ones have ended, oldest first."""
        self._shares = FairShares[int]()
        """The numbers of the ended ones by user and job."""
        self.evicted: int = 0

    def __getitem__(self, run_id: int) -> Run:
        try:
            return self._runs[run_id]
        except KeyError:
            kept = f"kept are {min(self._runs)} to {max(self._runs)}" if self._runs else "no run is kept"
            raise NoSuchRunError(f"no run {run_id!r}; {kept}") from None

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._runs))

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def __repr__(self) -> str:
        return f"<{len(self._runs)} runs, {len(self._ended)} of them ended>"

    def add(self, number: int, run: Run) -> None:
        """Take up a new run."""
        self._runs[number] = run

    def ended(self, number: int, user: str, job: str, now: float) -> None:
        """A run that a user has started has ended at `now`; evict what is too much or too old."""
        self._evict_old(now)
        self._ended[number] = now
        if len(self._ended) > self._keep:
            self._let_go(self._shares.replace(user, job, number))
        else:
            self._shares.add(user, job, number)
        self.evict(now)

    def evict(self, now: float) -> None:
        """Let go of ended runs beyond the limits, and look again when the next one is too old."""
        self._evict_old(now)
        while len(self._ended) > self._keep:
            *_, number = self._shares.largest()
            self._evict(number)
        if self._ended and not self._reminded and self._keep_for < math.inf:
            self._reminded = True
            self._remind(self._oldest() + self._keep_for, self._look_again)

    def _evict_old(self, now: float) -> None:
        while self._ended and now - self._oldest() >= self._keep_for:
            self._evict(next(iter(self._ended)))

    def _oldest(self) -> float:
        return next(iter(self._ended.values()))

    def _evict(self, number: int) -> None:
        run = self._runs[number]
        self._shares.remove(run.user, run.job, number)
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        del self._ended[number]
        self.evicted += 1
        self._on_evict(self._runs.pop(number))

    def _look_again(self, now: float) -> None:
        self._reminded = False
        self.evict(now)


@attrs.frozen
class StartRequest:
    """What was asked for: a job with parameters; the arguments of a single task are part of its definition."""

    job: str
    params: Mapping[str, Any]


class IdempotencyKeys:
    """Remembers which run each key stands for."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Callable[[], StartRequest], Run]] = {}
        """By user and key."""

    def find(
        self,
        user: str,
        key: str,
        request: StartRequest,
        earlier: Run | None,
        request_of: Callable[[Run], StartRequest],
    ) -> Run | None:
        """Return the run that the user's key stands for, or else `earlier`, of which `request_of` knows what it was.

        Raises `ConflictError` if that was another request.
        """
        if (user, key) in self._known:
            known, run = self._known[user, key]
            asked = known()
        elif earlier is not None:
            run, asked = earlier, request_of(earlier)
        else:
            return None
        lost = (
            run.execution.given_secrets - run.execution.params.keys()
        )  # no journal has them: nor are they compared
        if asked != attrs.evolve(
            request, params={name: value for name, value in request.params.items() if name not in lost}
        ):
            raise ConflictError(f"key {key!r} stands for run {run.id}: another job or other parameters")
        return run

    def add(self, user: str, key: str, request: Callable[[], StartRequest], run: Run) -> None:
        """Let the user's key stand for the run, as long as it is kept.

        Of a run of an earlier life it is known what it was asked with when the jobs are defined again.
        """
        self._known[user, key] = request, run

    def forget(self, run: Run) -> None:
        """The run is no longer kept."""
        if run.key is not None:
            self._known.pop((run.user, run.key), None)


class RunFactory:
    """Makes runs of definitions: parameters, key, plan and pins, in that order; a refusal leaves nothing behind."""

    def __init__(
        self,
        jobs: Jobs,
        registry: TaskRegistry,
        executor: JobExecutor,
        history: tuple[int, float],
        require_open: RequireOpen,
        secrets: Secrets,
    ) -> None:
        self.secrets: Secrets = secrets
        self.early: EarlySecrets = EarlySecrets(secrets, executor)
        self._jobs = jobs
        self._registry = registry
        self._executor = executor
        self._require_open = require_open
        self.runs: RunHistory = RunHistory(*history, self._evicted, self._remind)
        self._keys = IdempotencyKeys()
        self.recovers_until: float = -math.inf
        """When the program has had its time to define its jobs after a restart."""
        self.durable: DurableRuns | None = None
        """What writes runs into the journal, where there is one."""
        self._write: Callable[[], None] | None = None
        """Writes the run that is being started."""

    # ---- who asks for one

    async def start_job(
        self,
        job: str | JobDefinition | JobBuilder,
        params: Mapping[str, object] | None,
        *,
        key: str | None,
        user: str,
    ) -> Run:
        """Start a run of a job; return it when it is durable. See `Server.start`."""
        self._require_open()
        check_text(user, "user")
        definition, plan = await self._jobs.ready(job)
        earlier = None if key is None else await self._earlier(definition, key, user)
        if plan is not None or not isinstance(job, str):  # perhaps it was judged in a thread
            self._require_open()
        read = await self._secrets_of(definition, params)
        if read is not NOTHING_READ:  # perhaps the provider was asked in a thread
            self._require_open()
        run = self.start(definition, params, key, plan=plan, earlier=earlier, user=user, read=read)
        return run if self.durable is None else await self._started(run)

    async def start_task(
        self,
        path: str | type[RunnableTask] | TaskFunction[..., object],
        args: Mapping[str, object] | None,
        *,
        key: str | None,
        user: str,
    ) -> Run:
        """Start a run of one task; return it when it is durable. See `Server.start_task`."""
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
        run = self.start(definition, None, key, args=args, earlier=earlier, user=user)
        return run if self.durable is None else await self._started(run)

    async def _earlier(self, definition: JobDefinition, key: str, user: str) -> Run | None:
        """Return the run that a user has started with a key and that only the journal remembers."""
        if self.durable is None:
            return None
        check_text(key, "key")
        found = await self.durable.stored.find_key(definition, key, user)
        self._require_open()
        return found

    async def _secrets_of(
        self, definition: JobDefinition, params: Mapping[str, object] | None
    ) -> SecretsRead:
        """Read the secrets of a new run that are not given by value."""
        if not definition.params:
            return NOTHING_READ
        if params is not None:
            check_mapping(params, "params")
        return await self.secrets.read(definition, params or {})

    async def _started(self, run: Run) -> Run:
        """Return a new run when it is durable, where there is a journal."""
        if self.durable is not None:
            await self.durable.writer.durable(run)
        return run

    async def start_child(
        self, attempt: Attempt, job: str | JobDefinition, params: Mapping[str, object] | None
    ) -> Run:
        """Start a run for the body of a task, or return the one that this attempt's earlier life has started."""
        self._require_open(draining=True)  # a run that may finish may start what it needs for that
        definition, plan = await self._when_there(attempt, partial(self._jobs.ready, job))
        self._require_open(draining=True)
        if self.durable is None:
            read = await self._secrets_of(definition, params)
            self._require_open(draining=True)
            return self.start(definition, params, child_of=attempt, plan=plan, read=read)
        key = self.durable.unfinished.child_key(attempt)
        known, key = await self.durable.unfinished.known_child(key, definition, params, attempt)
        if known is not None:
            return known
        if attempt.execution.recovered and plan is None:
            plan = await self._when_there(attempt, partial(self._plan, definition))
        read = await self._secrets_of(definition, params)
        self._require_open(draining=True)
        run = self.start(definition, params, child_of=attempt, child_key=key, plan=plan, read=read)
        return await self._started(run)

    async def _when_there(self, attempt: Attempt, find: Callable[[], Awaitable[T]]) -> T:
        """Return what the body of a task needs to start a run.

        One that is executed again may be quicker than the program, which has jobs to define and code to load; so it
        waits for these as long as the opening of a Server does.
        """
        is_told = False
        while True:
            try:
                return await find()
            except (NoSuchJobError, UnresolvedError) as error:
                left = self.recovers_until - self._executor.clock()
                if not attempt.execution.recovered or left <= 0:
                    raise
                if not is_told:
                    attempt.log.info(
                        "waits for what it starts, which is not there yet after the restart: %s", error
                    )
                is_told = True
            with anyio.move_on_after(left):
                await self._jobs.change()

    async def _plan(self, definition: JobDefinition) -> Plan:
        return self._jobs.plan(definition)

    def start_scheduled(
        self,
        job: str,
        params: Mapping[str, object],
        key: str | None,
        scheduled: ScheduledFor,
        state: ScheduleState | None,
    ) -> Run:
        """Start a run for a schedule: it waits for no commit. Raises `BusyError` as `EarlySecrets.take` does."""
        self._require_open()
        definition = self._jobs.named(job)
        read = self.early.take(definition, params)
        return self.start(definition, params, key, scheduled=scheduled, schedule=state, read=read)

    async def read_early(self, job: str, params: Mapping[str, object]) -> None:
        """Ask the provider for the secrets of a run that a schedule is about to start, if it is to be asked."""
        await self.early.read(self._jobs.named(job), params)

    async def rerun(self, earlier: Execution, *, from_failed: bool, code: str, user: str) -> Run:
        """Start a run of the plan of an ended one; return it when it is durable. See `Server.rerun`."""
        check_again(earlier, code)
        read = await self.secrets.read(earlier.plan.definition, earlier.given_secrets)
        read.check(earlier.plan.job)
        async with plan_again(earlier, code, self._registry, self._jobs) as plan:
            self._require_open()
            taken = take_over(earlier, from_failed=from_failed)

            def prepare(execution: Execution) -> None:
                taken.apply(earlier, execution)
                self._record(execution, given=earlier.given_secrets, again=earlier.id)

            params = {**earlier.params, **read.values}
            run = self._take_up(self._executor.submit(plan, params, user=user, prepare=prepare))
        return await self._started(run)

    # ---- how it comes to be

    def start(  # noqa: PLR0913 - by whom, for whom and of what a run may be
        self,
        definition: JobDefinition,
        overrides: Mapping[str, object] | None,
        key: str | None = None,
        *,
        plan: Plan | None = None,
        args: Mapping[str, object] | None = None,
        child_of: Attempt | None = None,
        child_key: ChildKey | None = None,
        scheduled: ScheduledFor | None = None,
        schedule: ScheduleState | None = None,
        earlier: Run | None = None,
        user: str = "",
        read: SecretsRead = NOTHING_READ,
    ) -> Run:
        """Start a run, or return the one that `key` stands for; `args` are those of a run of one task.

        `plan` is that of the definition, where it was compiled already; `scheduled` says by which schedule, if by one,
        and `schedule` what is remembered of that from then on. `earlier` is the run that the journal has for the key.
        `user` is who asks for it; a child run is of who asked for its parent. `read` are the secrets that were not
        given by value.

        Raises `DefinitionError`, `UnresolvedError`, `BusyError`, `ConflictError`.
        """
        if read is not NOTHING_READ:
            params, secrets = _parameters_with(read, definition, overrides)
        else:
            params, secrets = _parameters(definition, overrides)
        given, request = secrets & (overrides or {}).keys(), None
        if key is not None:
            check_text(key, "key")
            request = StartRequest(self._jobs.identity(definition), _compared(params, secrets - given))
            # It may not be among the runs that are kept in memory, and its key not among theirs.
            known = self._keys.find(user, key, request, earlier, lambda run: self._request_of(run.execution))
            if known is not None:
                return known
        if read.problems:
            read.check(definition.name)
        plan = plan or self._jobs.plan(definition)
        if plan.fed:
            try:
                plan.check_params(params)
            except DefinitionError as exc:
                hide_in_error(exc, read.values.values())
                raise

        def prepare(execution: Execution) -> None:
            if scheduled is not None:
                _note_schedule(scheduled, execution)
            execution.given_secrets = frozenset(given)
            self._record(execution, args=args, given=frozenset(given), child=child_key, schedule=schedule)

        prepares = prepare if scheduled is not None or given or self.durable is not None else None
        run = self._take_up(
            self._executor.submit(
                plan, params, secrets=secrets, key=key, child_of=child_of, user=user, prepare=prepares
            )
        )
        if key is not None and request is not None:
            self._keys.add(user, key, lambda: request, run)
        return run

    def _record(
        self,
        execution: Execution,
        *,
        args: Mapping[str, object] | None = None,
        given: frozenset[str] = frozenset(),
        child: ChildKey | None = None,
        again: int | None = None,
        schedule: ScheduleState | None = None,
    ) -> None:
        """Prepare a new run for the journal, if there is one."""
        if self.durable is not None:
            self._write = self.durable.writer.record(
                execution, args=args, given=given, child=child, again=again, schedule=schedule
            )

    def take_back(self, run: Run) -> None:
        """Take up a run of an earlier life of the Server."""
        execution = run.execution
        self.runs.add(execution.id, run)
        if execution.state.ended:
            self.runs.ended(execution.id, execution.user, execution.plan.job, self._executor.clock())
        if execution.key is not None:
            self._keys.add(execution.user, execution.key, lambda: self._request_of(execution), run)

    def _request_of(self, execution: Execution) -> StartRequest:
        """Return what a run of an earlier life was asked with."""
        return StartRequest(
            self._jobs.identity_of(execution.plan.definition),
            _compared(execution.params, execution.secrets - execution.given_secrets),
        )

    def _take_up(self, execution: Execution) -> Run:
        """Make a run of what was submitted, and pin its code."""
        run = Run(execution, self._executor)
        self.runs.add(execution.id, run)
        write, self._write = self._write, None
        if write is not None:
            write()
        if execution.state.ended:  # nothing in it had to be executed
            self._registry.keep(execution.id, execution.plan.versions)
            self.runs.ended(execution.id, execution.user, execution.plan.job, self._executor.clock())
        else:
            self._registry.pin(execution.id, execution.plan.versions, keep=True)
        return run

    def ended(self, execution: Execution) -> None:
        """Put a run into the history, and unpin its code, unless a refuser executes it still."""
        if self.durable is not None:
            self.durable.writer.ended(execution)
        if execution not in self._executor.stuck.values():
            self._registry.unpin(execution.id)
        if execution.id in self.runs:
            self.runs.ended(execution.id, execution.user, execution.plan.job, self._executor.clock())

    def _remind(self, when: float, callback: Callable[[float], None]) -> None:
        self._executor.deadlines.call_at(when, lambda: callback(self._executor.clock()))

    def _evicted(self, run: Run) -> None:
        """Forget a run: the files of its code, its log and its key."""
        self._registry.forget(run.id)
        run.execution.discard_log()
        self._keys.forget(run)


def _note_schedule(scheduled: ScheduledFor, execution: Execution) -> None:
    execution.scheduled = scheduled
    execution.log.append(logging.INFO, f"started by {scheduled}")


def _compared(params: Mapping[str, object], read: frozenset[str]) -> dict[str, object]:
    """Return what tells a repeat of a key from a misuse: secrets that were read may be others by now."""
    return {name: value for name, value in params.items() if name not in read}


def _parameters_with(
    read: SecretsRead, definition: JobDefinition, overrides: Mapping[str, object] | None
) -> tuple[Mapping[str, object], frozenset[str]]:
    """Return what `_parameters` does, with secrets that were read."""
    if overrides is not None:
        check_mapping(overrides, "params")
    return _parameters(definition, {**read.values, **(overrides or {})})


def _parameters(
    definition: JobDefinition, overrides: Mapping[str, object] | None
) -> tuple[Mapping[str, object], frozenset[str]]:
    """Return the parameters of a run, and the names of those that are secret. Raises `DefinitionError`, `TypeError`."""
    if overrides is None and not definition.params:
        return {}, frozenset()
    if overrides is not None:
        check_mapping(overrides, "params")
    return resolve_params(definition, overrides or {}), secret_names(definition)

"""How a run comes to be, by name, by key or again, and what is let go when it ends and when it is forgotten."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scattersphere.definitions import resolve_params, secret_names
from scattersphere.engine.run import Run
from scattersphere.jobs.archive import RunArchive
from scattersphere.jobs.keys import StartKeys, StartRequest
from scattersphere.jobs.reruns import check_again, plan_again, take_over
from scattersphere.model.arguments import check_mapping, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.engine.attempt import Attempt
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import Plan
    from scattersphere.jobs.durable import ChildKey, DurableRuns
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.model.definition import JobDefinition
    from scattersphere.registry.registry import TaskRegistry
    from scattersphere.schedules.occurrences import ScheduledFor, ScheduleState


class Starter:
    """Makes runs of definitions: parameters, key, plan and pins, in that order; a refusal leaves nothing behind."""

    def __init__(
        self, jobs: Jobs, registry: TaskRegistry, executor: JobExecutor, history: tuple[int, float]
    ) -> None:
        self._jobs = jobs
        self._registry = registry
        self._executor = executor
        self.runs: RunArchive = RunArchive(*history, self._evicted, self._remind)
        self._keys = StartKeys()
        self.durable: DurableRuns | None = None
        """What writes runs into the journal, where there is one."""
        self._write: Callable[[], None] | None = None
        """Writes the run that is being started."""

    def start(  # noqa: PLR0913 - by whom, for whom and of what a run may be
        self,
        definition: JobDefinition,
        overrides: Mapping[str, Any] | None,
        key: str | None = None,
        *,
        plan: Plan | None = None,
        args: Mapping[str, Any] | None = None,
        child_of: Attempt | None = None,
        child_key: ChildKey | None = None,
        scheduled: ScheduledFor | None = None,
        schedule: ScheduleState | None = None,
        earlier: Run | None = None,
    ) -> Run:
        """Start a run, or return the one that `key` stands for; `args` are those of a run of one task.

        `plan` is that of the definition, where it was compiled already; `scheduled` says by which schedule, if by one,
        and `schedule` what is remembered of that from then on. `earlier` is the run that the journal has for the key.

        Raises `DefinitionError`, `UnresolvedError`, `BusyError`, `ConflictError`.
        """
        check_mapping(overrides, "params")
        check_text(key, "key", optional=True)
        params = resolve_params(definition, overrides or {})
        request = None if key is None else StartRequest(self._jobs.identity(definition), dict(params))
        if key is not None and request is not None:
            # It may not be among the runs that are kept in memory, and its key not among theirs.
            known = self._keys.find(key, request, earlier, lambda run: self._request_of(run.execution))
            if known is not None:
                return known
        plan = plan or self._jobs.plan(definition)
        plan.check_params(params)
        secrets = secret_names(definition)

        def prepare(execution: Execution) -> None:
            execution.secrets, execution.key = secrets, key
            if scheduled is not None:
                _note_schedule(scheduled, execution)
            given = secrets & (overrides or {}).keys()
            self._record(execution, args=args, given=given, child=child_key, schedule=schedule)

        execution = self._executor.submit(plan, params, child_of=child_of, prepare=prepare)
        run = self._take_up(execution)
        if request is not None:
            self._keys.add(key, request, run)
        return run

    async def rerun(self, run_id: int, *, from_failed: bool, code: str, alive: Callable[[], None]) -> Run:
        """Start a run of the plan of an ended one; `alive` is asked again once its code is there."""
        earlier = self.runs[run_id].execution
        check_again(earlier, code)
        async with plan_again(earlier, code, self._registry, self._jobs) as plan:
            alive()
            taken = take_over(earlier, from_failed=from_failed)

            def prepare(execution: Execution) -> None:
                taken.apply(earlier, execution)
                self._record(execution, given=earlier.given_secrets, again=earlier.id)

            return self._take_up(self._executor.submit(plan, earlier.params, prepare=prepare))

    def _record(
        self,
        execution: Execution,
        *,
        args: Mapping[str, Any] | None = None,
        given: frozenset[str] = frozenset(),
        child: ChildKey | None = None,
        again: int | None = None,
        schedule: ScheduleState | None = None,
    ) -> None:
        """Prepare a new run for the journal, if there is one."""
        if self.durable is not None:
            self._write = self.durable.record(
                execution, args=args, given=given, child=child, again=again, schedule=schedule
            )

    def take_back(self, run: Run) -> None:
        """Take up a run of an earlier life of the Server."""
        self.runs.add(run)
        if run.state.ended:
            self.runs.ended(run, self._executor.clock())
        self._keys.add_earlier(run.key, lambda: self._request_of(run.execution), run)

    def _request_of(self, execution: Execution) -> StartRequest:
        """Return what a run of an earlier life was asked with."""
        return StartRequest(self._jobs.identity_of(execution.plan.definition), dict(execution.params))

    def _take_up(self, execution: Execution) -> Run:
        """Make a run of what was submitted, and pin its code."""
        run = Run(execution, self._executor)
        self.runs.add(run)
        write, self._write = self._write, None
        if write is not None:
            write()
        self._registry.keep(run.id, execution.plan.versions)
        if run.state.ended:  # nothing in it had to be executed
            self.runs.ended(run, self._executor.clock())
        else:
            self._registry.pin(run.id, execution.plan.versions)
        return run

    def ended(self, execution: Execution) -> None:
        """Unpin the code of a run, unless a refuser executes it still, and put the run into the history."""
        if execution not in self._executor.stuck.values():
            self._registry.unpin(execution.id)
        run = self.runs.get(execution.id)
        if run is not None:
            self.runs.ended(run, self._executor.clock())

    def _remind(self, when: float, callback: Callable[[float], None]) -> None:
        self._executor.call_at(when, lambda: callback(self._executor.clock()))

    def _evicted(self, run: Run) -> None:
        """Forget a run: the files of its code, its log and its key."""
        self._registry.forget(run.id)
        run.execution.discard_log()
        self._keys.forget(run)


def _note_schedule(scheduled: ScheduledFor, execution: Execution) -> None:
    execution.scheduled = scheduled
    execution.log.append(logging.INFO, f"started by {scheduled}")

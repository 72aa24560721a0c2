"""Rerunning a run: which results of the earlier run are reused, and which code is run. No I/O of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.engine.machine.codes import SUCCEEDED
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.engine.reused import Reused
from scattersphere.errors import ArgumentError, NoSuchBundleError, RunStateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scattersphere.engine.execution import Execution
    from scattersphere.engine.plan import MadeBy, Plan
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.registry.registry import TaskRegistry

PINNED, LATEST = "pinned", "latest"


@attrs.frozen
class Takeover:
    """What a new run takes over from an earlier one of the same definition."""

    tasks: Mapping[int, Any]
    """Results by task."""
    instances: Mapping[tuple[int, int], Any]
    """Results by mapped task and index, of tasks that did not succeed as a whole."""

    def apply(self, earlier: Execution, execution: Execution) -> None:
        """Give the results to `execution`, which has not started, and note where they come from."""
        execution.parent = earlier.id
        execution.keep_secret(earlier.secrets)
        for task, value in self.tasks.items():
            execution.machine.reuse(task, value)
        execution.borrowed = dict(self.instances)
        counts: dict[int, int | None] = dict.fromkeys(self.tasks)
        for task, _ in self.instances:
            counts[task] = (counts.get(task) or 0) + 1
        execution.reused = _notes(earlier, execution.plan, counts)
        _log_reuse(earlier, execution)


def _notes(earlier: Execution, plan: Plan, counts: Mapping[int, int | None]) -> dict[str, Reused]:
    """Return where the results of tasks come from, by name; `counts` tells how many instances, None for all."""
    found: dict[str, Reused] = {}
    shared: dict[tuple[object, ...], Reused] = {}  # of tasks of one class, which may be thousands
    for task, instances in sorted(counts.items()):
        planned, made_by = plan.tasks[task], earlier.plan.tasks[task].made_by
        before = earlier.reused.get(planned.name)
        key = id(before), id(made_by), id(planned.made_by), instances
        if key not in shared:
            shared[key] = _note(earlier.id, before, made_by, planned.made_by, instances)
        found[planned.name] = shared[key]
    return found


def _note(number: int, before: Reused | None, made_by: MadeBy, now: MadeBy, instances: int | None) -> Reused:
    if before is not None and instances is None and before.instances is None:
        run, code, digest = before.run, before.code, before.digest
    else:
        run, code, digest = number, made_by.code, made_by.digest
    return Reused(run=run, code=code, older=digest != now.digest, instances=instances, digest=digest)


def _log_reuse(earlier: Execution, execution: Execution) -> None:
    reused, log = execution.reused, execution.log
    log.append(logging.INFO, f"runs run {earlier.id} again; {len(reused)} results are reused")
    older: dict[tuple[int, str], list[str]] = {}
    for name, note in reused.items():
        if note.older:
            older.setdefault((note.run, note.code), []).append(name)
    for (run, code), names in older.items():
        log.append(logging.WARNING, f"made by older code, {code} in run {run}: {_listed(names)}")


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def take_over(earlier: Execution, *, from_failed: bool) -> Takeover:
    """Choose what need not be done again.

    A task is done again if it did not succeed, if it is a finally-task, or if one of its upstreams is
    done again for such a reason: what it reads may be different then. A succeeded task whose result was
    dropped (`keep_results: false`) is done again only where a task that is done again reads it.
    """
    machine, graph = earlier.machine, earlier.plan.graph
    if not from_failed:
        return Takeover({}, {})
    states, results = machine.record.task_states, machine.record.results
    again = [task for task in range(graph.size) if states[task] != SUCCEEDED or graph.tasks[task].finally_]
    chosen = set(again)
    for task in again:  # grows while it is read
        for successor in graph.successors[task]:
            if successor not in chosen:
                chosen.add(successor)
                again.append(successor)
    stale = frozenset(chosen)
    for task in again:  # grows again
        for upstream in graph.upstreams[task]:
            if upstream not in chosen and results[upstream] is DROPPED:
                chosen.add(upstream)
                again.append(upstream)
    tasks = {task: results[task] for task in range(graph.size) if task not in chosen}
    return Takeover(tasks, _instances(earlier, stale))


def _instances(earlier: Execution, stale: frozenset[int]) -> dict[tuple[int, int], object]:
    """Return the results of instances whose task is done again for no reason but other instances."""
    machine, graph = earlier.machine, earlier.plan.graph
    found: dict[tuple[int, int], object] = {}
    for unit in range(graph.size, len(machine.record.task_states)):
        task, index = machine.record.task_of(unit), machine.record.index_of(unit)
        if (
            index is None
            or machine.record.task_states[unit] != SUCCEEDED
            or machine.record.results[unit] is DROPPED
        ):
            continue
        if task in stale and not graph.tasks[task].finally_ and stale.isdisjoint(graph.upstreams[task]):
            found[task, index] = machine.record.results[unit]
    return found


def check_again(earlier: Execution, code: str) -> None:
    """Raise `RunStateError` for a run that lives, `ArgumentError` for code that there is no word for."""
    if code not in {PINNED, LATEST}:
        raise ArgumentError(f'code is "pinned" or "latest", not {code!r}')
    if not earlier.state.ended:
        raise RunStateError(f"run {earlier.id} is {earlier.state}; it can be run again when it has ended")
    if lost := sorted(earlier.given_secrets - earlier.params.keys()):
        raise RunStateError(
            f"run {earlier.id} cannot be run again: the journal does not have the secret that it was given by value "
            f"({', '.join(lost)}); start {earlier.plan.job!r} with it"
        )


@asynccontextmanager
async def plan_again(
    earlier: Execution, code: str, registry: TaskRegistry, jobs: Jobs
) -> AsyncIterator[Plan]:
    """Have the plan of a run again, inside the block; the run that gets it pins its versions there.

    With `pinned` it has the code that the run had, loaded again from the kept files if need be: raises
    `NoSuchBundleError` where they are gone. With `latest` it is the same definition with the code of
    now: raises `UnresolvedError`, or `DefinitionError` where the parameters do not fit it.
    """
    plan = earlier.plan
    if code == LATEST:
        latest = jobs.plan(plan.definition)
        latest.check_params(earlier.params)
        yield latest
        return
    if plan.size and not plan.versions and not plan.has_code:
        raise NoSuchBundleError(
            f'the code that run {earlier.id} had is not here: register it, or run it again with code="latest"'
        )
    async with registry.revived(plan.versions) as found:
        if plan.has_code and plan.versions == frozenset(found.versions):
            yield plan
        else:
            yield jobs.compiled(plan.definition, found.find)

"""The facts of a run: what cannot be derived from anything else, and so what a journal has to keep.

Counts, queues and places follow from them: `take_up` has a new machine go on where `facts_of` another were taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from scattersphere.engine.machine.codes import (
    BY_CANCEL,
    BY_TIMEOUT,
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
    CommandKind,
)
from scattersphere.engine.machine.record import MapProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scattersphere.engine.machine.codes import Command
    from scattersphere.engine.machine.propagation import Propagation
    from scattersphere.engine.machine.record import RunRecord
    from scattersphere.engine.machine.run import RunMachine


@attrs.frozen(kw_only=True)
class UnitFacts:
    """A task, or an instance of a mapped task, that has begun or ended."""

    task: int
    index: int | None
    """Its index in the map; None for a task."""
    state: int
    attempts: int
    forgiven: int
    """How many of them do not count, since it was their place that was lost."""
    result: object
    timed_out: bool
    """While it is being cancelled: whether its time was over, and not a request the reason."""


@attrs.frozen(kw_only=True)
class RunFacts:
    """A run at one moment."""

    state: int
    started: bool
    level: int
    """How far requests have escalated: none, stop, cancel, kill."""
    causes: tuple[str, ...]
    timed_out_first: bool
    """Whether the first cause of its cancel is its timeout."""
    failing_fast: bool
    finals_over: bool
    """Whether the time of its finally-tasks is used up."""
    withheld: bool
    """Whether a request has kept anything from starting."""
    widths: dict[int, int]
    """How many instances mapped tasks have, of those whose list has been looked at."""
    cut: frozenset[int]
    """Mapped tasks of which no further instance begins."""
    units: tuple[UnitFacts, ...]
    """In the order of their numbers, instances as they began; without tasks that are pending and were never tried."""


def facts_of(machine: RunMachine, *, units: bool = True) -> RunFacts:
    """Return what a journal has to keep of a run; without `units`, of the run itself."""
    record, propagation = machine.record, machine.propagation
    size, states = record.graph.size, record.task_states
    return RunFacts(
        state=record.state,
        started=record.started,
        level=record.level,
        causes=tuple(record.causes),
        timed_out_first=record.first_cause_is_timeout,
        failing_fast=propagation.failed_fast,
        finals_over=propagation.finals_over,
        withheld=record.withheld,
        widths={task: progress.width for task, progress in record.maps.items()},
        cut=frozenset(task for task, progress in record.maps.items() if progress.cut),
        units=tuple(
            UnitFacts(
                task=record.task_of(unit),
                index=record.index_of(unit),
                state=states[unit],
                attempts=record.attempts[unit],
                forgiven=record.forgiven.get(unit, 0),
                result=record.results[unit],
                timed_out=states[unit] == CANCELLING and record.reasons.get(unit) == BY_TIMEOUT,
            )
            for unit in range(len(states) if units else 0)
            if unit >= size or states[unit] != PENDING or record.attempts[unit]
        ),
    )


def take_up(machine: RunMachine, facts: RunFacts) -> Sequence[Command]:
    """Have a new machine go on where these facts were taken; what executed then was interrupted.

    Its journal begins with what follows. Return what is to be done, like every signal: RETRY for each back-off that was
    not over.
    """
    record, propagation = machine.record, machine.propagation
    _copy(facts, record, propagation)
    live = [unit for each in facts.units if (unit := _copy_unit(each, record)) >= 0]
    _derive(record, propagation, facts.cut)
    if record.is_over:
        return machine.take_commands()
    if facts.started and (facts.level or facts.failing_fast or facts.finals_over):
        propagation.start_sweep()
    for task, progress in record.maps.items():
        if record.task_states[task] < TASK_ENDED_FROM:
            propagation.admit_again(task)
            if progress.next < progress.width and propagation.may_start(task):
                machine.ready.push(task)
    for unit in live:
        if unit not in record.maps:
            _go_on(machine, unit)
    if facts.started:
        propagation.decide(task for task in range(record.graph.size) if record.task_states[task] == PENDING)
        propagation.drain()
    return machine.take_commands()


def _copy(facts: RunFacts, record: RunRecord, propagation: Propagation) -> None:
    record.state, record.started, record.level = facts.state, facts.started, facts.level
    record.causes = list(facts.causes)
    record.first_cause_is_timeout, record.withheld = facts.timed_out_first, facts.withheld
    record.uneven = True
    record.maps = {task: MapProgress(width) for task, width in facts.widths.items()}
    propagation.failed_fast, propagation.finals_over = facts.failing_fast, facts.finals_over


def _copy_unit(facts: UnitFacts, record: RunRecord) -> int:
    """Take over what is known of a unit; return its number, or -1 if it has ended."""
    unit = facts.task if facts.index is None else record.new_instance(facts.task, facts.index)
    record.task_states[unit], record.attempts[unit] = facts.state, facts.attempts
    record.results[unit] = facts.result
    if facts.forgiven:
        record.forgiven[unit] = facts.forgiven
    if facts.state == CANCELLING and unit not in record.maps:
        record.reasons[unit] = BY_TIMEOUT if facts.timed_out else BY_CANCEL
    return unit if facts.state < TASK_ENDED_FROM else -1


def _derive(record: RunRecord, propagation: Propagation, cut: frozenset[int]) -> None:
    """Count anew what follows from the states of all units."""
    for task, progress in record.maps.items():
        _derive_map(record, progress, cut=task in cut)
    ended = [task for task in range(record.graph.size) if record.task_states[task] >= TASK_ENDED_FROM]
    for task in ended:
        _count_ended(record, task)
        propagation.count_ended(task)
    for task in ended:
        propagation.waited[task] = -1  # see `RunMachine.reuse`
    record.finals_phase = record.started and not record.left
    record.fast_path = False


def _derive_map(record: RunRecord, progress: MapProgress, *, cut: bool) -> None:
    # An instance of which nothing was known may have any number that was free: the results are in the map's order.
    progress.units.sort(key=lambda unit: record.index_of(unit) or 0)
    begun = [record.index_of(unit) or 0 for unit in progress.units]
    progress.next = max(begun, default=-1) + 1
    states = [record.task_states[unit] for unit in progress.units]
    ended = [state for state in states if state >= TASK_ENDED_FROM]
    progress.cut = cut
    progress.left = (progress.next if cut else progress.width) - len(ended)
    if cut:
        progress.next = progress.width
    progress.failed = FAILED in ended or CRASHED in ended
    progress.withdrawn = CANCELLED in ended


def _count_ended(record: RunRecord, task: int) -> None:
    state, spec = record.task_states[task], record.graph.tasks[task]
    if spec.finally_:
        record.finals_left -= 1
    else:
        record.left -= 1
    if state in (FAILED, CRASHED) and not spec.allow_failure:
        record.task_failed = True
    record.clean = record.clean and state == SUCCEEDED
    record.count_reader(task)


def _go_on(machine: RunMachine, unit: int) -> None:
    """Let a unit go on that had begun: what executed was interrupted, what waited waits."""
    record = machine.record
    state = record.task_states[unit]
    if state in (RUNNING, CANCELLING):
        machine.lose(unit)
    elif state == UP_FOR_RETRY:
        record.back_off.add(unit)
        record.command(CommandKind.RETRY, unit)
    elif machine.propagation.may_start(unit):  # an instance that was taken and had not begun
        machine.ready.push(unit)

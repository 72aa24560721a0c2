"""What runs and tasks wait for, and who has it: a place in pool db (1 of 1, held by par#1/p), a slot, a back-off."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol

from scattersphere.engine.machine.codes import (
    CANCELLING,
    PENDING,
    RUN_PAUSED,
    RUN_PAUSING,
    RUN_QUEUED,
    RUNNING,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
)
from scattersphere.engine.naming import name_of, names_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from scattersphere.engine.admission import Admission
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.machine.dispatcher import Limit

NAMED = 3
"""Names that are told of those that are waited for, or that hold a place."""
FRESH = 0.05
"""Seconds for which is told again who holds a place: ten thousand tasks may wait for it."""


class WaitsEngine(Protocol):
    """What is asked of the executor."""

    running: dict[int, Execution]
    admission: Admission
    clock: Callable[[], float]


class Waits:
    """The words of one executor for what its runs and their tasks wait for."""

    def __init__(self, engine: WaitsEngine) -> None:
        self._engine = engine
        self._known: dict[int, tuple[float, str]] = {}

    def of_run(self, execution: Execution) -> str:
        """Say what a run waits for; "" where it does not wait."""
        state = execution.machine.record.state
        if execution.waits_for:  # what its code lacks may suggest names of others' code
            return execution.waits_for if names_all() else execution.waits_for.partition(":")[0]
        if execution.is_end_held:
            return _journal(execution)
        if state == RUN_QUEUED:
            return self._engine.admission.waits_for(execution)
        if state in (RUN_PAUSING, RUN_PAUSED):
            return (
                "a resume"
                if state == RUN_PAUSED
                else "a checkpoint or the end of what executes, to be paused"
            )
        return ""

    def of_task(self, execution: Execution, unit: int) -> str:
        """Say what a task or an instance waits for; "" where it does not wait."""
        machine = execution.machine
        state = machine.record.task_states[unit]
        if machine.record.is_over or state >= TASK_ENDED_FROM:
            return ""
        if execution.recording is not None and execution.live.get(unit) in execution.recording.at_gate:
            return _journal(execution)
        if state == RUNNING:
            return self._of_attempt(execution, unit)
        if state == CANCELLING:
            return self._of_cancelled(execution, unit)
        if machine.record.state == RUN_QUEUED or (
            machine.record.state == RUN_PAUSED and not machine.record.started
        ):
            return f"its run, which waits for {self.of_run(execution)}"
        if state == UP_FOR_RETRY and (timer := execution.retries.get(unit)) is not None:
            until = execution.wall(timer.when).time().isoformat("seconds")
            return f"its back-off, until {until} UTC ({max(0.0, timer.when - self._engine.clock()):.1f} s)"
        if state == PENDING and (above := self._above(execution, unit)):
            return above
        if machine.record.state in (RUN_PAUSING, RUN_PAUSED):
            return "a resume"
        return self._place(execution, unit)

    def _of_attempt(self, execution: Execution, unit: int) -> str:
        machine, attempt = execution.machine, execution.live.get(unit)
        children = [] if attempt is None else [child for child in attempt.waits_for if not child.state.ended]
        if children:
            return _listed(
                (
                    name_of(child.id, child.plan.job, f"run {child.id} of {child.plan.job}")
                    for child in children
                ),
                len(children),
            )
        if unit in machine.record.lent:
            return f"{self._place(execution, unit)}, which it has lent"
        return "a resume, at a checkpoint" if unit in machine.record.held else ""

    def _of_cancelled(self, execution: Execution, unit: int) -> str:
        attempt = execution.live.get(unit)
        left = None if attempt is None else attempt.grace_left
        return "its end" if left is None else f"its end; it is given up in {left:.1f} s"

    def _above(self, execution: Execution, unit: int) -> str:
        """Name the tasks that must end before this one is decided."""
        machine, tasks = execution.machine, execution.plan.tasks
        task = machine.record.task_of(unit)
        if unit != task or machine.propagation.is_admitted(task):
            return ""
        if machine.record.graph.tasks[task].finally_ and not machine.record.finals_phase:
            return "the end of all tasks that are no finally-tasks"
        states = machine.record.task_states
        waited = [up for up in machine.record.graph.upstreams[task] if states[up] < TASK_ENDED_FROM]
        return _listed((tasks[up].name for up in waited), len(waited))

    # ---- places

    def _place(self, execution: Execution, unit: int) -> str:
        machine = execution.machine
        limit, dispatcher = machine.ready.full_limit(unit), machine.dispatcher
        if limit is not None:
            amount = machine.ready.amount_of(unit, limit)
            places = "a place" if amount == 1 else f"{amount:,} places"
            behind = f", behind {self._first_at(limit)}" if limit.free >= amount else ""
            return f"{places} in {self._cached(id(limit), lambda: self._at(limit))}{behind}"
        if dispatcher.limited and dispatcher.free <= 0:
            return self._cached(0, lambda: f"a place of the server (max_parallel), {self._held(None)}")
        return "its turn"

    def _at(self, limit: Limit) -> str:
        taken = limit.size - limit.free
        return f"{limit.what} ({taken:,} of {limit.size:,}, {self._held(limit)})"

    def _first_at(self, limit: Limit) -> str:
        """Name who waits first at a limit: nobody who needs less overtakes it."""
        if not limit.waiting:
            return "who has its turn before"
        queue = next(iter(limit.waiting[max(limit.waiting)]))
        execution = self._engine.running.get(queue.run_queue.ready.run_id)
        if execution is None or not queue.units:
            return "who waits for more"
        label = f"{execution.plan.job}#{execution.id}/{execution.label_of(queue.units[0])}"
        return f"{name_of(execution.id, execution.plan.job, label)}, which needs more"

    def _held(self, limit: Limit | None) -> str:
        names = self._holders(limit)
        found = list(islice(names, NAMED + 1))
        more = " and others" if len(found) > NAMED else ""
        return f"held by {', '.join(found[:NAMED])}{more}" if found else "held by what is about to begin"

    def _holders(self, limit: Limit | None) -> Iterator[str]:
        for execution in self._engine.running.values():
            machine = execution.machine
            for unit, attempt in execution.live.items():
                if unit in machine.record.lent:
                    continue
                amount = 1 if limit is None else machine.ready.amount_of(unit, limit)
                if amount:
                    label = name_of(execution.id, execution.plan.job, attempt.label)
                    yield label if amount == 1 else f"{label} ({amount:,})"

    def _cached(self, key: int, words: Callable[[], str]) -> str:
        if not names_all():
            return words()
        now = self._engine.clock()
        known = self._known.get(key)
        if known is None or not 0 <= now - known[0] < FRESH:
            if len(self._known) > NAMED * 100:
                self._known.clear()
            known = self._known[key] = (now, words())
        return known[1]


def _listed(names: Iterable[str], count: int) -> str:
    shown = list(islice(names, NAMED))
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return ", ".join(shown) + more


def _journal(execution: Execution) -> str:
    """Say that an outcome waits for its commit; that takes milliseconds, unless the journal commits nothing."""
    recording = execution.recording
    failure = None if recording is None else recording.failure
    return "the journal" if failure is None else f"the journal, which commits nothing at present: {failure}"

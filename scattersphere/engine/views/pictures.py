"""Pictures of a run: its job with states and times, and its timeline for a trace viewer."""

from __future__ import annotations

import heapq
import itertools
import json
import operator
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from scattersphere._turns import EACH
from scattersphere.engine.execution import NEVER
from scattersphere.engine.machine.codes import (
    CANCELLING,
    RUN_ENDED_FROM,
    RUN_STATES,
    RUNNING,
    STATE_BITS,
    TASK_STATES,
)
from scattersphere.engine.views.outcome import failed_units
from scattersphere.pictures.nodes import Node, Progress, node_of
from scattersphere.pictures.notebook import run_html
from scattersphere.pictures.timeline import AttemptBar, Band, Lasted, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scattersphere.engine.execution import Execution

_STATE = (1 << STATE_BITS) - 1
_LIVE = frozenset({"running", "cancelling"})
_FAILURES = 10
"""Failures that a notebook shows."""
_SHOWN = 500
"""Characters of a failure in a timeline."""
_start = operator.attrgetter("start")


def title_of(execution: Execution) -> str:
    """Name a run in the head of a picture."""
    return f"run {execution.id} of {execution.plan.job}: {execution.state}"


def run_nodes(execution: Execution) -> list[Node]:
    """Return the nodes of a run: of each task also its state, its time and its attempts."""
    machine = execution.machine
    instances: dict[int, list[int]] = {}
    each = EACH.get()
    for unit in each(range(machine.record.graph.size, len(machine.record.task_states))):
        instances.setdefault(machine.record.task_of(unit), []).append(unit)
    return [
        node_of(planned.name, planned.definition, _progress(execution, number, instances.get(number, ())))
        for number, planned in each(enumerate(execution.plan.tasks))
    ]


def _progress(execution: Execution, number: int, instances: Sequence[int]) -> Progress:
    record = execution.machine.record
    started, ended = execution.started[number], execution.ended[number]
    return Progress(
        state=TASK_STATES[record.task_states[number]].value,
        seconds=ended - started if ended >= started > NEVER else None,
        attempts=record.attempts[number],
        instances=record.width_of(number),
        counts=Counter(TASK_STATES[record.task_states[unit]].value for unit in EACH.get()(instances))
        if instances
        else {},
        retried=sum(record.attempts[unit] > 1 for unit in EACH.get()(instances)),
    )


@attrs.frozen
class RunPicture:
    """All that pictures of a run show: its tasks and what they wait for, when each executed, when it was paused."""

    title: str
    state: str
    nodes: list[Node]
    upstreams: Mapping[str, tuple[str, ...]]
    rows: list[Band]
    lasted: Lasted
    pauses: list[Span]


def run_picture(execution: Execution, now: float) -> RunPicture:
    """Return what pictures show of a run at a time of the loop's clock. It may be called in any thread."""
    run_slices, attempts = _slices(execution, now)
    origin, ended = execution.created_at, execution.state.ended
    rows: dict[int, list[AttemptBar]] = {}
    each = EACH.get()
    for found in each(sorted(attempts, key=_start)):
        task = execution.machine.record.task_of(found.unit or 0)
        until = None if found.state in _LIVE else found.end - origin
        # What is tried again has failed this time.
        state = "failed" if found.state == "up_for_retry" else found.state
        rows.setdefault(task, []).append(AttemptBar(found.start - origin, until, state))
    last = now if execution.ended_at is None else execution.ended_at
    end = max((found.end for found in each(attempts)), default=last) if ended else now
    nodes = run_nodes(execution)
    return RunPicture(
        title=f"run {execution.id} of {execution.plan.job}",
        state=str(execution.state),
        nodes=nodes,
        upstreams=execution.plan.definition.upstreams,
        rows=[
            Band(node.name, node.state or "none", _merged(rows.get(number, []), mapped=node.mapped))
            for number, node in each(enumerate(nodes))
        ],
        lasted=Lasted(end - origin, ended),
        pauses=[Span(s.start - origin, s.end - origin) for s in run_slices if s.state == "paused"],
    )


def run_page(execution: Execution, now: float) -> str:
    """Return a run as HTML, for a notebook."""
    found = run_picture(execution, now)
    return run_html(
        found.title,
        found.state,
        found.nodes,
        found.upstreams,
        rows=found.rows,
        lasted=found.lasted,
        pauses=found.pauses,
        failures=dict(itertools.islice(_failures(execution), _FAILURES)),
    )


def _failures(execution: Execution) -> Iterator[tuple[str, str]]:
    """Name the tasks and instances that ended failed, each with its traceback."""
    return ((execution.label_of(unit), str(execution.failures[unit])) for unit in failed_units(execution))


def _merged(attempts: list[AttemptBar], *, mapped: bool) -> tuple[AttemptBar, ...]:
    """Return the bars of a task: those of its attempts, or of a map one from its first instance to its last."""
    if not mapped or not attempts:
        return tuple(attempts)
    ends = [attempt.end for attempt in EACH.get()(attempts) if attempt.end is not None]
    open_ = len(ends) < len(attempts)
    worst = next((a.state for a in attempts if a.state in ("failed", "crashed")), attempts[-1].state)
    return (AttemptBar(attempts[0].begin, None if open_ else max(ends), worst),)


@attrs.define
class _Slice:
    """A time in which something was in one state; seconds of the loop's clock."""

    unit: int | None
    start: float
    end: float
    state: str
    attempt: int = 0


def trace(execution: Execution, now: float) -> str:
    """Return the timeline as JSON in the Trace Event Format, which Perfetto and chrome://tracing open.

    Row 0 shows the states of the run, each other row attempts that did not overlap. Times are
    microseconds since `start`. What has not ended goes on until `now`.
    """
    run_slices, attempts = _slices(execution, now)
    origin = execution.created_at
    events: list[dict[str, object]] = [
        _meta("process_name", execution, 0, f"run {execution.id} of {execution.plan.job}"),
        _meta("thread_name", execution, 0, "run"),
    ]
    events += [_event(execution, found, 0, origin) for found in run_slices]
    free: list[tuple[float, int]] = []
    rows = 0
    for found in EACH.get()(sorted(attempts, key=_start)):
        # Slices of one row must not overlap; they may touch.
        if free and free[0][0] <= found.start:
            row = heapq.heapreplace(free, (found.end, free[0][1]))[1]
        else:
            rows += 1
            row = rows
            heapq.heappush(free, (found.end, row))
            events.append(_meta("thread_name", execution, row, f"attempts {row}"))
        events.append(_event(execution, found, row, origin))
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, ensure_ascii=False) + "\n"


def _slices(execution: Execution, now: float) -> tuple[list[_Slice], list[_Slice]]:
    """Return the slices of the run, and those of the attempts, from the journal of moves."""
    run: list[_Slice] = [_Slice(None, execution.created_at, now, "queued")]
    attempts: list[_Slice] = []
    live: dict[int, _Slice] = {}
    tried: dict[int, int] = {}
    mapped = [bool(planned.mapped) for planned in EACH.get()(execution.plan.tasks)]
    for move, clock in EACH.get()(_moves(execution)):
        if move < 0:
            run[-1].end = clock
            if ~move < RUN_ENDED_FROM:
                run.append(_Slice(None, clock, now, str(RUN_STATES[~move])))
            continue
        unit, state = move >> STATE_BITS, move & _STATE
        if unit < len(mapped) and mapped[unit]:
            continue  # the instances of a map are shown, not what holds them
        if state == RUNNING:
            tried[unit] = tried.get(unit, 0) + 1
            live[unit] = _Slice(unit, clock, now, str(TASK_STATES[state]), tried[unit])
            attempts.append(live[unit])
        elif unit in live:
            live[unit].state = str(TASK_STATES[state])
            if state != CANCELLING:
                live.pop(unit).end = clock
    _sharpen(execution, attempts)
    return run, attempts


def _moves(execution: Execution) -> Iterator[tuple[int, float]]:
    journal = execution.journal
    for found in journal.read(0, journal.last):
        if len(found) == 4:  # noqa: PLR2004 - Moves; an extra (a log line, progress) has three members
            for place in range(found.start, found.stop):
                yield journal.moves[place], found.clock


def _sharpen(execution: Execution, attempts: list[_Slice]) -> None:
    """Take the exact times of last attempts: the journal's are those of batches."""
    each = EACH.get()
    last = {found.unit: found for found in each(attempts)}
    for unit, found in each(last.items()):
        if unit is not None and unit < len(execution.started) and execution.started[unit] != NEVER:
            found.start = execution.started[unit]
            if execution.ended[unit] >= found.start:
                found.end = execution.ended[unit]
        found.end = max(found.end, found.start)


def _meta(kind: str, execution: Execution, row: int, name: str) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": execution.id, "tid": row, "args": {"name": name}}


def _event(execution: Execution, found: _Slice, row: int, origin: float) -> dict[str, object]:
    name, arguments = found.state, dict[str, object]()
    if found.unit is not None:
        machine = execution.machine
        planned = execution.plan.tasks[machine.record.task_of(found.unit)]
        index = machine.record.index_of(found.unit)
        name = planned.name if index is None else f"{planned.name}[{index}]"
        arguments = {"task": planned.definition.task, "attempt": found.attempt, "state": found.state}
        failure = execution.failures.get(found.unit)
        is_last = found.attempt == machine.record.attempts[found.unit]
        if failure is not None and is_last and found.state != "succeeded":
            arguments["failure"] = str(failure)[:_SHOWN]
    return {
        "name": name,
        "cat": found.state,
        "ph": "X",
        "ts": round((found.start - origin) * 1e6, 3),
        "dur": round((found.end - found.start) * 1e6, 3),
        "pid": execution.id,
        "tid": row,
        "args": arguments,
    }

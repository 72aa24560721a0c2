"""Recovery, the pure half: what the rows of an unfinished run come to in a new life. No I/O.

`new_life` is the first transaction after a restart: what executed was interrupted, and some runs end there.
`restored` turns the rows into the facts from which the machine goes on, when the code is there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.abc.journal import ValueForm
from scattersphere.engine.execution import EARLIER_WORDS
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CRASHED,
    FAILED,
    KILL,
    NO_REQUEST,
    PENDING,
    RUN_CRASHED,
    RUNNING,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
)
from scattersphere.engine.machine.facts import RunFacts, UnitFacts
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.engine.run_rows import (
    FAILING_FAST,
    FINALS_OVER,
    FIRST_IS_TIMEOUT,
    WITHHELD,
    failure_text,
)
from scattersphere.logs.failures import Failure, shorten
from scattersphere.model.states import RunRestart, TaskRestart

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc.journal import AttemptRow, Row, RunStateRow, StepRow, StoredRun
    from scattersphere.engine.machine.graph import CompiledGraph
    from scattersphere.model.definition import JobDefinition

MICRO = 1_000_000
FRUITLESS = 3
"""Restarts without a new outcome after which what executed has crashed."""
LOST = "it cannot be read with the code that there is"
GONE = (ValueForm.UNKEPT, ValueForm.DROPPED)
"""Forms of results that are not there any more."""


# ---- the first transaction of a new life


def new_life(stored: StoredRun, definition: JobDefinition, now: int) -> tuple[StoredRun, list[Row]]:
    """Return what an unfinished run comes to by a restart of the Server, and the rows that say so."""
    state = stored.state._replace(recovered=stored.state.recovered + 1, fruitless=stored.state.fruitless + 1)
    extra = json.loads(stored.run.extra)
    words = ""
    if definition.on_restart is RunRestart.CRASH:
        words = 'the program has ended while it lived, and its job is "on_restart": "crash"'
    elif extra.get("given_secrets"):
        names = ", ".join(extra["given_secrets"])
        words = f"the program has ended, and with it the secret that it was given by value: {names}"
    if words:
        state = crashed(state, words, now)
        return attrs.evolve(stored, state=state), [state]
    tasks = tuple(definition.tasks.values())
    steps = tuple(_interrupted(step, state, tasks[step.task].on_restart, now) for step in stored.steps)
    changed = [new for old, new in zip(stored.steps, steps, strict=True) if new is not old]
    return attrs.evolve(stored, state=state, steps=steps), [*changed, state]


def unit_of_parent(task: int, index: int | None) -> int:
    """Return the `parent_unit` of runs that a task, or an instance of a map, has started.

    Not its number in the machine: an instance without a row may get another one in the next life, and then two
    children would be in one place.
    """
    return task if index is None else (index + 1) << 32 | task


def crashed(state: RunStateRow, words: str, now: int) -> RunStateRow:
    """Return the state of a run that cannot go on."""
    return state._replace(state=RUN_CRASHED, ended=now, failure=words)


def _interrupted(step: StepRow, run: RunStateRow, rule: TaskRestart, now: int) -> StepRow:
    """Return a step whose start was committed, and whose end was not, as it is after the restart."""
    if step.state != RUNNING:
        return step
    words = ""
    if run.level == NO_REQUEST and rule is TaskRestart.FAIL:
        words = 'the program has ended while it executed, and its task is "on_restart": "fail"'
    elif run.fruitless >= FRUITLESS:
        words = f"the program has ended {run.fruitless} times in a row while it executed"
    if words:
        failure = failure_text(Failure("Crashed", words))
        return step._replace(state=CRASHED, ended=now, failure=failure)
    return step._replace(state=UP_FOR_RETRY, forgiven=step.forgiven + 1, due=None)


# ---- from rows to facts


@attrs.frozen(kw_only=True)
class Restored:
    """A run as its machine goes on, and what the machine does not know of it."""

    facts: RunFacts
    failures: Mapping[int, Failure]
    times: Mapping[int, tuple[int | None, int | None]]
    """When units began and ended, in microseconds."""
    waits: Mapping[int, float]
    """Seconds that are left of back-offs."""
    concluded: tuple[int, ...]
    """Mapped tasks whose instances had all ended, and whose own end was not written."""
    resets: tuple[int, ...]
    """Tasks that are done again because what they made was not kept."""
    earlier: Mapping[tuple[int, int], str]
    """Why attempts failed that were followed by another one, by unit and attempt."""
    unkept: Mapping[int, str]
    """Why results are not there any more, by unit."""
    crash: str = ""
    """Why the run cannot go on after all."""


@attrs.define
class _Unit:
    task: int
    index: int | None
    state: int
    attempts: int = 0
    forgiven: int = 0
    result: Any = None
    timed_out: bool = False


def restored(
    stored: StoredRun,
    definition: JobDefinition,
    graph: CompiledGraph,
    value_of: Callable[[StepRow], object],
    now: int,
) -> Restored:
    """Return what the machine of a run goes on with; `value_of` reads a result, and may raise where it cannot."""
    state = stored.state
    widths = {int(task): width for task, width in json.loads(state.widths).items()}
    failures: dict[int, Failure] = {}
    times: dict[int, tuple[int | None, int | None]] = {}
    waits: dict[int, float] = {}
    units: dict[int, _Unit] = {}
    unkept: dict[int, str] = {}
    for step in stored.steps:
        unit = units[step.unit] = _Unit(step.task, step.place, step.state, step.attempts, step.forgiven)
        times[step.unit] = step.started, step.ended
        said = json.loads(step.failure) if step.failure else {}
        if "type" in said:
            failures[step.unit] = Failure(said["type"], said["message"], said["traceback"])
        unit.timed_out = said.get("asked") == "timeout"
        if step.state == SUCCEEDED:
            unit.result = _value(step, value_of)
            if unit.result is DROPPED and step.form != ValueForm.DROPPED:
                unkept[step.unit] = f"the journal does not have its result: {said.get('unkept') or LOST}"
        elif step.state == UP_FOR_RETRY:
            waits[step.unit] = 0.0 if step.due is None else max(0.0, (step.due - now) / MICRO)
    _fill_gaps(units, widths, graph.size)
    instances = _instances(units)
    written = {number for number, unit in units.items() if unit.state >= TASK_ENDED_FROM}
    for task, width in widths.items():
        _finish_map(units, instances[task], task, width)
    concluded = tuple(task for task in widths if units[task].state >= TASK_ENDED_FROM and task not in written)
    failing_fast = bool(state.flags & FAILING_FAST) or _fails_fast(units, graph)
    withheld = _withheld(graph, state.level, failing_fast, bool(state.flags & FINALS_OVER))
    resets = _reset(units, instances, graph, withheld)
    tasks = tuple(definition.tasks.values())
    crash = ""
    for task in resets:
        waits |= dict.fromkeys((task, *instances[task]), 0.0)
        if tasks[task].on_restart is TaskRestart.FAIL:
            name = tuple(definition.tasks)[task]
            crash = f'the result of task {name!r} was not kept, and is needed again; the task is "on_restart": "fail"'
    _drop(units, instances, graph)
    causes = state.causes
    if failing_fast and "fail_fast" not in causes:
        causes = (*causes, "fail_fast")
    facts = RunFacts(
        state=state.state,
        started=state.begun,
        level=state.level,
        causes=causes,
        timed_out_first=bool(state.flags & FIRST_IS_TIMEOUT),
        failing_fast=failing_fast,
        finals_over=bool(state.flags & FINALS_OVER),
        withheld=bool(state.flags & WITHHELD),
        widths=widths,
        cut=frozenset(),
        units=tuple(UnitFacts(**attrs.asdict(unit, recurse=False)) for _, unit in sorted(units.items())),
    )
    return Restored(
        facts=facts,
        failures=failures,
        times=times,
        waits=waits,
        concluded=concluded,
        resets=resets,
        earlier={(row.unit, row.number): _in_short(row) for row in stored.attempts if row.failure},
        unkept=unkept,
        crash=crash,
    )


def _in_short(row: AttemptRow) -> str:
    said = json.loads(row.failure or "{}")
    return shorten(str(Failure(said.get("type", ""), said.get("message", ""))), EARLIER_WORDS)


def _value(step: StepRow, value_of: Callable[[StepRow], object]) -> object:
    if step.form in GONE:
        return DROPPED
    if step.form == ValueForm.NONE:
        return None
    try:
        return value_of(step)
    except Exception:  # noqa: BLE001 - what cannot be read is as good as not kept
        return DROPPED


def _fill_gaps(units: dict[int, _Unit], widths: Mapping[int, int], size: int) -> None:
    """Add the instances of which no row is known: they have begun, perhaps, and had no outcome.

    An instance keeps its number over all lives: rows are known by it. Which of those without rows had which number
    does not matter.
    """
    known: dict[int, set[int]] = defaultdict(set)
    for unit in units.values():
        if unit.index is not None:
            known[unit.task].add(unit.index)
    last = max((number for number in units if number >= size), default=size - 1)
    missing = [
        (task, index)
        for task, indexes in sorted(known.items())
        for index in range(max(indexes))
        if index not in indexes
    ]
    missing += [
        (task, index)
        for task, width in sorted(widths.items())
        for index in range(max(known[task], default=-1) + 1, width)
    ]
    gaps = [number for number in range(size, last + 1) if number not in units]
    for number, (task, index) in zip(gaps, missing, strict=False):
        units[number] = _Unit(task, index, PENDING)
    for task, indexes in known.items():
        if indexes and task not in units:
            units[task] = _Unit(task, None, RUNNING)


def _instances(units: Mapping[int, _Unit]) -> defaultdict[int, list[int]]:
    """Return the units of the instances of each map, in the order of their indexes."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number, unit in sorted(units.items(), key=lambda item: item[1].index or 0):
        if unit.index is not None:
            found[unit.task].append(number)
    return found


def _finish_map(units: dict[int, _Unit], instances: list[int], task: int, width: int) -> None:
    """Draw the conclusion from the ends of all instances, where the task itself has no row yet."""
    found = [units[number] for number in instances]
    if len(found) == width and all(unit.state >= TASK_ENDED_FROM for unit in found) and width:
        states = {unit.state for unit in found}
        state = FAILED if states & {FAILED, CRASHED} else CANCELLED if CANCELLED in states else SUCCEEDED
        if task not in units or units[task].state < TASK_ENDED_FROM:
            units[task] = _Unit(task, None, state)
    mapped = units.get(task)
    if mapped is not None and mapped.state == SUCCEEDED and len(found) == width:
        results = [unit.result for unit in found]
        mapped.result = DROPPED if any(result is DROPPED for result in results) else results
    elif mapped is not None and mapped.state < TASK_ENDED_FROM:
        mapped.state = RUNNING
    elif mapped is None:
        units[task] = _Unit(task, None, RUNNING if instances else PENDING)


def _fails_fast(units: Mapping[int, _Unit], graph: CompiledGraph) -> bool:
    if not graph.fail_fast:
        return False
    return any(
        unit.state in (FAILED, CRASHED)
        and unit.index is None
        and not graph.tasks[unit.task].allow_failure
        and not graph.tasks[unit.task].finally_
        for unit in units.values()
    )


def _withheld(graph: CompiledGraph, level: int, failing_fast: bool, finals_over: bool) -> frozenset[int]:  # noqa: FBT001
    """Return the tasks that do not begin any more."""
    return frozenset(
        task
        for task, spec in enumerate(graph.tasks)
        if (level == KILL or finals_over if spec.finally_ else level != NO_REQUEST or failing_fast)
    )


def _reset(
    units: dict[int, _Unit],
    instances: Mapping[int, list[int]],
    graph: CompiledGraph,
    withheld: frozenset[int],
) -> tuple[int, ...]:
    """Have tasks done again whose results are gone and read by tasks that have not ended; return which."""

    def has_ended(task: int) -> bool:
        return task in units and units[task].state >= TASK_ENDED_FROM

    reset: dict[int, None] = {}
    readers = [task for task in range(graph.size) if not has_ended(task) and task not in withheld]
    for reader in readers:  # grows while it is read
        for task in graph.upstreams[reader]:
            unit = units.get(task)
            if unit is None or task in reset or unit.state != SUCCEEDED or unit.result is not DROPPED:
                continue
            reset[task] = None
            readers.append(task)
            _again(unit, RUNNING if instances.get(task) else UP_FOR_RETRY)
            for number in instances.get(task, ()):
                if units[number].result is DROPPED:
                    _again(units[number], UP_FOR_RETRY)
    return tuple(sorted(reset))


def _again(unit: _Unit, state: int) -> None:
    unit.state, unit.forgiven, unit.result = state, unit.attempts, None


def _drop(units: dict[int, _Unit], instances: Mapping[int, list[int]], graph: CompiledGraph) -> None:
    """Drop the results that nobody reads any more (`keep_results: false`)."""
    ended = {task for task, unit in units.items() if task < graph.size and unit.state >= TASK_ENDED_FROM}
    for task in ended:
        if graph.tasks[task].keeps_result or not ended.issuperset(graph.successors[task]):
            continue
        for number in (task, *instances.get(task, ())):
            if units[number].state == SUCCEEDED:
                units[number].result = DROPPED


def count_moves(stored: StoredRun) -> int:
    """Return how many moves of the run were written."""
    return max((row.first + len(row.moves) // 8 for row in stored.moves), default=0)

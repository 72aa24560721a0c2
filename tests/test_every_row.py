"""One fact in several tables: each member of an enum is in every table that needs a row for it, or this says which is not.

Who adds a state, a rule, a kind of event or a policy runs this, and is told what else is to be written.
"""

import json
from pathlib import Path

import pytest

from scattersphere import JobDefinition
from scattersphere.abc.backend import BackendTraits
from scattersphere.cli import progress
from scattersphere.engine.backends import workerlane
from scattersphere.engine.events import pages
from scattersphere.engine.machine import codes, rules
from scattersphere.engine.views import explain, historylog
from scattersphere.model import events, states
from scattersphere.model.events import EVENT_OF_MOVE, EventKind, task_event
from scattersphere.model.schedules import MissedPolicy
from scattersphere.model.states import (
    RUN_ENDED,
    RUN_MOVES,
    TASK_ENDED,
    TASK_MOVES,
    Durability,
    Overlap,
    RunRestart,
    RunState,
    TaskRestart,
    TaskState,
    TriggerRule,
)
from scattersphere.pictures import looks
from scattersphere.registry.records import BundleEventKind
from scattersphere.worker import pipes

DOCS = Path(__file__).parents[1] / "docs"
RUN_LIVE = set(RunState) - RUN_ENDED
TASK_LIVE = set(TaskState) - TASK_ENDED
WAITING = {TaskState.PENDING, TaskState.UP_FOR_RETRY}
"""Of these nothing is to be seen but that they wait."""
OF_RUNS = {kind for kind in EventKind if kind.startswith("run-")}


def values_in_schema():
    """Every text that the schema of definitions lists as a possible value."""
    return {
        value
        for part in json.dumps(JobDefinition.schema()).split('"enum": [')[1:]
        for value in json.loads(f"[{part.partition(']')[0]}]")
    }


def words_of(page):
    return {word.strip("`.,;:()|*_") for word in (DOCS / page).read_text().split()}


TABLES = [
    ("execution.machine.rules.DECIDE", set(TriggerRule), lambda: set(rules.DECIDE)),
    ("execution.machine.codes.TASK_STATES", set(TaskState), lambda: set(codes.TASK_STATES)),
    ("execution.machine.codes.RUN_STATES", set(RunState), lambda: set(codes.RUN_STATES)),
    (
        "execution.machine.codes, the names of tasks' states",
        {(state.name, code) for code, state in enumerate(TaskState)},
        lambda: set(vars(codes).items() & {(state.name, code) for code, state in enumerate(TaskState)}),
    ),
    (
        "execution.machine.codes, the names of runs' states",
        {(f"RUN_{state.name}", code) for code, state in enumerate(RunState)},
        lambda: {
            (name, code)
            for name, code in vars(codes).items()
            if name.startswith("RUN_") and type(code) is int
        },
    ),
    (
        "model.states.RUN_MOVES",
        set(RunState),
        lambda: {end for move in RUN_MOVES for end in (move.source, move.target)},
    ),
    (
        "model.states.TASK_MOVES",
        set(TaskState),
        lambda: {end for move in TASK_MOVES for end in (move.source, move.target)},
    ),
    ("model.events._RUN_EVENTS", RUN_LIVE, lambda: set(events._RUN_EVENTS)),
    ("model.events._TASK_EVENTS", TASK_LIVE - {TaskState.PENDING}, lambda: set(events._TASK_EVENTS)),
    ("execution.events.pages._MOVES", set(TaskState), lambda: {state for _, state, _ in pages._MOVES}),
    ("execution.views.historylog._LEVELS", set(RUN_ENDED), lambda: set(historylog._LEVELS)),
    (
        "execution.views.historylog._TOLD",
        OF_RUNS - {EventKind.RUN_QUEUED, EventKind.RUN_STARTED, EventKind.RUN_ENDED},
        lambda: set(historylog._TOLD),
    ),
    ("execution.views.explain._SIGNS", set(TaskState) - WAITING, lambda: set(explain._SIGNS)),
    ("pictures.looks.LOOKS", {*RunState, *TaskState}, lambda: set(looks.LOOKS)),
    ("cli.progress._COLOURS", set(TASK_ENDED), lambda: set(progress._COLOURS)),
    ("worker.pipes._KINDS", set(pipes.Kind), lambda: set(pipes._KINDS.values())),
    (
        "model.events.EventKind, for bundles",
        {str(kind) for kind in BundleEventKind},
        lambda: {str(kind) for kind in EventKind},
    ),
    *(
        (f"the schema of definitions, for {enum.__name__}", {str(value) for value in enum}, values_in_schema)
        for enum in (TriggerRule, Overlap, Durability, TaskRestart, RunRestart, MissedPolicy)
    ),
    ("docs/reference/events.md", {str(kind) for kind in EventKind}, lambda: words_of("reference/events.md")),
    (
        "docs/reference/lifecycle.md",
        {str(state) for state in {*RunState, *TaskState}},
        lambda: words_of("reference/lifecycle.md"),
    ),
    (
        "docs/how-to/own-backend.md",
        set(BackendTraits.__annotations__),
        lambda: words_of("how-to/own-backend.md"),
    ),
]


@pytest.mark.parametrize(("table", "members", "rows"), TABLES, ids=[table for table, _, _ in TABLES])
def test_every_member_has_its_row(table, members, rows):
    missing = sorted(str(member) for member in members - rows())
    assert not missing, f"{table} lacks a row for: {', '.join(missing)}"


@pytest.mark.parametrize(
    ("ended", "moves"), [(RUN_ENDED, RUN_MOVES), (TASK_ENDED, TASK_MOVES)], ids=["runs", "tasks"]
)
def test_exactly_those_states_have_ended_from_which_no_move_leads(ended, moves):
    assert ended == {move.target for move in moves} - {move.source for move in moves}


def test_every_move_has_an_event():
    assert {EVENT_OF_MOVE[None, state] for state in RunState} <= set(EventKind)
    assert {task_event(state) for state in TaskState} <= set(EventKind)
    assert {EVENT_OF_MOVE[None, state] for state in RUN_ENDED} == {EventKind.RUN_ENDED}
    assert {task_event(state) for state in TASK_ENDED} == {EventKind.TASK_ENDED}


def test_every_enum_of_the_model_is_looked_at_here():
    """A new enum of the model is held against its tables too."""
    looked_at = {type(member).__name__ for _, members, _ in TABLES for member in members}
    named = {name.rpartition(" for ")[2] for name, _, _ in TABLES}
    enums = {
        value.__name__
        for value in vars(states).values()
        if isinstance(value, type) and issubclass(value, states.StrEnum)
    }
    assert enums - {"StrEnum"} <= looked_at | named


def test_what_a_worker_says_is_understood():
    """Each kind of frame that a worker sends has a case of its own where it is read.

    A result in a file comes for those calls alone that name one.
    """
    source = Path(workerlane.__file__).read_text()
    replies = {kind.name for kind in pipes.Kind if kind >= pipes.Kind.READY}
    assert {name for name in replies if f"Kind.{name}" not in source} == {"FILED"}
    assert "Kind.FILED" in (Path(pipes.__file__).parents[1] / "ext/dask/call.py").read_text()

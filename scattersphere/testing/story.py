"""Assertions on runs of a rehearsal, and the story of runs that a failed test shows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from scattersphere._blocking import ready
from scattersphere.model.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scattersphere.engine.run import Run

TOLD_RUNS = 5
"""Runs that a story tells: first those that did not succeed, then the newest."""
TOLD_LINES = 30
"""Log lines of each run that a story shows, the last ones."""


def assert_order(run: Run, names: Iterable[str]) -> None:
    """Raise AssertionError unless each of the tasks had ended before the next one started."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for event in ready(run.events()):
        if event.task is not None and event.index is None:
            if event.kind is EventKind.TASK_STARTED:
                starts.setdefault(event.task, event.seq)
            elif event.kind is EventKind.TASK_ENDED:
                ends[event.task] = event.seq
    wanted = list(names)
    _check_names(run, wanted)
    for name in wanted:
        if name not in starts:
            raise AssertionError(f"{name!r} has not started: it is {run.tasks[name].state}\n{run.explain()}")
    for before, after in itertools.pairwise(wanted):
        if ends.get(before, starts[after] + 1) > starts[after]:
            order = ", ".join(sorted(starts, key=starts.__getitem__))
            raise AssertionError(
                f"{before!r} had not ended when {after!r} started; they started in this order: {order}\n"
                f"{run.explain()}"
            )


def assert_states(run: Run, states: Mapping[str, str]) -> None:
    """Raise AssertionError unless each of the tasks is in that state."""
    _check_names(run, states)
    wrong = [
        f"{name!r} is {run.tasks[name].state}, not {state}"
        for name, state in states.items()
        if run.tasks[name].state != state
    ]
    if wrong:
        raise AssertionError("\n".join([*wrong, run.explain()]))


def _check_names(run: Run, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in run.tasks]
    if unknown:
        raise AssertionError(f"job {run.job!r} has no task {unknown[0]!r}; it has {', '.join(run.tasks)}")


def tell(runs: Iterable[Run]) -> str:
    """Return the story of some runs: what became of each, and the end of its log."""
    ordered = sorted(runs, key=lambda run: (run.succeeded, -run.id))
    parts = [_tell_one(run) for run in ordered[:TOLD_RUNS]]
    if len(ordered) > TOLD_RUNS:
        parts.append(f"... and {len(ordered) - TOLD_RUNS} more runs")
    return "\n\n".join(parts) if parts else "no run was started"


def _tell_one(run: Run) -> str:
    lines = run.logs(tail=TOLD_LINES)
    told = [run.explain()]
    if lines:
        told += ["", "its log ends:" if len(lines) == TOLD_LINES else "its log:", *map(str, lines)]
    return "\n".join(told)

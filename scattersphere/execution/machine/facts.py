"""The facts of a run: what cannot be derived from anything else, and so what a journal has to keep.

Counts, queues and places follow from them: `RunMachine.restore` makes a machine of a shape and these.
"""

from __future__ import annotations

from typing import Any

import attrs


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
    result: Any
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

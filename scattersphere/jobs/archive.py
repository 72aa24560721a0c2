"""The runs of a Server by number: all live ones, and the ended ones that are still kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scattersphere._mapping import LiveMapping
from scattersphere._shares import FairShares
from scattersphere.errors import NoSuchRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scattersphere.engine.run import Run


class RunArchive(LiveMapping[int, "Run"]):
    """Keeps at most `keep` ended runs, none for longer than `keep_for` seconds.

    Only whole ended runs are evicted: what is too old, in the order in which they ended; of what is too many, the
    oldest of the job that has the most, so that one job that runs all the time does not take the others' history.
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
        self._ended: dict[int, tuple[float, Run]] = {}
        """The ended ones, oldest first."""
        self._shares = FairShares[int]()
        """The numbers of the ended ones by job."""
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

    def add(self, run: Run) -> None:
        """Take up a new run."""
        self._runs[run.id] = run

    def ended(self, run: Run, now: float) -> None:
        """A run has ended at `now`; evict what is too much or too old."""
        self._ended[run.id] = (now, run)
        self._shares.add(run.job, run.id)
        self.evict(now)

    def evict(self, now: float) -> None:
        """Let go of ended runs beyond the limits, and look again when the next one is too old."""
        while self._ended and now - self._oldest() >= self._keep_for:
            self._evict(next(iter(self._ended)))
        while len(self._ended) > self._keep:
            _, number = self._shares.largest()
            self._evict(number)
        if self._ended and not self._reminded and self._keep_for < math.inf:
            self._reminded = True
            self._remind(self._oldest() + self._keep_for, self._look_again)

    def _oldest(self) -> float:
        return next(iter(self._ended.values()))[0]

    def _evict(self, number: int) -> None:
        _, run = self._ended.pop(number)
        self._shares.remove(run.job, number)
        self._runs.pop(number, None)
        self.evicted += 1
        self._on_evict(run)

    def _look_again(self, now: float) -> None:
        self._reminded = False
        self.evict(now)

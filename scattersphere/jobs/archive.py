"""The runs of a Server by number: all live ones, and the ended ones that are still kept."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from scattersphere._mapping import LiveMapping
from scattersphere.errors import NoSuchRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scattersphere.execution.run import Run


class RunArchive(LiveMapping[int, "Run"]):
    """Keeps at most `keep` ended runs, none for longer than `keep_for` seconds.

    Only whole ended runs are evicted, in the order in which they ended. `on_evict` is told of each.
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
        self._ended: deque[tuple[float, Run]] = deque()
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
        self._ended.append((now, run))
        self.evict(now)

    def evict(self, now: float) -> None:
        """Let go of ended runs beyond the limits, and look again when the next one is too old."""
        while self._ended and (len(self._ended) > self._keep or now - self._ended[0][0] >= self._keep_for):
            _, run = self._ended.popleft()
            self._runs.pop(run.id, None)
            self.evicted += 1
            self._on_evict(run)
        if self._ended and not self._reminded and self._keep_for < math.inf:
            self._reminded = True
            self._remind(self._ended[0][0] + self._keep_for, self._look_again)

    def _look_again(self, now: float) -> None:
        self._reminded = False
        self.evict(now)

"""Who failed to authenticate too often has to wait, longer each time. Pure: it is told the time."""

from __future__ import annotations

from collections import OrderedDict

FREE_FAILURES = 3
FIRST_WAIT, LONGEST_WAIT = 1.0, 900.0
FORGET_AFTER = 3_600.0
SOURCES = 10_000
"""Sources that are remembered; beyond that the one that failed longest ago is forgotten, so that an
attacker with many addresses costs no memory."""


class Penalties:
    """Failures for each source (an address, or a local user), and the waits that they cost.

    After three failures each further one doubles the wait, up to 15 minutes. A success clears them.
    """

    def __init__(self) -> None:
        self._sources: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def blocked(self, source: str, now: float) -> float:
        """Return the seconds until the source may try again; 0.0 when it may now."""
        count, at = self._sources.get(source, (0, 0.0))
        if count < FREE_FAILURES:
            return 0.0
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(count - FREE_FAILURES, 20))
        return max(0.0, at + wait - now)

    def failed(self, source: str, now: float) -> None:
        """Note a failed authentication; nothing else counts."""
        count, at = self._sources.pop(source, (0, now))
        self._sources[source] = (1 if now - at > FORGET_AFTER else count + 1, now)
        if len(self._sources) > SOURCES:
            self._sources.popitem(last=False)

    def succeeded(self, source: str) -> None:
        """Forget the source's failures."""
        self._sources.pop(source, None)

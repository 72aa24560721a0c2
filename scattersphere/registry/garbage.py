"""When to collect the garbage that released versions are. Pure: the loader's thread asks and acts.

A version is cyclic garbage: its modules and functions hold each other. Python would come to it in the
end, but it collects the oldest generation rarely.
"""

from __future__ import annotations

import attrs

QUIET = 1.0
"""Seconds without a release before a collection: replacing ten bundles costs one collection."""

LATEST = 10.0
"""Seconds after which a collection comes although releases go on."""

SHARE = 100.0
"""A collection that took t seconds is followed by a pause of at least SHARE * t: one percent of the time."""


@attrs.define
class GarbageSchedule:
    """Decides the moment of the next collection. Times are seconds of one monotonic clock."""

    enabled: bool = True
    _first: float | None = None
    _last: float = 0.0
    _earliest: float = 0.0

    def released(self, now: float) -> None:
        """Note that a version was released."""
        if self._first is None:
            self._first = now
        self._last = now

    def due_in(self, now: float) -> float | None:
        """Return the seconds until the next collection, at least 0; None if there is nothing to collect."""
        if self._first is None or not self.enabled:
            return None
        return max(min(self._last + QUIET, self._first + LATEST) - now, self._earliest - now, 0.0)

    def collected(self, now: float, took: float) -> None:
        """Note that a collection ended at `now` after `took` seconds."""
        self._first = None
        self._earliest = now + SHARE * took

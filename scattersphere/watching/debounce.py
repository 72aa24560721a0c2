"""Debouncing: when a change on disk has held still for long enough to be acted on. Pure: time is passed in.

It is level-triggered: what counts is what is there, not what was notified. So a lost notification delays a
change and never loses it, and ten thousand of them are one change.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from scattersphere._options import option
from scattersphere.model.arguments import check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    S = TypeVar("S", bound=Hashable)
else:
    S = TypeVar("S")


@attrs.frozen(kw_only=True)
class WatchDelays:
    """How long watching waits, in seconds. Raises `ArgumentError` for what is no duration."""

    settle: float = option(
        0.2,
        "What changed must hold still for this time: a file that is being written is not loaded.",
        unit="seconds",
        check=check_seconds,
    )
    vanish: float = option(
        1.0,
        "What is gone must stay away for this time: many tools delete, and then create anew.",
        unit="seconds",
        check=check_seconds,
    )
    restless: float = option(
        5.0,
        "What has not held still for this time is a problem that is shown, and its code alone must hold still.",
        unit="seconds",
        check=check_seconds,
    )
    poll: float = option(
        2.0,
        "Between two looks at everything, for changes of which the system says nothing.",
        unit="seconds",
        check=check_seconds,
    )


class Step(Enum):
    """What is to be done after a look."""

    NOTHING = "nothing"
    CHANGED = "changed"
    REMOVED = "removed"


class _Nothing:
    """Stands for "no candidate", since None means "it is gone"."""


_NOTHING = _Nothing()


class Debounce(Generic[S]):
    """One watched thing. `tried` is what was taken up last, whether that worked or not; None: it is not there.

    A look at the same content again is never an order to take it up: what failed once is not tried again
    until it changes. `core` gives the part of a content that counts alone once the whole is *restless*: it did not
    hold still for so long that waiting for it is no use.
    """

    def __init__(
        self, delays: WatchDelays, tried: S | None = None, core: Callable[[S], object] | None = None
    ) -> None:
        self.delays = delays
        self.restless: bool = False
        self._core = core
        self._moving_since: float | None = None
        self._core_seen: object = None
        self._core_since = 0.0
        self.tried: S | None = tried
        self.due: float | None = None
        """When to look again even if nobody hears of a change; None where what was seen last was taken up."""
        self._candidate: S | _Nothing | None = _NOTHING
        self._since = 0.0

    def look(self, seen: S | None, now: float) -> Step:
        """Say what to do about what was `seen` at `now` (None: it is not there)."""
        if seen == self.tried:
            self._rest()
            return Step.NOTHING
        if isinstance(self._candidate, _Nothing) or seen != self._candidate:
            self._candidate, self._since = seen, now
        self.due = self._since + (self.delays.vanish if seen is None else self.delays.settle)
        if now < self.due:
            return self._look_at_core(seen, now)
        self.tried = seen
        self._rest()
        return Step.REMOVED if seen is None else Step.CHANGED

    def _look_at_core(self, seen: S | None, now: float) -> Step:
        if self._core is None or seen is None:
            return Step.NOTHING
        if self._moving_since is None:
            self._moving_since = now
        restless_at = self._moving_since + self.delays.restless
        self.restless = now >= restless_at
        if not self.restless:
            self.due = min(self.due or restless_at, restless_at)
            return Step.NOTHING
        core = self._core(seen)
        if core != self._core_seen:
            self._core_seen, self._core_since = core, now
        if self.tried is not None and core == self._core(self.tried):
            return Step.NOTHING
        due = self._core_since + self.delays.settle
        if now < due:
            self.due = min(self.due or due, due)
            return Step.NOTHING
        self.tried, self._candidate, self.due = seen, _NOTHING, None
        return Step.CHANGED

    def _rest(self) -> None:
        self._candidate, self.due = _NOTHING, None
        self._moving_since, self._core_seen, self.restless = None, None, False

    def mark_seen(self, seen: S | None) -> None:
        """Note that `seen` was taken up without being asked for."""
        self.tried = seen
        self._rest()

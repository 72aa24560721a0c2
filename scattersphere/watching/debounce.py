"""When a change on disk has held still for long enough to be acted on. Pure: it gets what was seen, and the time.

It is level-triggered: what counts is what is there, not what was notified. So a lost notification delays a
change and never loses it, and ten thousand of them are one change.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from scattersphere.model.arguments import check_seconds

if TYPE_CHECKING:
    from collections.abc import Hashable

    S = TypeVar("S", bound=Hashable)
else:
    S = TypeVar("S")


def _seconds(_: object, field: attrs.Attribute[float], value: float) -> None:
    check_seconds(value, field.name)


@attrs.frozen(kw_only=True)
class WatchDelays:
    """How long watching waits, in seconds. Raises `ArgumentError` for what is no duration."""

    settle: float = attrs.field(default=0.2, validator=_seconds)
    """What changed must hold still for this time: a file that is being written is not loaded."""
    vanish: float = attrs.field(default=1.0, validator=_seconds)
    """What is gone must stay away for this time: many tools delete, and then create anew."""
    poll: float = attrs.field(default=2.0, validator=_seconds)
    """Between two looks at everything, for changes of which the system says nothing."""


class Step(Enum):
    """What is to be done after a look."""

    NOTHING = "nothing"
    CHANGED = "take up"
    REMOVED = "let go"


class _Nothing:
    """Stands for "no candidate", since None means "it is gone"."""


_NOTHING = _Nothing()


class Debounce(Generic[S]):
    """One watched thing. `tried` is what was taken up last, whether that worked or not; None: it is not there.

    A look at the same content again is never an order to take it up: what failed once is not tried again
    until it changes.
    """

    def __init__(self, delays: WatchDelays, tried: S | None = None) -> None:
        self.delays = delays
        self.tried: S | None = tried
        self.due: float | None = None
        """When to look again even if nothing is changes of a change; None: no need to."""
        self._candidate: S | _Nothing | None = _NOTHING
        self._since = 0.0

    def look(self, seen: S | None, now: float) -> Step:
        """Say what to do about what was `seen` at `now` (None: it is not there)."""
        if seen == self.tried:
            self._candidate, self.due = _NOTHING, None
            return Step.NOTHING
        if isinstance(self._candidate, _Nothing) or seen != self._candidate:
            self._candidate, self._since = seen, now
        self.due = self._since + (self.delays.vanish if seen is None else self.delays.settle)
        if now < self.due:
            return Step.NOTHING
        self.tried, self._candidate, self.due = seen, _NOTHING, None
        return Step.REMOVED if seen is None else Step.CHANGED

    def mark_seen(self, seen: S | None) -> None:
        """Note that `seen` was taken up without being asked for."""
        self.tried, self._candidate, self.due = seen, _NOTHING, None

    @property
    def moving(self) -> bool:
        """Whether something else was seen than what was taken up last."""
        return self.due is not None

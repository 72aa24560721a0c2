"""The contract of what decides when a schedule fires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import datetime as dt


@runtime_checkable
class Trigger(Protocol):
    """What decides when a schedule fires.

    Pure: the same question has the same answer, and nothing is asked of a clock. Hashable, and equal where the times
    are. All instants are aware and in UTC. `scattersphere.testing.triggers` holds the checks that every trigger must
    pass.
    """

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first time after the instant `after`, to the second, in UTC; None if there is none any more."""

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last time before the instant `before`, in UTC; None if there was none."""

    def words(self) -> str:
        """Say in words when it fires."""
        ...

"""Who asks, of which server, over which connection: what every handler is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from scattersphere.remote.front import Front
from scattersphere.remote.roles import Principal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from scattersphere.execution.run import Run
    from scattersphere.model.events import Event


class Follower(Protocol):
    """The connection, as far as subscriptions go."""

    def follow(
        self,
        events: AsyncIterator[Event],
        kinds: frozenset[str],
        shown: Callable[[Event, Principal], bool],
    ) -> int:
        """Send events from now on, after the reply; return the subscription's number."""
        ...

    def unfollow(self, number: int) -> None:
        """End a subscription. Raises `RequestError`."""
        ...


@attrs.frozen
class Scene:
    """Who asks, of which server, over which connection; `in_words`: as a person types it."""

    front: Front
    principal: Principal
    follower: Follower
    in_words: bool = False

    def run(self, number: int) -> Run:
        """Return a run that exists for who asks."""
        return self.front.run(self.principal, number)

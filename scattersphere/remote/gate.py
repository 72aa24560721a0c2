"""How the sessions of one source prove who they are: the token file and the penalties, with a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from scattersphere.remote.errors import ListenError
from scattersphere.remote.front import Front

if TYPE_CHECKING:
    from scattersphere.remote.roles import Principal

PEER = "peer"
"""The credential of a unix socket's peer: the kernel vouches for it, and it cannot be revoked."""


@attrs.frozen
class SourceGate:
    """The `Gate` of a session; failures count against its `source`."""

    front: Front
    source: str
    clock: Callable[[], float]

    def blocked(self) -> float:
        """Return the seconds until this source may try again."""
        return self.front.penalties.blocked(self.source, self.clock())

    def authenticate(self, token: str) -> Principal | None:
        """Return who a token stands for, and remember a failure."""
        principal = None
        if self.front.tokens is not None:
            try:
                self.front.tokens.refresh()
                principal = self.front.tokens.find(token)
            except ListenError:  # the file is gone or unsafe: nobody comes in; the sweeper logs it
                principal = None
        if principal is None:
            self.front.penalties.failed(self.source, self.clock())
        else:
            self.front.penalties.succeeded(self.source)
        return principal

    def current(self, principal: Principal) -> bool:
        """Return whether the proof still holds."""
        if principal.credential == PEER:
            return True
        return self.front.tokens is not None and self.front.tokens.current(principal)

"""Access policy: four roles, each with the rights of those below it, and patterns over jobs and bundles.

What is not allowed is denied. A role is a ceiling, never a sum; `drop` lowers it for good.
"""

from __future__ import annotations

import re
from enum import StrEnum
from fnmatch import fnmatchcase

import attrs

PATTERN = re.compile(r"(?:(?:job|bundle):)?[A-Za-z0-9_.*?\[\]!-]{1,128}")
"""`job:GLOB`, `bundle:GLOB`, or `GLOB` for both."""


class Role(StrEnum):
    """A rank; each may do what those before it may."""

    VIEWER = "viewer"
    RUNNER = "runner"
    OPERATOR = "operator"
    ADMIN = "admin"

    rank: int
    """The place in the row, from 0."""

    def __init__(self, _name: str) -> None:
        # Kept in the member: ranks are compared for every request, and looking up a member is slow.
        self.rank = len(type(self).__members__)

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        return self.rank >= needed.rank


@attrs.frozen(kw_only=True)
class Principal:
    """Who a session acts for. Without patterns the role holds for all objects.

    `credential` names what it was proved with (a token's digest), so that a revocation is found.
    """

    user: str
    role: Role
    patterns: tuple[str, ...] = ()
    credential: str = attrs.field(default="", repr=False)
    unbounded: bool = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: not self.patterns, takes_self=True)
    )
    """Whether it may use its role on the server as a whole."""

    def may_use(self, role: Role | None, *, whole_server: bool) -> bool:
        """Whether it may use a command that needs `role`, or one about the server as a whole."""
        return (role is None or self.role.covers(role)) and (self.unbounded or not whole_server)

    def sees_job(self, name: str) -> bool:
        """Whether jobs of this name, and their runs, exist for it."""
        return self._matches("job:", name)

    def sees_bundle(self, name: str) -> bool:
        """Whether the bundle of this name exists for it."""
        return self._matches("bundle:", name)

    def _matches(self, prefix: str, name: str) -> bool:
        if not self.patterns:
            return True
        for pattern in self.patterns:
            kind, colon, glob = pattern.rpartition(":")
            if kind + colon in {"", prefix} and fnmatchcase(name, glob):
                return True
        return False

    def dropped(self, role: Role) -> Principal:
        """Return the same one with at most `role`."""
        return attrs.evolve(self, role=min(self.role, role, key=lambda each: each.rank))

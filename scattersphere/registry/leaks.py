"""Which released versions are still alive, and what holds them. It is reported, never repaired."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING

import attrs

from scattersphere.registry.imports import Token
from scattersphere.registry.probes import Suspect, probe
from scattersphere.registry.referrers import holders

if TYPE_CHECKING:
    from scattersphere.registry.imports import VersionSpace

_log = logging.getLogger("scattersphere.registry")


@attrs.frozen
class Leak:
    """One thing that keeps a released version in memory."""

    label: str
    """The version: `etl@91be07`."""
    kind: str
    """`thread`, `coroutine`, `logging handler`, `global`..."""
    holder: str
    """What it is and where, in logical names."""

    def __str__(self) -> str:
        return f"{self.label} is held by a {self.kind}: {self.holder}"


@attrs.define(eq=False)
class _Released:
    bundle: str
    label: str
    suspect: Suspect
    token: weakref.ref[Token]
    warned: bool = False


class ReleasedVersions:
    """The versions that were released and have not been seen to vanish."""

    def __init__(self) -> None:
        self._released: dict[int, _Released] = {}
        self._count = 0

    def add(self, label: str, space: VersionSpace) -> None:
        """Watch a version; call it just before the version is released."""
        if space.token is None:
            return
        self._count += 1
        table, number = self._released, self._count
        # Called by the collector, in whatever thread it runs: one atomic step, and no version is kept waiting.
        token = weakref.ref(space.token, lambda _: table.pop(number, None))
        suspect = Suspect(space.slug, space.prefix, space.logical)
        table[number] = _Released(space.bundle, label, suspect, token)

    def warn(self) -> None:
        """Log, once for each, the versions that outlived a collection."""
        for released in list(self._released.values()):
            if not released.warned:
                released.warned = True
                _log.warning(
                    "bundle version %s was released but is still in memory; "
                    "registry.leaks(%r) names what holds it",
                    released.label,
                    released.bundle,
                )

    def alive(self, bundle: str) -> list[str]:
        """Return the labels of released versions that are still there. Says little before a collection."""
        return [released.label for released in self._of(bundle)]

    def leaks(self, bundle: str) -> list[Leak]:
        """Collect garbage and name what holds the versions of `bundle` that are left."""
        gc.collect()
        return [leak for released in self._of(bundle) for leak in _diagnose(released)]

    def _of(self, bundle: str) -> list[_Released]:
        return [released for released in list(self._released.values()) if released.bundle == bundle]


def _diagnose(released: _Released) -> list[Leak]:
    """Look at the usual places first: they give exact words. Search the heap only if that finds nothing."""
    found = [Leak(released.label, kind, holder) for kind, holder in probe(released.suspect)]
    if not found:
        found = [Leak(released.label, kind, holder) for kind, holder in holders(released.suspect)]
    return found or [Leak(released.label, "unknown holder", "C code, or an object that gc cannot see")]

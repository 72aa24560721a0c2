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
        self._released: list[_Released] = []

    def add(self, label: str, space: VersionSpace) -> None:
        """Watch a version; call it just before the version is released."""
        if space.token is None:
            return
        self._forget_freed()
        suspect = Suspect(space.slug, space.prefix, space.logical)
        self._released.append(_Released(space.bundle, label, suspect, weakref.ref(space.token)))

    def warn(self) -> None:
        """Log, once for each, the versions that outlived a collection."""
        self._forget_freed()
        for released in list(self._released):
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
        return [r.label for r in list(self._released) if r.bundle == bundle and r.token() is not None]

    def leaks(self, bundle: str) -> list[Leak]:
        """Collect garbage and name what holds the versions of `bundle` that are left."""
        gc.collect()
        self._forget_freed()
        return [leak for r in list(self._released) if r.bundle == bundle for leak in _diagnose(r)]

    def _forget_freed(self) -> None:
        self._released = [released for released in self._released if released.token() is not None]


def _diagnose(released: _Released) -> list[Leak]:
    """Look at the usual places first: they give exact words. Search the heap only if that finds nothing."""
    found = [Leak(released.label, kind, holder) for kind, holder in probe(released.suspect)]
    if not found:
        found = [Leak(released.label, kind, holder) for kind, holder in holders(released.suspect)]
    return found or [Leak(released.label, "unknown holder", "C code, or an object that gc cannot see")]

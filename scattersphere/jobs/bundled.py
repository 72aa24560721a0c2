"""The jobs that come and go with the bundles that carry their definitions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scattersphere.jobs.claims import Claim
from scattersphere.registry.records import BundleEventKind

if TYPE_CHECKING:
    from scattersphere.jobs.claims import Claims
    from scattersphere.registry.records import BundleEvent, BundleVersion

RANK = 1
"""Bundles come before the job folder, as they do when a Server is entered."""


class BundledJobs:
    """Claims the jobs that a bundle carries when it is loaded, and lets go of them when it is removed.

    A job that the host defined itself, or defined anew since, is the host's: it is left alone, and the
    bundle's warnings say so.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._of: dict[str, dict[str, Claim]] = {}
        self._notes: dict[str, tuple[str, ...]] = {}

    def follow(self, event: BundleEvent) -> None:
        """Do what an event in the life of a bundle asks for."""
        if event.kind is BundleEventKind.REMOVED:
            for claim in self._of.pop(event.bundle, {}).values():
                self._claims.drop(claim)
            self._notes.pop(event.bundle, None)
        elif event.kind is BundleEventKind.LOADED and event.version is not None:
            if not event.version.definitions and not self._of.get(event.bundle):
                return
            self._take(event.bundle, event.version)
        self._claims.settle()

    def _take(self, bundle: str, version: BundleVersion) -> None:
        known, taken = self._of.pop(bundle, {}), dict[str, Claim]()
        on_refused = partial(self._note, bundle, version)
        self._notes.pop(bundle, None)
        for definition in version.definitions:
            claim = known.pop(definition.name, None)
            if claim is None:
                claim = Claim(definition, (RANK, bundle), f"bundle {bundle!r}", on_refused)
                self._claims.put(claim)
            else:
                claim.definition, claim.on_refused = definition, on_refused
                self._claims.changed(claim)
            taken[definition.name] = claim
        for claim in known.values():
            self._claims.drop(claim)
        self._of[bundle] = taken
        self._note(bundle, version)

    def _note(self, bundle: str, version: BundleVersion) -> None:
        """Say among the warnings of a bundle which of its jobs it does not define."""
        told = self._notes.get(bundle, ())
        self._notes[bundle] = notes = tuple(
            f"job {claim.name!r} was not defined: {claim.refused}"
            if claim.wrong
            else f"job {claim.name!r} is not the one that the bundle carries: it was defined otherwise"
            for claim in self._of.get(bundle, {}).values()
            if claim.refused is not None
        )
        version.notes = (*(note for note in version.notes if note not in told), *notes)

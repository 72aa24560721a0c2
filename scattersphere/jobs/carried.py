"""The jobs that come and go with the bundles that carry their definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.errors import DefinitionError
from scattersphere.model.events import EventKind
from scattersphere.registry.records import BundleEventKind

if TYPE_CHECKING:
    from scattersphere.execution.events.streams import EventFeed
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.model.definition import JobDefinition
    from scattersphere.registry.records import BundleEvent, BundleVersion


class CarriedJobs:
    """Defines what a bundle carries when it is loaded, and forgets it when the bundle is removed.

    A job that the host defined itself, or defined anew since, is the host's: it is left alone, and the
    bundle's warnings say so.
    """

    def __init__(self, jobs: Jobs, feed: EventFeed) -> None:
        self._jobs = jobs
        self._feed = feed
        self._of: dict[str, dict[str, JobDefinition]] = {}

    def follow(self, event: BundleEvent) -> None:
        """Do what an event in the life of a bundle asks for."""
        if event.kind is BundleEventKind.REMOVED:
            self._forget(self._of.pop(event.bundle, {}))
        elif event.kind is BundleEventKind.LOADED and event.version is not None:
            self._take(event.bundle, event.version)

    def _take(self, bundle: str, version: BundleVersion) -> None:
        known = self._of.pop(bundle, {})
        taken: dict[str, JobDefinition] = {}
        refused = []
        for definition in version.definitions:
            name = definition.name
            there = self._jobs.get(name)
            if there is not None and there is not known.get(name):
                refused.append(
                    f"job {name!r} is not the one that the bundle carries: it was defined otherwise"
                )
                continue
            try:
                taken[name] = self._jobs.define(definition, replace=True)
            except DefinitionError as error:
                refused.append(f"job {name!r} was not defined: {error}")
            else:
                self._feed.add(EventKind.JOB_DEFINED, job=name)
        version.notes = tuple(refused)
        if taken:
            self._of[bundle] = taken
        self._forget({name: known[name] for name in known.keys() - taken.keys()})

    def _forget(self, definitions: dict[str, JobDefinition]) -> None:
        for name, definition in definitions.items():
            if self._jobs.get(name) is definition:
                self._jobs.undefine(name)
                self._feed.add(EventKind.JOB_UNDEFINED, job=name)

"""Precedence among sources that define one job: the host, a bundle that carries it, a file of the job folder.

What counts is what there is, and not the order in which it came: each source puts its claims, and whenever one of
them changes the name is settled anew. So a refusal ends with its cause, and a running Server ends where a new one
would begin.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from scattersphere._gc import free
from scattersphere._threads import in_thread
from scattersphere.errors import DefinitionError
from scattersphere.jobs.jobs import is_large
from scattersphere.model.definition import JobDefinition
from scattersphere.model.events import EventKind
from scattersphere.registry.records import BundleEventKind

if TYPE_CHECKING:
    from scattersphere.engine.events.streams import EventFeed
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.model.builder import JobBuilder
    from scattersphere.registry.records import BundleEvent, BundleVersion

RANK = 1
"""Bundles come before the job folder, as they do when a Server is entered."""


@attrs.define(eq=False)
class Claim:
    """A definition of a job by one source.

    The least `rank` of a name wins. `source` names it in what the others are told; `path` is its file, if it has
    one. `on_refused` is called whenever `refused` has changed.
    """

    definition: JobDefinition
    rank: tuple[int, str]
    source: str
    on_refused: Callable[[], None]
    path: str | None = None
    news: bool = False
    """Whether it is defined anew even where it says what is defined already."""
    refused: str | None = None
    """Why it does not define the job; None where it does, or nobody has asked yet."""
    wrong: bool = False
    """Whether it is refused for what it says, and not because another one comes first."""

    @property
    def name(self) -> str:
        """The job that it defines."""
        return self.definition.name

    def refuse(self, why: str | None, *, wrong: bool = False) -> None:
        """Note why it does not define its job, or that it does."""
        if (why, wrong) != (self.refused, self.wrong):
            self.refused, self.wrong = why, wrong
            self.on_refused()


class Claims:
    """The claims of all sources but the host, by job, and what they come to."""

    def __init__(self, jobs: Jobs, feed: EventFeed) -> None:
        self._jobs = jobs
        self._feed = feed
        self._claims: dict[str, list[Claim]] = {}
        self._made: dict[str, tuple[Claim, JobDefinition]] = {}
        """Which claim defined a job, and what it said then."""
        self._withdrawn: set[str] = set()
        """Jobs that the host undefined though there is a claim: gone until one changes."""
        self._unsettled: dict[str, None] = {}

    # ---- the host

    def define(self, definition: JobDefinition | JobBuilder, *, replace: bool) -> JobDefinition:
        """Define a job for the host, whose word is the last. Raises `DefinitionError`, `ExistsError`."""
        return self._keep(self._jobs.define(definition, replace=replace))

    async def adefine(self, definition: JobDefinition | JobBuilder, *, replace: bool) -> JobDefinition:
        """Do as `define`; a large definition is judged in a thread."""
        return self._keep(await self._jobs.adefine(definition, replace=replace))

    def _keep(self, resolved: JobDefinition) -> JobDefinition:
        self._feed.add(EventKind.JOB_DEFINED, job=resolved.name)
        self._made.pop(resolved.name, None)
        self._withdrawn.discard(resolved.name)
        if resolved.name in self._claims:
            self._settle(resolved.name)
        return resolved

    def undefine(self, name: str) -> list[object]:
        """Undefine a job for the host; one that the host itself had defined is the others' again.

        Returns what only the job may have held.
        """
        claimed = self.owner(name) is not None
        forgotten = self._jobs.undefine(name)
        self._feed.add(EventKind.JOB_UNDEFINED, job=name)
        self._made.pop(name, None)
        if claimed:
            self._withdrawn.add(name)
        else:
            self._settle(name)
        return forgotten

    async def aundefine(self, name: str) -> None:
        """Do as `undefine`; what a large job has held is freed in a thread."""
        takes_long = is_large(self._jobs.named(name))
        forgotten = self.undefine(name)
        if takes_long:
            await in_thread(partial(free, forgotten))

    # ---- the others

    def put(self, claim: Claim) -> None:
        """Add a claim, to be settled."""
        self._claims.setdefault(claim.name, []).append(claim)
        self.changed(claim)

    def drop(self, claim: Claim) -> None:
        """Withdraw a claim, to be settled."""
        claims = self._claims[claim.name]
        claims.remove(claim)
        if not claims:
            del self._claims[claim.name]
        self._unsettled[claim.name] = None

    def changed(self, claim: Claim, *, again: bool = True) -> None:
        """Note that a claim is another one now, to be settled; `again`: even if the host undefined its job."""
        self._unsettled[claim.name] = None
        if again:
            self._withdrawn.discard(claim.name)

    def owner(self, name: str) -> Claim | None:
        """Return the claim that defines a job; None for a job of the host, or none at all."""
        if name in self._made:
            return self._made[name][0]
        there = self._jobs.get(name)
        if there is None or there.path is None:
            return None
        # The host loaded it from the file, saved it there, or changed a copy: the file speaks for it.
        return next((claim for claim in self._claims.get(name, ()) if claim.path == there.path), None)

    def settle(self, seconds: float | None = None) -> bool:
        """Settle the names that have changed, for so many seconds; return whether that was all."""
        end = None if seconds is None else time.perf_counter() + seconds
        while self._unsettled:
            if end is not None and time.perf_counter() > end:
                return False
            self._settle(next(iter(self._unsettled)))
        return True

    def _settle(self, name: str) -> None:
        self._unsettled.pop(name, None)
        claims = sorted(self._claims.get(name, ()), key=lambda claim: claim.rank)
        there, owner = self._jobs.get(name), self.owner(name)
        winner: str | None = None
        if name in self._withdrawn:
            return
        if there is not None and owner is None:
            winner = there.path or "Python"
        for claim in claims:
            if winner is not None:
                claim.refuse(f"job {name!r} is defined already, from {winner}")
            elif self._define(claim, owner):
                winner = claim.source
        if winner is None and there is not None:
            self._made.pop(name, None)
            self._jobs.undefine(name)
            self._feed.add(EventKind.JOB_UNDEFINED, job=name)

    def _define(self, claim: Claim, owner: Claim | None) -> bool:
        """Let a claim define its job, unless it does already. False: it is refused."""
        name = claim.name
        if owner is claim and not claim.news:
            _, said = self._made.get(name, (claim, None))
            there = self._jobs[name]
            if said is claim.definition or (
                there.origin is not None and there.origin == claim.definition.origin
            ):
                self._made[name] = claim, claim.definition
                claim.refuse(None)
                return True
        try:
            self._jobs.define(claim.definition, replace=True)
        except DefinitionError as error:
            claim.refuse(str(error), wrong=True)
            return False
        claim.news = False
        self._made[name] = claim, claim.definition
        self._feed.add(EventKind.JOB_DEFINED, job=name)
        claim.refuse(None)
        return True


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

"""The versions of one registry: made, pinned, freed, and brought back from the files that were kept.

All methods are for the thread of the event loop; the work itself is done in the loader's.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import attrs

from scattersphere._text import did_you_mean
from scattersphere.errors import (
    BundleLoadError,
    ClosedError,
    ConflictError,
    NoSuchBundleError,
    NoSuchTaskError,
)
from scattersphere.registry.catalog import Catalog, Retention
from scattersphere.registry.load import Export, Load, LoadSettings
from scattersphere.registry.loader import GarbageSchedule, Loader
from scattersphere.registry.modules.code_cache import CodeCache
from scattersphere.registry.modules.leaks import Leak, find_leaks
from scattersphere.registry.modules.release import ON_RELEASE, ReleasedVersions, call_hooks, release
from scattersphere.registry.records import RUNS_SHOWN, BundleVersion
from scattersphere.registry.snapshots.scan import shown_names
from scattersphere.registry.snapshots.snapshot import written_into
from scattersphere.registry.snapshots.store import SnapshotStore, check_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from scattersphere.model.taskclass import TaskClass, WhyNotKept
    from scattersphere.registry.modules.namespace import ModuleNamespace
    from scattersphere.registry.snapshots.scan import SourceLimits

    T = TypeVar("T")


_log = logging.getLogger("scattersphere.registry")

WROTE = "has written"

WROTE_PAUSE = 5.0
"""Seconds between two looks for what the code of one version has written into its private copy."""


@attrs.frozen
class RevivedCode:
    """Versions that were brought back for a run, by the name of their bundle."""

    versions: tuple[BundleVersion, ...]

    def find(self, path: str, bundle: str | None = None) -> TaskClass:
        """Return the task class at `path`, as `TaskRegistry.find` does, but from these versions only."""
        if bundle is None and ":" in path:
            bundle, _, path = path.partition(":")
        searched = [version for version in self.versions if bundle in {None, version.bundle}]
        for version in searched:
            if path in version.tasks:
                return version.tasks[path]
        paths = [known for version in searched for known in version.tasks]
        names = ", ".join(version.label for version in self.versions) or "no version at all"
        raise NoSuchTaskError(f'no task "{path[:200]}" in {names}{did_you_mean(path, paths)}')


def _note_what_it_wrote(version: BundleVersion) -> None:
    """Tell, once, of files that code of a version wrote beside itself. In the loader's thread."""
    if version.content is None or any(WROTE in note for note in version.notes):
        return
    if wrote := written_into(version.content):
        note = (
            f"code {WROTE} {shown_names(wrote)} beside itself, in the private copy of {version}, which is deleted when "
            f"the version is released: write to a folder of your own"
        )
        _log.warning("bundle %r: %s", version.bundle, note)
        version.notes = (*version.notes, note)  # last: who sees it finds it in the log, too


def _delete(version: BundleVersion, store: SnapshotStore) -> None:
    _note_what_it_wrote(version)
    store.discard(version.slug)


class Versions:
    """Makes versions, knows who needs which, and lets go of the others.

    `on_released` is called, on the loop's thread, for each version that is let go.
    """

    def __init__(
        self,
        *,
        limits: SourceLimits,
        shared: frozenset[str],
        exclude: tuple[str, ...],
        roots: tuple[Path, ...],
        load_timeout: float,
        collect_garbage: bool,
        on_released: Callable[[BundleVersion], None],
        snapshot_folder: Path | None = None,
    ) -> None:
        self.catalog: Catalog[BundleVersion] = Catalog()
        self.kept: Retention[BundleVersion] = Retention(limits.kept)
        self.released: ReleasedVersions = ReleasedVersions()
        self.closed: bool = False
        self._limits = limits
        self._shared = shared
        self._exclude = exclude
        self._roots = roots
        self.why_not_kept: WhyNotKept | None = None
        self._on_released = on_released
        self._numbers: dict[str, int] = {}
        self._garbage = GarbageSchedule(enabled=collect_garbage)
        self._loader = Loader(load_timeout, self._garbage, self.released.warn)
        self._settings_made: LoadSettings | None = None
        self._snapshot_folder = snapshot_folder
        self._reviving = anyio.Lock()
        self._holds = 0
        self._wrote_looked_at: dict[BundleVersion, float] = {}
        self._adopted: dict[BundleVersion, list[int]] = {}

    @property
    def stuck(self) -> tuple[str, ...]:
        """The names of bundles whose load was given up, but whose code has not returned."""
        return self._loader.stuck

    @property
    def settings(self) -> LoadSettings:
        """What all loads have in common; the store of snapshots is made with the first."""
        if self._settings_made is None:
            self._settings_made = LoadSettings(
                store=SnapshotStore(self._snapshot_folder),
                code=CodeCache(),
                limits=self._limits,
                shared=self._shared,
                exclude=self._exclude,
                roots=self._roots,
                why_not_kept=self.why_not_kept,
            )
        return self._settings_made

    @property
    def store_folder(self) -> Path | None:
        """Where the snapshots lie; None before the first load."""
        return self._settings_made.store.folder if self._settings_made else None

    def refuse_if_closed(self) -> None:
        """Raise ClosedError after `aclose`."""
        if self.closed:
            raise ClosedError("the registry is closed")

    def next_number(self, bundle: str) -> int:
        """Count the versions of a bundle's name, from 1."""
        self._numbers[bundle] = self._numbers.get(bundle, 0) + 1
        return self._numbers[bundle]

    def runs_of(self, bundle: str) -> Mapping[BundleVersion, frozenset[int]]:
        """Return every version of `bundle` that is in memory, oldest first, with the runs that pin it."""
        return {
            version: frozenset(run for run in runs if run > 0)  # the others are holds, see `revived`
            for version, runs in self.catalog.versions(bundle).items()
        }

    async def load(self, path: Path, bundle: str, current: BundleVersion | None) -> BundleVersion:
        """Return a version with the content at `path`: the current one, a kept older one, or a new one."""
        return await self._made(Load(path, bundle, self.settings), current)

    async def _made(self, load: Load, current: BundleVersion | None) -> BundleVersion:
        self.refuse_if_closed()
        name = load.name
        known = frozenset(version.digest for version in self.catalog.versions(name))
        if current is not None and current.supersede_hooks:
            version = await self._superseding(load, current, known)
        else:
            version = await self._in_thread(load, partial(load.make, known))
        if version is None:
            same = [other for other in self.catalog.versions(name) if other.digest == load.digest]
            if same:
                self._loader.post(name, load.discard)
                return current if current in same else same[-1]
            version = await self._in_thread(load, load.build)  # it was released while we read
        version.number = self.next_number(name)
        return version

    async def _superseding(
        self, load: Load, current: BundleVersion, known: frozenset[str]
    ) -> BundleVersion | None:
        """Make a version whose import must find free what the current one holds, unless runs pin that."""
        await self._in_thread(load, load.read)
        if load.digest in known:
            return None
        runs = sorted(run for run in self.catalog.versions(load.name).get(current, ()) if run > 0)
        if not runs:
            load.supersedes = current
            return await self._in_thread(load, load.build)
        try:
            return await self._in_thread(load, load.build)
        except BundleLoadError as error:
            shown = ", ".join(map(str, runs[:RUNS_SHOWN]))
            raise BundleLoadError(
                f"{error} (the runs {shown} pin {current}, so its on_supersede was not called: "
                "reload when they have ended)",
                error.details,
            ) from None

    async def _in_thread(self, load: Load, work: Callable[[], T]) -> T:
        try:
            return await self._loader.call(load.name, work, discard=load.discard, stuck=load.stuck)
        except BaseException:
            self._loader.note_garbage()  # what was loaded so far is garbage too
            raise

    # ------------------------------------------------------------------ pins, and letting go

    def unpin(self, run_id: int) -> None:
        """Forget the pins of a run, and free what nobody needs any more."""
        self.left(*self.catalog.unpin(run_id))

    def left(self, versions: Iterable[BundleVersion], freed: Iterable[BundleVersion]) -> None:
        """A run no longer pins these versions; nobody needs those of them that are `freed`."""
        for version in versions:
            self._look_what_it_wrote(version)
        self.free(freed)

    def _look_what_it_wrote(self, version: BundleVersion) -> None:
        """Have it noted, soon, if code of the version has written into its private copy, which will be deleted."""
        now = time.monotonic()
        if version.content is not None and now >= self._wrote_looked_at.get(version, 0.0) + WROTE_PAUSE:
            self._wrote_looked_at[version] = now
            self._loader.post(version.bundle, partial(_note_what_it_wrote, version))

    def free(self, versions: Iterable[BundleVersion]) -> None:
        """Let go of versions that the catalogue no longer needs."""
        for version in versions:
            self.drop(version)
            self._on_released(version)

    def drop(self, version: BundleVersion) -> None:
        """Let go of the modules of a version, and of its files unless a kept run names them.

        A version with `on_release` hooks goes when the loader's thread has called them.
        """
        version.tasks = {}
        namespace = version.namespace
        if namespace is None or namespace.released:
            return
        self._wrote_looked_at.pop(version, None)
        gone = self.kept.released(version, version.content.size if version.content else 0)
        hooks, version.hooks, version.supersede_hooks = version.hooks, [], []
        if hooks:
            self._loader.post(version.bundle, lambda: self._leave(version.label, namespace, hooks))
        else:
            self._let_go(version.label, namespace)
        self._discard(gone)

    def _leave(self, label: str, namespace: ModuleNamespace, hooks: list[Callable[[], object]]) -> None:
        thread = call_hooks(hooks, namespace, ON_RELEASE)
        hooks.clear()
        if thread is not None:
            self._loader.note_stuck(thread, namespace.bundle)
        self._let_go(label, namespace)

    def _let_go(self, label: str, namespace: ModuleNamespace) -> None:
        self.released.add(label, namespace)
        release(namespace)
        self._loader.note_garbage()

    def drop_unpublished(self, version: BundleVersion) -> None:
        """Let go of a version that was loaded for nothing."""
        if version not in self.catalog.kept():
            self.drop(version)

    def leaks(self, bundle: str) -> list[Leak]:
        """Say what still holds released versions of `bundle`."""
        return find_leaks(lambda: self.released.of(bundle))

    def _discard(self, versions: Iterable[BundleVersion]) -> None:
        """Delete files: many, perhaps, so not on the loop's thread."""
        settings = self._settings_made
        if settings is not None:
            for version in versions:
                self._loader.post(version.bundle, partial(_delete, version, settings.store))

    # ------------------------------------------------------------------ code of runs that ended

    def forget(self, run_id: int) -> None:
        """Let go of the files that only this run named."""
        self._discard(self.kept.forget(run_id))

    @asynccontextmanager
    async def revived(self, versions: Iterable[BundleVersion]) -> AsyncIterator[RevivedCode]:
        """Have `versions` in memory inside the block, loaded again from their kept files if need be.

        Raises NoSuchBundleError if the files of one are gone, BundleLoadError if its code fails now.
        """
        self._holds -= 1  # below zero: no run has such an id
        hold = self._holds
        try:
            async with self._reviving:
                found = [await self._back(version, hold) for version in versions]
            yield RevivedCode(tuple(found))
        finally:
            self.unpin(hold)

    async def _back(self, version: BundleVersion, hold: int) -> BundleVersion:
        kept = self.catalog.versions(version.bundle)
        back = version if version in kept else self._in_memory(version.bundle, version.digest)
        if back is None:
            back = await self._loaded_again(version)
        self.catalog.hold(version.bundle, back, hold)
        return back

    def _in_memory(self, bundle: str, digest: str) -> BundleVersion | None:
        kept = self.catalog.versions(bundle) if digest else ()
        return next((version for version in kept if version.digest == digest), None)

    async def _loaded_again(self, version: BundleVersion) -> BundleVersion:
        if version.content is None:
            raise NoSuchBundleError(
                f"bundle {version.bundle!r} was made of classes of the host and is deregistered: "
                f"register them again, and run with the latest code"
            )
        if version not in self.kept:
            raise NoSuchBundleError(
                f"the files of {version.label} are no longer kept: run with the latest code"
            )
        return await self._held_back(Load(version.content, version.bundle, self.settings))

    async def _held_back(self, load: Load) -> BundleVersion:
        """Return the version that `load` makes, which is not to be the current one."""
        back = await self._made(load, None)
        if self.closed:
            self.drop_unpublished(back)
            self.refuse_if_closed()
        return back

    # ------------------------------------------------------------------ code from elsewhere

    async def adopt(self, bundle: str, digest: str, content: bytes) -> BundleVersion:
        """Return the version of `bundle` with this digest, loaded from its exported bytes if need be, and hold it."""
        check_digest(digest)
        self.refuse_if_closed()
        async with self._reviving:
            version = self._in_memory(bundle, digest)
            if version is None:
                version = await self._held_back(Load(Export(digest, content), bundle, self.settings))
            self._holds -= 1
            self.catalog.hold(bundle, version, self._holds)
        self._adopted.setdefault(version, []).append(self._holds)
        return version

    def disown(self, version: BundleVersion) -> None:
        """Undo one `adopt`."""
        holds = self._adopted.get(version)
        if not holds:
            raise ConflictError(f"{version} was not adopted, or was disowned already")
        hold = holds.pop()
        if not holds:
            del self._adopted[version]
        self.unpin(hold)

    async def aclose(self) -> list[BundleVersion]:
        """Let go of every version, pinned ones too; end the loader's thread; delete the snapshots."""
        self.closed = True
        self.kept.clear()
        self._adopted.clear()
        versions = self.catalog.clear()
        for version in versions:
            self.drop(version)
        await self._loader.aclose()
        settings, self._settings_made = self._settings_made, None
        if settings is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(settings.store.close)
        return versions

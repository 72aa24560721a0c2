"""Watched bundles, and folders whose bundles are adopted as they come and go."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from scattersphere._threads import in_thread
from scattersphere.errors import (
    BundleError,
    BundleLoadError,
    BundleRefusedError,
    ExistsError,
    ScattersphereError,
)
from scattersphere.registry.snapshots.layout import UNSCANNED
from scattersphere.registry.snapshots.scan import (
    IGNORE_FILE,
    VENV_MARK,
    Signature,
    SourceLimits,
    changed_files,
    is_ignored,
    is_unwatched,
    shown_names,
    signature,
)
from scattersphere.registry.snapshots.snapshot import check_name, default_name
from scattersphere.watching.debounce import WatchDelays
from scattersphere.watching.notify import ANY, WatchTarget, targets_of
from scattersphere.watching.watcher import WatchedPath, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Mapping

    from scattersphere.registry.records import Bundle
    from scattersphere.registry.registry import TaskRegistry

BUNDLE_ENDINGS = frozenset({".py", ".zip", ".whl"})

MODULES = ("*.py", "*/*.py", "src/*/*.py")
"""What makes a bundle of a folder: modules, packages with or without `__init__.py`, a project with `src`."""


@attrs.frozen
class Unreadable:
    """What a look shows of a bundle that must not or cannot be read."""

    reason: str


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve follows links, and they may be swapped


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def look_at(path: Path, limits: SourceLimits) -> Hashable | None:
    """Return what a scan of `path` shows, None if nothing is there."""
    try:
        return signature(path, limits)
    except FileNotFoundError as error:  # the path itself, or a file in it that went, or a link to nowhere
        return Unreadable(str(error)) if path.exists() else None
    except (OSError, BundleRefusedError) as error:
        return Unreadable(str(error))


def bundles_in(root: Path) -> Iterator[Path]:
    """Yield what lies in `root` and can be a bundle, in order of the names. Raises OSError.

    Tests and the like that lie beside bundles are none, as those inside a bundle are not scanned for tasks.
    """
    for entry in sorted(root.iterdir()):
        if not is_ignored(entry.name) and not entry.name.startswith("_") and _is_bundle(entry):
            yield entry


def _is_bundle(path: Path) -> bool:
    if any(fnmatchcase(path.stem, pattern) for pattern in UNSCANNED):
        return False
    if path.is_dir():
        return not (path / VENV_MARK).exists() and any(any(path.glob(pattern)) for pattern in MODULES)
    return path.suffix in BUNDLE_ENDINGS and path.is_file()


class WatchedBundle(WatchedPath):
    """One path whose content is the current version of the bundle `name`, as long as it is there."""

    def __init__(self, bundles: BundleFolders, path: Path, name: str, root: WatchedRoot | None) -> None:
        super().__init__(path)
        self.name = name
        self.root = root
        self._bundles = bundles
        self._restless: Hashable | None = None

    def poll(self) -> Hashable | None:
        """Scan it."""
        return look_at(self.path, self._bundles.limits)

    def targets(self) -> frozenset[WatchTarget]:
        """Return the bundle's folders, but for those that are no part of it."""
        return targets_of(self.path, is_unwatched)

    def core(self, seen: Hashable) -> object:
        """Return what was seen of its modules: data that is written all the time keeps no edit of code waiting."""
        return seen.code if isinstance(seen, Signature) else seen

    def on_restless(self, seen: Hashable | None) -> None:
        """Tell which files do not hold still."""
        before, self._restless = self._restless, seen
        if isinstance(seen, Signature) and isinstance(before, Signature):
            if names := changed_files(before, seen):
                self._bundles.restless[self.path] = (
                    f"{self.path}: never holds still, {shown_names(names)} changes all the time: only edits of code "
                    f"are loaded. Leave it out with a pattern in {IGNORE_FILE}, or write it elsewhere"
                )
        elif seen is None:
            self._bundles.restless.pop(self.path, None)

    async def on_changed(self, seen: Hashable) -> None:
        """Load it; an error is kept in the bundle."""
        del seen
        if self._bundles.watches(self):  # not withdrawn since this was decided
            await self._bundles.load(self.path, self.name)

    async def on_removed(self) -> None:
        """Deregister it. One that was registered by hand is registered again when it comes back."""
        await self._bundles.went(self)


class WatchedRoot(WatchedPath):
    """A folder: whatever bundle is in it is watched."""

    settle: float | None = 0.0  # each bundle must hold still by itself

    def __init__(self, bundles: BundleFolders, path: Path) -> None:
        super().__init__(path)
        self._bundles = bundles

    def poll(self) -> Hashable | None:
        """List the bundles in it."""
        try:
            return tuple(bundles_in(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            return Unreadable(str(error))

    def targets(self) -> frozenset[WatchTarget]:
        """Return the folder and those in it: one becomes a bundle when a module is put there."""
        found = {target for target in targets_of(self.path) if target[1] != ANY}
        real = os.path.realpath(self.path)
        try:
            inner = [e.path for e in os.scandir(real) if e.is_dir() and not is_ignored(e.name)]
        except OSError:
            return frozenset(found)
        return frozenset(found | {(os.path.realpath(folder), ANY) for folder in (real, *inner)})

    async def on_changed(self, seen: Hashable) -> None:
        """Watch what is new; what went is noticed by its own watch."""
        self._bundles.listed(self, seen)

    async def on_removed(self) -> None:
        """Wait for it: its bundles go one by one."""
        self._bundles.listed(self, None)


@attrs.define(eq=False)
class _FirstLook:
    """A look at what is to be registered, before the registry knows of it."""

    withdrawn: bool = False


class BundleFolders:
    """Registers bundles and keeps them up to date.

    `roots` are the folders whose bundles are adopted by `open`, each under the name that its file name gives.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        roots: Iterable[Path] = (),
        *,
        watch: bool | WatchDelays = True,
        limits: SourceLimits = SourceLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.limits: SourceLimits = limits
        self.restless: dict[Path, str] = {}
        """What is watched and does not hold still."""
        self._refused: dict[Path, str] = {}
        delays = watch if isinstance(watch, WatchDelays) else WatchDelays()
        self.watcher: Watcher | None = Watcher(delays) if watch else None
        self._registry = registry
        self._roots = [WatchedRoot(self, _absolute(root)) for root in roots]
        self._watched: dict[str, WatchedBundle] = {}
        self._withdrawn: set[Path] = set()
        self._looking: dict[str, list[_FirstLook]] = {}

    @property
    def problems(self) -> Mapping[Path, str]:
        """What lies in the roots, or should, and could not become a bundle, or never holds still, and why."""
        return {**self._refused, **self.restless}

    async def open(self, spawn: Callable[[Coroutine[object, object, None], str], object]) -> None:
        """Register what lies in the roots now, and watch them, in a task that `spawn` starts."""
        if self.watcher is not None:
            await self.watcher.open(spawn)
        for root in self._roots:
            listing = await in_thread(root.poll)
            for path, name in self._new(root, listing):
                seen = await self._look(path)
                await self.load(path, name)
                self._watch(path, name, root, seen)
            if self.watcher is not None:
                self.watcher.add(root, listing)
        if self.watcher is not None:
            await self.watcher.listens()

    async def aclose(self) -> None:
        """Watch nothing any more."""
        if self.watcher is not None:
            await self.watcher.aclose()

    # ---- by hand

    async def register(self, path: str | os.PathLike[str], *, name: str | None, watch: bool) -> Bundle:
        """Register a bundle, and watch it from then on."""
        place = _absolute(path)
        seen = await self._first_look(place, name) if watch else None
        before = set(self._registry.bundles)
        bundle = await self._registry.register(place, name=name)
        if bundle.current is None:  # it was adopted, and did not load: now its error is raised
            await self._registry.reload(bundle.name)
        elif bundle.name in before:
            seen = None  # nobody knows which content it was loaded from
        self._withdrawn.discard(place)
        if watch and bundle.path is not None and bundle.name not in self._watched:
            self._watch(bundle.path, bundle.name, None, seen)
        return bundle

    async def _first_look(self, place: Path, name: str | None) -> Hashable | None:
        """Look at what is to be registered; BundleLoadError if it is deregistered meanwhile."""
        name = default_name(place) if name is None else name
        check_name(name)
        look = _FirstLook()
        looks = self._looking.setdefault(name, [])
        looks.append(look)
        try:
            seen = await self._look(place)
        finally:
            looks.remove(look)
            if not looks and self._looking.get(name) is looks:
                del self._looking[name]
        if look.withdrawn:
            raise BundleLoadError(f"bundle {name!r} was deregistered while it was loading")
        return seen

    async def expect(self, path: Path, name: str) -> None:
        """Register the bundle at `path`, now or when it comes; an error in it is kept in the bundle.

        Raises ExistsError if the name is taken by another one, BundleRefusedError if it is no good name.
        """
        there = self._registry.bundles.get(name)
        if there is not None:
            if there.path is None or not _same(there.path, path):
                raise ExistsError(
                    f"there is a bundle {name!r} already, from {there.path or 'classes of the host'}"
                )
            return
        seen = await self._look(path)
        self._registry.expect(path, name)
        await self.load(path, name)
        if name not in self._watched:
            self._watch(path, name, None, seen)

    async def reload(self, name: str) -> Bundle:
        """Take up what changed now, whether it has held still or not."""
        watched = self._watched.get(name)
        if watched is None or self.watcher is None:
            return await self._registry.reload(name)
        with self.watcher.held(watched):
            seen = await self._look(watched.path)
            try:
                bundle = await self._registry.reload(name)
            except BundleError:
                self.watcher.mark_seen(watched, seen)
                raise
            # Not so where the caller was cancelled: what was not taken up is still news.
            self.watcher.mark_seen(watched, seen)
            return bundle

    async def deregister(self, name: str) -> None:
        """Withdraw a bundle, and watch it no longer; in a root, until its file has gone and come again."""
        looks = self._looking.get(name, [])
        for look in looks:
            look.withdrawn = True
        watched = self._watched.pop(name, None)
        if watched is None or self.watcher is None:
            if name in self._registry.bundles or self._registry.is_registering(name) or not looks:
                await self._registry.deregister(name)
            return
        self.watcher.remove(watched)
        self.restless.pop(watched.path, None)
        if watched.root is not None:
            self._withdrawn.add(watched.path)
        if name in self._registry.bundles or self._registry.is_registering(name):
            await self._registry.deregister(name)
        self._look_again()

    def waits_for(self, name: str) -> bool:
        """Whether a bundle of this name is being registered, or will be as soon as its file comes back."""
        return name in self._watched or name in self._looking or self._registry.is_registering(name)

    def watches(self, watched: WatchedBundle) -> bool:
        """Whether it is still wanted."""
        return self._watched.get(watched.name) is watched

    # ---- roots

    def listed(self, root: WatchedRoot, listing: Hashable) -> None:
        """Watch what is new in a root."""
        for path, name in self._new(root, listing):
            self._watch(path, name, root, None)

    def _new(self, root: WatchedRoot, listing: Hashable) -> Iterator[tuple[Path, str]]:
        paths = listing if isinstance(listing, tuple) else ()
        for path in [path for path in self._refused if root.path in {path, path.parent}]:
            del self._refused[path]
        self._withdrawn -= {
            path for path in self._withdrawn if path.parent == root.path and path not in paths
        }
        if not isinstance(listing, tuple):
            reason = listing.reason if isinstance(listing, Unreadable) else "there is no such folder"
            self._refused[root.path] = f"{root.path}: {reason}"
        for path in paths:
            if path not in self._withdrawn and (name := self._name_of(path)) is not None:
                yield path, name

    def _name_of(self, path: Path) -> str | None:
        """Return the name for a new bundle; None if it is known already, or cannot be."""
        try:
            name = default_name(path)
            check_name(name)
        except BundleRefusedError as error:
            self._refused[path] = f"{path}: {error}"
            return None
        if any(watched.path == path for watched in self._watched.values()):
            return None
        holder = self._watched[name].path if name in self._watched else None
        if holder is None and name in self._registry.bundles:
            holder = self._registry.bundles[name].path or Path("(classes of the host)")
        if holder is None:
            return name
        if holder != path:
            self._refused[path] = (
                f"{path}: there is a bundle {name!r} already, from {holder}; rename this file"
            )
        return None

    async def load(self, path: Path, name: str) -> None:
        """Bring the bundle `name` up to what is at `path`; what fails is kept as its error."""
        try:
            if name not in self._registry.bundles:
                self._registry.expect(path, name)
            await self._registry.reload(name)
        except ScattersphereError:
            return  # it is in `bundle.error` and in the events; or somebody took the name away meanwhile

    async def went(self, watched: WatchedBundle) -> None:
        """A watched path has gone: withdraw its bundle."""
        if watched.root is not None:
            self._unwatch(watched)
        if watched.name in self._registry.bundles:
            await self._registry.deregister(watched.name)
        self._look_again()

    # ---- inside

    def _watch(self, path: Path, name: str, root: WatchedRoot | None, seen: Hashable | None) -> None:
        if self.watcher is not None:
            watched = self._watched[name] = WatchedBundle(self, path, name, root)
            self.watcher.add(watched, seen)

    def _unwatch(self, watched: WatchedBundle) -> None:
        self.restless.pop(watched.path, None)
        if self.watches(watched):
            del self._watched[watched.name]
        if self.watcher is not None:
            self.watcher.remove(watched)

    def _look_again(self) -> None:
        """A name is free: perhaps another file in a root has waited for it, or the same one is back."""
        if self.watcher is not None:
            for root in self._roots:
                self.watcher.mark_seen(root, None)

    async def _look(self, path: Path) -> Hashable | None:
        return await in_thread(lambda: look_at(path, self.limits))

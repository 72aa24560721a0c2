"""The registry of task code: what a Server asks for bundles and task classes.

Everything but loading happens on the thread of the event loop, in steps without a pause: nobody ever sees a
bundle between two versions.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from scattersphere.errors import (
    BundleError,
    BundleLoadError,
    ClosedError,
    ConflictError,
    ExistsError,
    NoSuchBundleError,
)
from scattersphere.registry.catalog import Catalog
from scattersphere.registry.codecache import CodeCache
from scattersphere.registry.garbage import GarbageSchedule
from scattersphere.registry.index import TaskIndex, did_you_mean
from scattersphere.registry.leaks import Leak, ReleasedVersions
from scattersphere.registry.loader import Loader
from scattersphere.registry.loading import Load, LoadSettings
from scattersphere.registry.parameters import make_structurer, task_class
from scattersphere.registry.records import Bundle, BundleEvent, BundleEventKind, BundleVersion
from scattersphere.registry.release import release
from scattersphere.registry.scan import SourceLimits
from scattersphere.registry.sources import BundleKind, check_name, default_name, kind_of
from scattersphere.registry.store import STORE_VARIABLE, SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scattersphere.model.taskclass import TaskClass
    from scattersphere.task import RunnableTask

LOAD_TIMEOUT = 60.0
"""Seconds after which a load is given up (design, section 8)."""


class _Registering:
    """A name that is being registered; others of the same name wait for it."""

    def __init__(self, real_path: str) -> None:
        self.real_path = real_path
        self.ended = anyio.Event()
        self.withdrawn = False


class TaskRegistry:
    """Bundles by name, and the task classes of their current versions.

    `shared` names packages that come from the host even where a bundle has its own; `exclude` holds
    patterns of modules in which no tasks are looked for; `on_event` is called on the loop's thread, after
    the fact. `collect_garbage=False` leaves the collection of released versions to Python.
    """

    def __init__(
        self,
        *,
        shared: Iterable[str] = (),
        load_timeout: float = LOAD_TIMEOUT,
        limits: SourceLimits = SourceLimits(),  # noqa: B008 - frozen
        on_event: Callable[[BundleEvent], None] | None = None,
        collect_garbage: bool = True,
        exclude: Iterable[str] = (),
    ) -> None:
        self._shared = frozenset(shared)
        self._exclude = tuple(exclude)
        self._limits = limits
        self._on_event = on_event
        self._catalog: Catalog[BundleVersion] = Catalog()
        self._index = TaskIndex()
        self._bundles: dict[str, Bundle] = {}
        self._numbers: dict[str, int] = {}
        self._registering: dict[str, _Registering] = {}
        self._reloading: dict[str, anyio.Lock] = {}
        self._released = ReleasedVersions()
        self._garbage = GarbageSchedule(enabled=collect_garbage)
        self._loader = Loader(load_timeout, self._garbage, self._released.warn)
        self._settings_made: LoadSettings | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<TaskRegistry: {len(self._bundles)} bundles, {len(self._index)} tasks>"

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        """The registered bundles, by name; read-only and always up to date."""
        return MappingProxyType(self._bundles)

    @property
    def tasks(self) -> Mapping[str, TaskClass]:
        """The current task classes by path; by `bundle:path` where two bundles hold the same path."""
        return self._index

    @property
    def stuck(self) -> tuple[str, ...]:
        """The names of bundles whose load was given up, but whose code has not returned."""
        return self._loader.stuck

    def child_environment(self) -> dict[str, str]:
        """Return what a worker process needs in its environment to import loaded versions."""
        store = self._settings_made.store if self._settings_made else None
        return {STORE_VARIABLE: str(store.folder)} if store else {}

    async def register(self, path: str | os.PathLike[str], *, name: str | None = None) -> Bundle:
        """Load the bundle at `path` and return it; its tasks can be found from then on.

        The same real path under the same name gives the bundle that is there. Raises ExistsError if the
        name is taken, BundleRefusedError if the content is unsafe, BundleLoadError if its code fails; then
        nothing is registered.
        """
        origin, real = _origin(path)
        name = default_name(origin) if name is None else name
        check_name(name)
        while (other := self._registering.get(name)) is not None:
            if other.real_path != real:
                raise ExistsError(f"a bundle {name!r} is being registered from {other.real_path}")
            await other.ended.wait()
        if (there := self._already(name, real)) is not None:
            return there
        registering = self._registering[name] = _Registering(real)
        try:
            return await self._register(origin, name, registering)
        finally:
            del self._registering[name]
            registering.ended.set()

    def register_tasks(self, name: str, classes: Iterable[type[RunnableTask]]) -> Bundle:
        """Register classes of the host as the bundle `name`; the path of each is its qualified name."""
        self._refuse_if_closed()
        check_name(name)
        self._refuse_taken(name)
        version = BundleVersion(bundle=name, digest="", number=self._next_number(name))
        structurer = make_structurer()
        found: dict[str, TaskClass] = {}
        for cls in classes:
            path = cls.__qualname__
            if path in found and found[path].cls is not cls:
                raise ConflictError(f"bundle {name!r}: two classes are called {path!r}")
            found[path] = task_class(
                cls, path=path, bundle=name, digest="", version=version, structurer=structurer
            )
        version.tasks = found
        bundle = self._make_bundle(name, None, BundleKind.HOST)
        self._bundles[name] = bundle
        self._publish(bundle, version)
        return bundle

    async def deregister(self, name: str) -> None:
        """Take the bundle's tasks away. Runs that pin a version keep it; it is freed when the last one ends.

        A load of that name that is under way comes to nothing. Raises NoSuchBundleError.
        """
        registering = self._registering.get(name)
        if registering is not None:
            registering.withdrawn = True
            await registering.ended.wait()
            return
        bundle = self._bundle(name)
        del self._bundles[name]
        self._reloading.pop(name, None)
        self._index.replace(name, {})
        label = bundle.current.label if bundle.current else ""
        bundle.current = None
        freed = self._catalog.withdraw(name)
        self._emit(BundleEventKind.REMOVED, name, label=label)
        self._free(freed)

    async def reload(self, name: str) -> Bundle:
        """Look at the bundle's files again; changed content becomes the current version.

        On failure the last good version stays, `bundle.error` says why, and BundleRefusedError or
        BundleLoadError is raised. Raises NoSuchBundleError.
        """
        bundle = self._bundle(name)
        if bundle.path is None:
            raise ConflictError(f"bundle {name!r} is made of classes of the host: there is nothing to reload")
        async with self._reloading.setdefault(name, anyio.Lock()):
            try:
                version = await self._fresh_version(bundle.path, name, bundle.current)
            except BundleError as error:
                if self._bundles.get(name) is bundle:
                    bundle.error = _text(error)
                    label = bundle.current.label if bundle.current else ""
                    self._emit(BundleEventKind.FAILED, name, label=label, error=bundle.error)
                raise
            if self._bundles.get(name) is not bundle:
                self._drop_unpublished(version)
                self._refuse_if_closed()
                raise NoSuchBundleError(f"bundle {name!r} was deregistered while it was loading")
            bundle.error = None
            if version is not bundle.current:
                self._publish(bundle, version)
            return bundle

    def find(self, path: str, bundle: str | None = None) -> TaskClass:
        """Return the current task class at `path`, which may be written `bundle:path`.

        Raises NoSuchTaskError or NoSuchBundleError, with the nearest name, or AmbiguousTaskError.
        """
        if bundle is None:
            prefix, colon, rest = path.partition(":")
            if not colon:
                return self._index.find(path)
            bundle, path = prefix, rest
        current = self._bundle(bundle).current
        return self._index.find_in(bundle, path, current.label if current else bundle)

    def pin(self, run_id: int, versions: Iterable[BundleVersion]) -> None:
        """Keep `versions` until `unpin(run_id)`. ConflictError if one was released already."""
        self._catalog.pin(run_id, versions)

    def unpin(self, run_id: int) -> None:
        """Forget the pins of a run, and free what nobody needs any more."""
        self._free(self._catalog.unpin(run_id))

    def leaks(self, name: str) -> list[Leak]:
        """Collect garbage, then say what still holds released versions of the bundle `name`.

        It may have been deregistered. Searches the whole heap: for people, not for loops.
        """
        return self._released.leaks(name)

    async def aclose(self) -> None:
        """Release every version, pinned ones too, end the loader's thread, delete the snapshots."""
        self._closed = True
        self._bundles.clear()
        for version in self._catalog.clear():
            self._index.replace(version.bundle, {})
            self._release(version)
        await self._loader.aclose()
        settings, self._settings_made = self._settings_made, None
        if settings is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(settings.store.close)

    # ------------------------------------------------------------------ inside

    async def _register(self, origin: Path, name: str, registering: _Registering) -> Bundle:
        try:
            kind = kind_of(origin)
            version = await self._fresh_version(origin, name, None)
        except BundleError as error:
            self._emit(BundleEventKind.FAILED, name, error=_text(error))
            raise
        if registering.withdrawn or self._closed:
            self._drop_unpublished(version)
            self._refuse_if_closed()
            raise BundleLoadError(f"bundle {name!r} was deregistered while it was loading")
        bundle = self._bundles[name] = self._make_bundle(name, origin, kind)
        self._publish(bundle, version)
        return bundle

    def _already(self, name: str, real: str) -> Bundle | None:
        """Return the bundle that `register` would make anew; ExistsError if the name means another one."""
        there = self._bundles.get(name)
        if there is None:
            return None
        if there.path is not None and os.path.realpath(there.path) == real:
            return there
        raise ExistsError(f"there is a bundle {name!r} already, from {there.path or 'classes of the host'}")

    async def _fresh_version(self, path: Path, name: str, current: BundleVersion | None) -> BundleVersion:
        """Return a version with the content at `path`: the current one, a kept older one, or a new one."""
        self._refuse_if_closed()
        load = Load(path, name, self._settings())
        snapshot = await self._loader.call(name, load.read, discard=load.discard, stuck=load.stuck)
        kept = [version for version in self._catalog.versions(name) if version.digest == snapshot.digest]
        if kept:
            self._loader.post(name, load.discard)
            return current if current in kept else kept[-1]
        number = self._next_number(name)
        try:
            return await self._loader.call(
                name, lambda: load.build(number), discard=load.discard, stuck=load.stuck
            )
        except BaseException:
            self._garbage.released(time.monotonic())  # what was loaded so far is garbage too
            raise

    def _settings(self) -> LoadSettings:
        if self._settings_made is None:
            self._settings_made = LoadSettings(
                store=SnapshotStore(),
                code=CodeCache(),
                limits=self._limits,
                shared=self._shared,
                exclude=self._exclude,
            )
        return self._settings_made

    def _make_bundle(self, name: str, path: Path | None, kind: BundleKind) -> Bundle:
        return Bundle(
            name=name,
            path=path,
            kind=kind,
            held=lambda: self._catalog.versions(name),
            leaks=lambda: self.leaks(name),
        )

    def _publish(self, bundle: Bundle, version: BundleVersion) -> None:
        """Make `version` current: one step, in which no other code runs."""
        replaced = bundle.current.label if bundle.current else ""
        freed = self._catalog.publish(bundle.name, version)
        self._index.replace(bundle.name, version.tasks)
        bundle.current = version
        bundle.loaded_at = datetime.now(UTC)
        self._emit(
            BundleEventKind.LOADED,
            bundle.name,
            label=version.label,
            replaced=replaced,
            tasks=tuple(version.tasks),
        )
        self._free(freed)

    def _drop_unpublished(self, version: BundleVersion) -> None:
        if version not in self._catalog.kept():
            self._release(version)

    def _free(self, versions: Iterable[BundleVersion]) -> None:
        for version in versions:
            label, bundle = version.label, version.bundle
            self._release(version)
            self._emit(BundleEventKind.RELEASED, bundle, label=label, version=version)

    def _release(self, version: BundleVersion) -> None:
        version.tasks = {}
        space, settings = version.space, self._settings_made
        if space is None or space.released:
            return
        self._released.add(version.label, space)
        release(space)
        self._garbage.released(time.monotonic())
        if settings is not None:  # many files, perhaps: not on the loop's thread
            slug = version.slug
            self._loader.post(version.bundle, lambda: settings.store.discard(slug))

    def _next_number(self, name: str) -> int:
        self._numbers[name] = self._numbers.get(name, 0) + 1
        return self._numbers[name]

    def _bundle(self, name: str) -> Bundle:
        if name not in self._bundles:
            raise NoSuchBundleError(f"no bundle {name[:200]!r}{did_you_mean(name, self._bundles)}")
        return self._bundles[name]

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClosedError("the registry is closed")

    def _refuse_taken(self, name: str) -> None:
        if name in self._bundles or name in self._registering:
            raise ExistsError(f"there is a bundle {name!r} already")

    def _emit(
        self,
        kind: BundleEventKind,
        bundle: str,
        *,
        label: str = "",
        replaced: str = "",
        error: str = "",
        tasks: tuple[str, ...] = (),
        version: BundleVersion | None = None,
    ) -> None:
        if self._on_event is not None:
            self._on_event(
                BundleEvent(
                    kind=kind,
                    bundle=bundle,
                    label=label,
                    replaced=replaced,
                    error=error,
                    tasks=tasks,
                    version=version,
                )
            )


def _origin(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the path as given, made absolute (links kept: they may be swapped), and the real one."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links
    return Path(absolute), os.path.realpath(absolute)


def _text(error: BundleError) -> str:
    details = error.details if isinstance(error, BundleLoadError) else ""
    return f"{error}\n{details}" if details else str(error)

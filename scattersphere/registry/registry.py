"""The registry of task code: what a Server asks for bundles and task classes.

Everything but loading happens on the thread of the event loop, in steps without a pause: nobody ever sees a
bundle between two versions.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from scattersphere._text import did_you_mean
from scattersphere.errors import (
    BundleError,
    BundleLoadError,
    BundleRefusedError,
    ConflictError,
    ExistsError,
    NoSuchBundleError,
    NoSuchTaskError,
)
from scattersphere.registry import pickling
from scattersphere.registry.classes import host_version, origin
from scattersphere.registry.index import TaskIndex
from scattersphere.registry.records import (
    MANY_VERSIONS,
    Bundle,
    BundleEvent,
    BundleEventKind,
    BundleListing,
    BundleVersion,
)
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.registry.snapshots.snapshot import BundleKind, check_name, default_name, kind_of
from scattersphere.registry.snapshots.store import STORE_VARIABLE
from scattersphere.registry.versions import RevivedCode, Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from scattersphere.functions import TaskFunction
    from scattersphere.model.taskclass import TaskClass, WhyNotKept
    from scattersphere.registry.modules.leaks import Leak
    from scattersphere.registry.modules.namespace import ModuleNamespace
    from scattersphere.runnable import RunnableTask

_log = logging.getLogger("scattersphere.registry")

LOAD_TIMEOUT = 60.0
"""Seconds after which a load is given up (design, section 8)."""


class _Registering:
    """A name that is being registered; others of the same name wait for it."""

    def __init__(self, real_path: str) -> None:
        self.real_path = real_path
        self.ended = anyio.Event()
        self.withdrawals = 0
        """How often it was deregistered meanwhile: what was asked for before comes to nothing."""


class TaskRegistry:
    """Bundles by name, and the task classes of their current versions.

    `shared` names packages that come from the host even where a bundle has its own; `exclude` holds
    patterns of modules in which no tasks are looked for; no link of a bundle in one of the `roots` may lead
    out of them; `on_event` is called on the loop's thread, after the fact. `collect_garbage=False` leaves
    the collection of released versions to Python.
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
        roots: Iterable[Path] = (),
        snapshot_folder: Path | None = None,
    ) -> None:
        self._on_event = on_event
        self._versions = Versions(
            limits=limits,
            shared=frozenset(shared),
            exclude=tuple(exclude),
            roots=tuple(Path(os.path.abspath(root)) for root in roots),  # noqa: PTH100 - links may be swapped
            load_timeout=load_timeout,
            collect_garbage=collect_garbage,
            on_released=self._freed,
            snapshot_folder=snapshot_folder,
        )
        self._index = TaskIndex()
        self._bundles: dict[str, Bundle] = {}
        self.bundles: Mapping[str, Bundle] = BundleListing(self._bundles)
        """The registered bundles, by name; read-only and always up to date."""
        self._registering: dict[str, _Registering] = {}
        self._reloading: dict[str, anyio.Lock] = {}

    def __repr__(self) -> str:
        return f"<TaskRegistry: {len(self._bundles)} bundles, {len(self._index)} tasks>"

    @property
    def tasks(self) -> Mapping[str, TaskClass]:
        """The current task classes by path; by `bundle:path` where two bundles hold the same path."""
        return self._index

    @property
    def stuck(self) -> tuple[str, ...]:
        """The names of bundles whose load was given up, but whose code has not returned."""
        return self._versions.stuck

    def owns(self, version: str) -> bool:
        """Whether this registry has loaded, or is loading, the version of that private name. For any thread."""
        folder = self._versions.store_folder
        return folder is not None and bool(version) and (folder / version).is_dir()

    def child_environment(self) -> dict[str, str]:
        """Return what a worker process needs in its environment to import loaded versions."""
        folder = self._versions.store_folder
        return {STORE_VARIABLE: str(folder)} if folder else {}

    def judge_results(self, why_not_kept: WhyNotKept) -> None:
        """Have the results of each task class judged, once, where it is loaded; see `TaskClass.unkept`.

        To be said before anything is loaded.
        """
        self._versions.why_not_kept = why_not_kept

    async def register(self, path: str | os.PathLike[str], *, name: str | None = None) -> Bundle:
        """Load the bundle at `path` and return it; its tasks can be found from then on.

        The same real path under the same name gives the bundle that is there. Raises ExistsError if the
        name is taken, BundleRefusedError if the content is unsafe, BundleLoadError if its code fails; then
        nothing is registered.
        """
        place, real = origin(path)
        name = default_name(place) if name is None else name
        check_name(name)
        while (other := self._registering.get(name)) is not None:
            if other.real_path != real:
                raise ExistsError(f"a bundle {name!r} is being registered from {other.real_path}")
            asked = other.withdrawals
            await other.ended.wait()
            if other.withdrawals != asked:
                raise BundleLoadError(f"bundle {name!r} was deregistered while it was loading")
        if (there := self._already(name, real)) is not None:
            return there
        registering = self._registering[name] = _Registering(real)
        try:
            return await self._register(place, name, registering)
        finally:
            del self._registering[name]
            registering.ended.set()

    def is_registering(self, name: str) -> bool:
        """Whether a bundle of that name is being loaded for the first time."""
        return name in self._registering

    def expect(self, path: Path, name: str) -> Bundle:
        """List the bundle at `path` before anything of it was loaded; `reload` does that. Raises ExistsError."""
        self._versions.refuse_if_closed()
        check_name(name)
        self._refuse_taken(name)
        try:
            kind = kind_of(path)
        except BundleRefusedError:  # nothing is there yet, or nothing good
            kind = BundleKind.FOLDER
        bundle = self._bundles[name] = self._make_bundle(name, path, kind)
        return bundle

    def register_tasks(
        self, name: str, classes: Iterable[type[RunnableTask] | TaskFunction[..., object]]
    ) -> Bundle:
        """Register classes of the host as the bundle `name`; the path of each is its qualified name.

        Raises ExistsError if the name is taken, TaskDeclarationError for what is no task class.
        """
        self._versions.refuse_if_closed()
        check_name(name)
        self._refuse_taken(name)
        version = host_version(name, classes, self._versions.next_number(name), self._versions.why_not_kept)
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
            registering.withdrawals += 1
            await registering.ended.wait()
            return
        bundle = self._bundle(name)
        del self._bundles[name]
        self._reloading.pop(name, None)
        self._index.replace(name, {})
        label = bundle.current.label if bundle.current else ""
        bundle.current = None
        freed = self._versions.catalog.withdraw(name)
        self._emit(BundleEventKind.REMOVED, name, label=label)
        self._versions.free(freed)

    async def reload(self, name: str) -> Bundle:
        """Look at the bundle's files again; changed content becomes the current version.

        On failure the last good version stays, `bundle.error` says why, and BundleRefusedError or
        BundleLoadError is raised. Raises NoSuchBundleError.
        """
        bundle = self._bundle(name)
        if bundle.path is None:
            raise ConflictError(f"bundle {name!r} is made of classes of the host: there is nothing to reload")
        async with self._reloading.setdefault(name, anyio.Lock(fast_acquire=True)):
            try:
                version = await self._versions.load(bundle.path, name, bundle.current)
            except BundleError as error:
                if self._bundles.get(name) is bundle:
                    bundle.error = _text(error)
                    label = bundle.current.label if bundle.current else ""
                    self._emit(BundleEventKind.FAILED, name, label=label, error=bundle.error)
                raise
            if self._bundles.get(name) is not bundle:
                self._versions.drop_unpublished(version)
                self._versions.refuse_if_closed()
                raise NoSuchBundleError(f"bundle {name!r} was deregistered while it was loading")
            mended, bundle.error = bundle.error is not None, None
            if version is not bundle.current:
                self._publish(bundle, version)
            elif (
                mended
            ):  # the file says again what it said before: whoever heard of the failure hears of this
                self._emit(
                    BundleEventKind.LOADED,
                    name,
                    label=version.label,
                    replaced=version.label,
                    tasks=tuple(version.tasks),
                )
            return bundle

    def known(self, path: str, bundle: str | None = None) -> TaskClass | None:
        """Return what `find` finds, or None where it would raise: nobody looks for the nearest name then."""
        return self._index.known(path, bundle)

    def find(self, path: str, bundle: str | None = None) -> TaskClass:
        """Return the current task class at `path`, which may be written `bundle:path`.

        Raises NoSuchTaskError or NoSuchBundleError, with the nearest name, or AmbiguousTaskError.
        """
        if bundle is None:
            if (found := self._index.shown.get(path)) is not None:
                return found
            prefix, colon, rest = path.partition(":")
            if not colon:
                return self._index.find(path)  # raises
            bundle, path = prefix, rest
        there = self._bundle(bundle)
        current = there.current
        if current is None:
            why = (there.error or "nothing was tried yet").partition("\n")[0]
            raise NoSuchTaskError(f"bundle {bundle} has not loaded: {why}")
        return current.tasks.get(path) or self._index.find_in(bundle, path, current.label)  # raises

    def pin(self, run_id: int, versions: Collection[BundleVersion], *, keep: bool = False) -> None:
        """Keep `versions` in memory until `unpin(run_id)`; with `keep` do as `keep`, too.

        ConflictError if one was released already.
        """
        self._versions.catalog.pin(run_id, versions)
        if keep:
            self._versions.kept.keep(run_id, versions)

    def unpin(self, run_id: int) -> None:
        """Forget the pins of a run, and free what nobody needs any more."""
        pinned, freed = self._versions.catalog.unpin(run_id)
        for version in pinned:
            if freed or version.content is not None:
                self._versions.left(pinned, freed)
                break

    def keep(self, run_id: int, versions: Iterable[BundleVersion]) -> None:
        """Let the files of `versions` stay until `forget(run_id)`, whatever becomes of their modules.

        For `revived`. At most `SourceLimits.kept` bytes stay, those of the last released versions.
        """
        self._versions.kept.keep(run_id, versions)

    def forget(self, run_id: int) -> None:
        """Let go of the files that only this run named; no error if it named none."""
        self._versions.forget(run_id)

    def revived(self, versions: Iterable[BundleVersion]) -> AbstractAsyncContextManager[RevivedCode]:
        """Have versions that may have been released in memory again: `async with registry.revived(..) as code`.

        What is still in memory is used as it is; else its kept files are loaded, and that version has the same
        digest and label. `code.find` finds task classes in these versions only. They are released at the
        end of the block unless a run has pinned them by then. Raises NoSuchBundleError if the files
        of one are gone, BundleLoadError if its code fails now.
        """
        return self._versions.revived(versions)

    async def adopt(self, name: str, digest: str, content: bytes) -> BundleVersion:
        """Return the version of the bundle `name` that has this digest: the exact code of another time or machine.

        What is in memory is used as it is; else `content`, which `BundleVersion.export` gave, is loaded. The version
        is not current, and `name` need not be registered; it stays in memory until `disown`, or for as long as a
        run pins it. Raises BundleRefusedError for bytes that have another digest and for a digest of an older
        form, BundleLoadError if the code fails.
        """
        check_name(name)
        return await self._versions.adopt(name, digest, content)

    def disown(self, version: BundleVersion) -> None:
        """Let go of what `adopt` returned, once for each time. ConflictError if that was done already."""
        self._versions.disown(version)

    def dumps(self, value: object) -> bytes:
        """Pickle `value` so that it can be read when the versions of its classes are long gone.

        Classes and functions of bundles are written by bundle, logical module and qualified name.
        """
        return pickling.dumps(value)

    def loads(self, data: bytes, versions: Iterable[BundleVersion] = ()) -> Any:
        """Return what `dumps` was given, with classes of `versions` (those of a run), else of the current ones.

        Raises NoSuchBundleError, `pickle.UnpicklingError` if a version lacks a class. Never for data of strangers.
        """
        preferred = {version.bundle: version for version in versions}
        return pickling.loads(data, lambda bundle: self._namespace(bundle, preferred.get(bundle)))

    def leaks(self, name: str) -> list[Leak]:
        """Collect garbage, then say what still holds released versions of the bundle `name`.

        It may have been deregistered. Searches the whole heap: for people, not for loops. What the host has frozen
        (`gc.freeze`) is thawed for that, and stays so: the collector does not show what holds a frozen object.
        """
        return self._versions.leaks(name)

    async def aclose(self) -> None:
        """Release every version, pinned ones too, end the loader's thread, delete the snapshots."""
        self._bundles.clear()
        for name in {task.bundle for task in self._index.values()}:
            self._index.replace(name, {})
        await self._versions.aclose()

    # ------------------------------------------------------------------ inside

    async def _register(self, place: Path, name: str, registering: _Registering) -> Bundle:
        try:
            kind = kind_of(place)
            version = await self._versions.load(place, name, None)
        except BundleError as error:
            self._emit(BundleEventKind.FAILED, name, error=_text(error))
            raise
        if registering.withdrawals or self._versions.closed:
            self._versions.drop_unpublished(version)
            self._versions.refuse_if_closed()
            raise BundleLoadError(f"bundle {name!r} was deregistered while it was loading")
        bundle = self._bundles[name] = self._make_bundle(name, place, kind)
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

    def _make_bundle(self, name: str, path: Path | None, kind: BundleKind) -> Bundle:
        return Bundle(
            name=name,
            path=path,
            kind=kind,
            held=lambda: self._versions.runs_of(name),
            leaks=lambda: self.leaks(name),
        )

    def _publish(self, bundle: Bundle, version: BundleVersion) -> None:
        """Make `version` current: one step, in which no other code runs."""
        replaced = bundle.current.label if bundle.current else ""
        freed = self._versions.catalog.publish(bundle.name, version)
        self._index.replace(bundle.name, version.tasks)
        bundle.current = version
        bundle.loaded_at = datetime.now(UTC)
        self._emit(
            BundleEventKind.LOADED,
            bundle.name,
            label=version.label,
            replaced=replaced,
            tasks=tuple(version.tasks),
            version=version,
        )
        self._versions.free(freed)
        if not freed and (older := len(bundle.versions)) and older % MANY_VERSIONS == 0:
            _log.warning("bundle %r: %s", bundle.name, bundle.crowd())

    def _freed(self, version: BundleVersion) -> None:
        self._emit(BundleEventKind.RELEASED, version.bundle, label=version.label, version=version)

    def _namespace(self, bundle: str, preferred: BundleVersion | None) -> ModuleNamespace:
        version = preferred or self._bundle(bundle).current
        if version is None or version.namespace is None:
            raise NoSuchBundleError(f"bundle {bundle!r} is made of classes of the host, and has no modules")
        return version.namespace

    def _bundle(self, name: str) -> Bundle:
        if name not in self._bundles:
            raise NoSuchBundleError(f"no bundle {name[:200]!r}{did_you_mean(name, self._bundles)}")
        return self._bundles[name]

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


def _text(error: BundleError) -> str:
    details = error.details if isinstance(error, BundleLoadError) else ""
    return f"{error}\n{details}" if details else str(error)

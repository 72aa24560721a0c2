"""Making one version of a bundle: snapshot, modules, task classes. Runs in the loader's thread."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from scattersphere.errors import BundleError, BundleLoadError, BundleRefusedError
from scattersphere.registry.carried import carried_definitions
from scattersphere.registry.children import DESCRIPTION, describe_for_children
from scattersphere.registry.codecache import CodeCache
from scattersphere.registry.discovery import defines_task, task_base_names, task_classes
from scattersphere.registry.failures import load_error, stack_of
from scattersphere.registry.imports import FINDER, VersionSpace
from scattersphere.registry.leaving import call_hooks, release_hooks
from scattersphere.registry.loader import undisturbed
from scattersphere.registry.parameters import make_structurer, task_class
from scattersphere.registry.records import BundleVersion
from scattersphere.registry.release import release
from scattersphere.registry.scan import SourceLimits
from scattersphere.registry.sources import Snapshot, copy_snapshot, take_snapshot
from scattersphere.registry.store import SnapshotStore
from scattersphere.registry.typingcaches import clear_typing_caches

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from types import FrameType, ModuleType

    from scattersphere.model.taskclass import TaskClass


@attrs.frozen(kw_only=True)
class LoadSettings:
    """What all loads of one registry have in common."""

    store: SnapshotStore
    code: CodeCache
    limits: SourceLimits
    shared: frozenset[str]
    """Top-level names that come from the host even where a bundle has its own."""
    exclude: tuple[str, ...]
    """Patterns of modules that are not searched for tasks."""


class Load:
    """One attempt to make a version of the bundle at `path`: `make`, or first `read`, then `build`.

    With `kept` the files are those of an earlier version of it.
    """

    def __init__(
        self, path: Path, name: str, settings: LoadSettings, *, kept: Snapshot | None = None
    ) -> None:
        self.path = path
        self.name = name
        self.settings = settings
        self.kept = kept
        self.slug: str = FINDER.new_slug(name)
        self._snapshot: Snapshot | None = None
        self._space: VersionSpace | None = None
        self._modules: dict[str, ModuleType] = {}

    @property
    def digest(self) -> str:
        """The digest of what was read; "" before that."""
        return self._snapshot.digest if self._snapshot else ""

    def make(self, known: Collection[str]) -> BundleVersion | None:
        """Read and build; None if what was read has one of the digests in `known`. One way to the thread."""
        return None if self.read().digest in known else self.build()

    def read(self) -> Snapshot:
        """Take the snapshot; BundleRefusedError if the content is unsafe or incomplete."""
        refusal = None
        try:
            with undisturbed():
                self._snapshot = self._take_snapshot()
            return self._snapshot
        except BundleRefusedError as error:
            refusal = f"bundle {self.name!r}: {error}"
        except BaseException:
            self.discard()
            raise
        self.discard()
        raise BundleRefusedError(refusal)

    def _take_snapshot(self) -> Snapshot:
        store = self.settings.store
        folder = store.folder_for(self.slug)
        if self.kept is not None:
            return copy_snapshot(self.kept, folder, store.pool)
        return take_snapshot(self.path, folder, name=self.name, limits=self.settings.limits, pool=store.pool)

    def build(self) -> BundleVersion:
        """Import the snapshot's modules and describe its tasks; BundleLoadError says what failed."""
        failure: BundleError | None = None
        try:
            return self._build()
        except BundleError as error:
            # A new object: the traceback of this one holds frames, and they hold the modules.
            details = error.details if isinstance(error, BundleLoadError) else ""
            failure = BundleLoadError(str(error), details) if details else type(error)(str(error))
        except BaseException as error:  # noqa: BLE001 - code of a bundle may raise anything, SystemExit too
            failure = load_error(error, self._space) if self._space else BundleLoadError(repr(error))
        self.discard()
        raise failure

    def discard(self) -> None:
        """Undo everything that was done so far; the bundle undoes what its modules did."""
        if self._space is not None and not self._space.released:
            modules, self._modules = self._modules, {}
            with suppress(BundleLoadError):
                call_hooks(release_hooks(modules), self._space)
            modules.clear()
            release(self._space)
        self.settings.store.discard(self.slug)

    def stuck(self, frame: FrameType | None, limit: float) -> BundleLoadError:
        """Return the error that says at which line a load that takes too long is."""
        details = stack_of(frame, self._space) if self._space else ""
        frames = [line.strip() for line in details.splitlines() if line.startswith('  File "')]
        where = f"; it stands at {frames[-1]}" if frames else ""
        return BundleLoadError(
            f"bundle {self.name!r} does not load: not ready after {limit:g} s{where}", details
        )

    def _build(self) -> BundleVersion:
        snapshot = self._snapshot
        if snapshot is None:
            raise BundleLoadError(f"bundle {self.name!r} was not read")
        space = self._space = self._space_of(snapshot)
        describe_for_children(space, self.settings.store.folder_for(self.slug) / DESCRIPTION)
        FINDER.add(space)
        clear_typing_caches()
        space.loading = True
        try:
            version = BundleVersion(
                bundle=self.name,
                digest=snapshot.digest,
                space=space,
                slug=self.slug,
                content=snapshot,
            )
            skipped = self._import_all(space, snapshot)
            version.tasks = self._describe(version)
            version.hooks = release_hooks(self._modules)
            version.definitions = carried_definitions(snapshot, self.name, version.tasks)
        finally:
            space.loading = False
            clear_typing_caches()
        self._modules = {}  # from here on the version holds them
        version.warnings = (*_notices(snapshot), *skipped)
        return version

    def _space_of(self, snapshot: Snapshot) -> VersionSpace:
        layout = snapshot.layout
        for top, file in layout.compiled.items():
            if importlib.util.find_spec(top) is None:
                raise BundleRefusedError(
                    f"bundle {self.name!r}: {file} is a C extension. Such code cannot be loaded twice or "
                    f"freed, so it must come from the host: install {top!r} there"
                )
        return VersionSpace(
            bundle=self.name,
            slug=self.slug,
            folder=snapshot.folder,
            shown_as=snapshot.shown_as,
            modules=layout.modules,
            own=layout.own(self.settings.shared),
            digests=snapshot.files,
            code=self.settings.code,
        )

    def _import_all(self, space: VersionSpace, snapshot: Snapshot) -> list[str]:
        """Import every module that may define tasks; return what was left out.

        An ImportError in a module that defines none is a warning: many packages have modules that need
        something optional.
        """
        modules = self._modules
        missing: dict[str, BundleLoadError] = {}
        for name in snapshot.layout.scanned(self.settings.exclude, self.settings.shared):
            try:
                modules[name] = space.module(name)
            except ImportError as error:
                missing[name] = load_error(error, space)
        bases = task_base_names(modules.values()) if missing else frozenset[str]()
        for name, failure in missing.items():
            source = (snapshot.folder / snapshot.layout.modules[name].file).read_bytes()
            if not modules or defines_task(source, bases):
                raise failure
        return [f"module {name} was left out: {failure}" for name, failure in missing.items()]

    def _describe(self, version: BundleVersion) -> dict[str, TaskClass]:
        structurer = make_structurer()
        found: dict[str, TaskClass] = {}
        for name, module in self._modules.items():
            for path, cls in task_classes(module, name):
                if path in found:
                    raise BundleLoadError(f"bundle {self.name!r}: two classes have the path {path!r}")
                found[path] = task_class(
                    cls,
                    path=path,
                    bundle=self.name,
                    digest=version.digest,
                    version=version,
                    structurer=structurer,
                )
        if not found:
            raise BundleLoadError(
                f"bundle {self.name!r} defines no task: a task is a class that derives from RunnableTask "
                f"and has a `run` method"
            )
        return found


def _notices(snapshot: Snapshot) -> list[str]:
    layout = snapshot.layout
    return [
        *(
            f"module {name} has the name of a module of the host: `import {name}` gives the host's"
            for name in sorted(layout.shadowed())
        ),
        *(
            f"{top} contains the C extension {file}: the host's {top} is used instead"
            for top, file in sorted(layout.compiled.items())
        ),
    ]

"""Loading one version of a bundle: snapshot, modules, task classes. Runs in the loader's thread."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import sys
from contextlib import suppress
from email import message_from_string
from email.message import Message
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of_host
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from scattersphere.definitions import loads_definition
from scattersphere.errors import BundleError, BundleLoadError, BundleRefusedError, DefinitionError
from scattersphere.model.taskclass import WhyNotKept
from scattersphere.registry.classes import make_structurer, task_class
from scattersphere.registry.failures import load_error, stack_of
from scattersphere.registry.loader import undisturbed
from scattersphere.registry.modules.code_cache import CodeCache
from scattersphere.registry.modules.namespace import DESCRIPTION, FINDER, ModuleNamespace
from scattersphere.registry.modules.release import (
    ON_RELEASE,
    ON_SUPERSEDE,
    call_hooks,
    hooks_of,
    release,
)
from scattersphere.registry.records import BundleVersion
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.registry.snapshots.snapshot import Snapshot, adopt_snapshot, copy_snapshot, take_snapshot
from scattersphere.registry.snapshots.store import SnapshotStore
from scattersphere.runnable import RunnableTask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import FrameType, ModuleType

    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.taskclass import TaskClass


_FILE = re.compile(r"(?:([^/]+)/)?jobs/[^/]+\.json")


def carried_definitions(snapshot: Snapshot, bundle: str, paths: Collection[str]) -> tuple[JobDefinition, ...]:
    """Return the definitions in the files of a bundle, in the order of their names.

    A task of theirs that names no bundle means the one in this bundle, if its path is among `paths`.
    BundleLoadError says everything that is wrong with them.
    """
    found: dict[str, JobDefinition] = {}
    wrong = []
    for name in sorted(snapshot.files):
        match = _FILE.fullmatch(name)
        if match is None or match[1] in snapshot.layout.dependencies:
            continue
        try:
            with undisturbed():
                content = (snapshot.folder / name).read_bytes()
            definition = loads_definition(content, source=name)
        except DefinitionError as error:
            wrong.append(str(error))
            continue
        if definition.name in found:
            wrong.append(f"{name}: another file defines the job {definition.name!r} too")
        found[definition.name] = _at_home(definition, bundle, paths)
    if wrong:
        raise BundleLoadError("\n".join([f"bundle {bundle!r} carries wrong job definitions", *wrong]))
    return tuple(found.values())


def _at_home(definition: JobDefinition, bundle: str, paths: Collection[str]) -> JobDefinition:
    return definition.evolve(
        tasks={
            name: task.evolve(bundle=bundle) if task.bundle is None and task.task in paths else task
            for name, task in definition.tasks.items()
        }
    )


def task_classes(module: ModuleType, logical: str) -> Iterator[tuple[str, type[RunnableTask]]]:
    """Yield (task path, class) for each concrete task class that `module` itself defines.

    Modules are walked, not `__subclasses__()`, which sees other versions, and not `__init_subclass__`,
    which sees the discarded twin of a slotted class.
    """
    for cls in _classes(vars(module), module.__name__, ""):
        if _is_task(cls) and not inspect.isabstract(cls):
            yield f"{logical}.{cls.__qualname__}", cls


def _is_task(cls: type) -> bool:
    """Do what `issubclass` does, without the search through all other task classes that an ABC makes."""
    return any(base is RunnableTask for base in cls.__mro__)  # a metaclass may compare as it likes


def _classes(namespace: Mapping[str, object], module: str, outer: str) -> Iterator[type]:
    """Walk the classes of a namespace by qualified name: aliases and imported classes are left out."""
    # First the few that are classes, at the speed of a comprehension: most values are functions and strings.
    found = [(name, value) for name, value in list(namespace.items()) if isinstance(value, type)]
    for name, cls in found:
        if cls.__module__ == module and cls.__qualname__ == f"{outer}{name}":
            yield cls
            yield from _classes(vars(cls), module, f"{cls.__qualname__}.")


def task_base_names(modules: Iterable[ModuleType]) -> frozenset[str]:
    """Return the names of all task classes, abstract ones too, that these modules define."""
    found = {"RunnableTask"}
    for module in modules:
        for cls in _classes(vars(module), module.__name__, ""):
            if _is_task(cls):
                found.add(cls.__name__)
    return frozenset(found)


def defines_task(source: bytes, bases: frozenset[str]) -> bool:
    """Whether a module that could not be imported defines a class that derives from one of `bases`.

    Told from the text: the last part of a base's name counts, and `import X as Y` is followed.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return True  # it cannot be told, so it is taken seriously
    known = set(bases)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            known.update(alias.asname for alias in node.names if alias.asname and alias.name in bases)
    return any(
        isinstance(node, ast.ClassDef) and any(_last_name(base) in known for base in node.bases)
        for node in ast.walk(tree)
    )


def _last_name(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):  # Base[int]
        return _last_name(base.value)
    if isinstance(base, ast.Attribute):
        return base.attr
    return base.id if isinstance(base, ast.Name) else ""


@attrs.frozen(kw_only=True)
class LoadSettings:
    """What all loads of one registry have in common."""

    store: SnapshotStore
    code: CodeCache
    limits: SourceLimits
    shared: frozenset[str]
    """Top-level names that come from the host even where a bundle has its own."""
    roots: tuple[Path, ...] = ()
    """Folders out of which no link may lead."""
    exclude: tuple[str, ...]
    """Patterns of modules that are not searched for tasks."""
    why_not_kept: WhyNotKept | None = None
    """Judges the results of task classes, where there is a journal."""


@attrs.frozen
class Export:
    """The bytes to which a version was exported, and the digest that they must have."""

    digest: str
    content: bytes = attrs.field(repr=False)


class Load:
    """One attempt to make a version of the bundle `name`: `make`, or first `read`, then `build`.

    The files are at `origin`, a path, or are those of an earlier version, or bytes that a version was exported to.
    """

    def __init__(self, origin: Path | Snapshot | Export, name: str, settings: LoadSettings) -> None:
        self.origin = origin
        self.name = name
        self.settings = settings
        self.supersedes: BundleVersion | None = None
        """The version whose `on_supersede` is to be called before anything is imported."""
        self._restore: list[Callable[[], object]] = []
        self.slug: str = FINDER.new_slug(name)
        self._snapshot: Snapshot | None = None
        self._namespace: ModuleNamespace | None = None
        self._names: list[str] = []
        """Of the modules that are imported in search of tasks."""
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
            self._discard_undisturbed()
            raise
        self._discard_undisturbed()
        raise BundleRefusedError(refusal)

    def _take_snapshot(self) -> Snapshot:
        store = self.settings.store
        folder = store.folder / self.slug
        origin, limits = self.origin, self.settings.limits
        if isinstance(origin, Snapshot):
            return copy_snapshot(origin, folder, store.pool)
        if isinstance(origin, Export):
            return adopt_snapshot(
                origin.content, origin.digest, folder, name=self.name, limits=limits, pool=store.pool
            )
        return take_snapshot(
            origin, folder, name=self.name, limits=limits, pool=store.pool, roots=self.settings.roots
        )

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
            failure = load_error(error, self._namespace) if self._namespace else BundleLoadError(repr(error))
        self._discard_undisturbed()
        raise failure

    def _supersede(self, namespace: ModuleNamespace) -> None:
        """Have the old version give up what only one can have, once it is known that the new source compiles."""
        old = self.supersedes
        if old is None or old.namespace is None:
            return
        for name in self._names:
            namespace.compile(name)
        returned: list[object] = []
        call_hooks(old.supersede_hooks, old.namespace, ON_SUPERSEDE, returned)
        self._restore = [function for function in returned[::-1] if callable(function)]

    def _bring_back(self) -> None:
        """Let the old version, which stays, have again what it gave up."""
        old, self.supersedes = self.supersedes, None
        restore, self._restore = self._restore, []
        if old is not None and old.namespace is not None:
            call_hooks(restore, old.namespace, f"what {ON_SUPERSEDE} returned")

    def _discard_undisturbed(self) -> None:
        """Undo it now, all or nothing: of a load that was given up the loader does it, when nothing comes any more."""
        with undisturbed():
            self.discard()

    def discard(self) -> None:
        """Undo everything that was done so far; the bundle undoes what its modules did."""
        if self._namespace is not None and not self._namespace.released:
            modules = self._begun()
            self._modules = {}
            with suppress(BundleLoadError):
                call_hooks(hooks_of(modules, ON_RELEASE), self._namespace, ON_RELEASE)
            modules.clear()
            release(self._namespace)
        self.settings.store.discard(self.slug)
        self._bring_back()

    def _begun(self) -> dict[str, ModuleType]:
        """Return the modules whose hooks count, in the order in which they were executed, whether that ended or not."""
        if self._namespace is None:
            return {}
        begun, names = {**self._namespace.executed, **self._namespace.begun}, set(self._names)
        # What stands in `sys.modules` counts: a module may have put an object of its own there.
        return {**{name: module for name, module in begun.items() if name in names}, **self._modules}

    def stuck(self, frame: FrameType | None, limit: float) -> BundleLoadError:
        """Return the error that says at which line a load that takes too long is."""
        details = stack_of(frame, self._namespace) if self._namespace else ""
        frames = [line.strip() for line in details.splitlines() if line.startswith('  File "')]
        where = f"; it stands at {frames[-1]}" if frames else ""
        return BundleLoadError(
            f"bundle {self.name!r} does not load: not ready after {limit:g} s{where}", details
        )

    def _build(self) -> BundleVersion:
        snapshot = self._snapshot
        if snapshot is None:
            raise BundleLoadError(f"bundle {self.name!r} was not read")
        namespace = self._namespace = self._namespace_of(snapshot)
        described = json.dumps(namespace.description())
        with undisturbed():
            (self.settings.store.folder / self.slug / DESCRIPTION).write_text(described, encoding="utf-8")
        FINDER.add(namespace)
        namespace.loading = True
        try:
            with namespace.registrations.noted():
                version = BundleVersion(
                    bundle=self.name,
                    digest=snapshot.digest,
                    namespace=namespace,
                    slug=self.slug,
                    content=snapshot,
                )
                self._names = list(snapshot.layout.scanned(self.settings.exclude, self.settings.shared))
                self._supersede(namespace)
                skipped = self._import_all(namespace, snapshot)
                version.tasks = self._describe(version)
                ordered = [(name, self._modules[name]) for name in self._begun() if name in self._modules]
                version.hooks = hooks_of(dict(ordered), ON_RELEASE)
                version.supersede_hooks = hooks_of(dict(ordered), ON_SUPERSEDE)
                namespace.has_hooks = bool(version.hooks or version.supersede_hooks)
                version.definitions = carried_definitions(snapshot, self.name, version.tasks)
        finally:
            namespace.loading = False
        version.warnings = (*_notices(snapshot), *skipped)
        return version

    def _namespace_of(self, snapshot: Snapshot) -> ModuleNamespace:
        layout = snapshot.layout
        for name, file in layout.compiled.items():
            if not _host_has(name):
                distribution = distribution_of(snapshot, name)
                wanted = (
                    f"{distribution[0]!r} ({distribution[1]} in the bundle)" if distribution else repr(name)
                )
                raise BundleRefusedError(
                    f"bundle {self.name!r}: {file} is a C extension. Such code cannot be loaded twice or "
                    f"freed, so it must come from the host: install {wanted} there"
                )
        return ModuleNamespace(
            bundle=self.name,
            slug=self.slug,
            folder=snapshot.folder,
            shown_as=snapshot.shown_as,
            modules=layout.modules,
            own=layout.own - self.settings.shared,
            digests=snapshot.files,
            code=self.settings.code,
            hosted=[name for name in layout.compiled if "." in name],
        )

    def _import_all(self, namespace: ModuleNamespace, snapshot: Snapshot) -> list[str]:
        """Import every module that may define tasks; return what was left out.

        An ImportError in a module that defines none is a warning: many packages have modules that need
        something optional.
        """
        modules = self._modules
        missing: dict[str, BundleLoadError] = {}
        for name in self._names:
            try:
                modules[name] = namespace.module(name)
            except ImportError as error:
                missing[name] = load_error(error, namespace)
        bases = task_base_names(modules.values()) if missing else frozenset[str]()
        for name, failure in missing.items():
            with undisturbed():
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
                    why_not_kept=self.settings.why_not_kept,
                )
        if not found:
            raise BundleLoadError(
                f"bundle {self.name!r} defines no task: a task is a class that derives from RunnableTask "
                f"and has a `run` method"
            )
        return found


def _host_has(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # not even what is above it
        return False


def distribution_of(snapshot: Snapshot, name: str) -> tuple[str, str] | None:
    """Return the distribution that brings the module `name` into a bundle, as people call it, and its release."""
    path = name.replace(".", "/")
    for file in snapshot.files:
        if not re.fullmatch(r"[^/]+\.dist-info/RECORD", file):
            continue
        lines = (snapshot.folder / file).read_text("utf-8", "replace").splitlines()
        if any(line.strip('"').startswith((f"{path}/", f"{path}.")) for line in lines):
            metadata = _metadata((snapshot.folder / file).parent)
            return metadata["Name"] or file.partition("-")[0], metadata["Version"] or "?"
    return None


def _metadata(folder: Path) -> Message:
    try:
        return message_from_string((folder / "METADATA").read_text("utf-8", "replace"))
    except OSError:
        return Message()


def _releases(snapshot: Snapshot, name: str) -> str:
    """Say which release the host has of what the bundle has another copy of."""
    distribution = distribution_of(snapshot, name)
    if distribution is None:
        return ""
    title, release = distribution
    with suppress(PackageNotFoundError):
        return f" ({title} {version_of_host(title)}; the bundle's is {release})"
    return f" (the bundle's is {title} {release})"


def _notices(snapshot: Snapshot) -> list[str]:
    layout = snapshot.layout
    below = str(snapshot.folder)
    return [
        *snapshot.warnings,
        *(
            f"the code puts its own folder {os.path.relpath(entry, below)!r} into sys.path, where all of the program "
            f"finds it until the version is released: import from that folder as from a package instead"
            for entry in sys.path
            if str(entry).startswith(below)
        ),
        *(
            f"module {name} has the name of a module of the host: `import {name}` gives the host's"
            for name in sorted(layout.shadowed)
        ),
        *(
            f"{name} contains the C extension {file}: the host's {name} is used instead{_releases(snapshot, name)}"
            for name, file in sorted(layout.compiled.items())
        ),
    ]

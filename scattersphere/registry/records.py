"""Bundle, BundleVersion, BundleEvent: what the registry shows of bundles, their versions and their lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import attrs

from scattersphere._mapping import LiveMapping
from scattersphere.errors import ConflictError
from scattersphere.model.definition import JobDefinition
from scattersphere.model.dicts import BundleDict  # noqa: TC001 - as its neighbours, whose classes attrs looks at
from scattersphere.model.taskclass import TaskClass
from scattersphere.registry.index import rows
from scattersphere.registry.modules.leaks import Leak
from scattersphere.registry.modules.namespace import ModuleNamespace
from scattersphere.registry.snapshots.snapshot import BundleKind, Snapshot, export_snapshot

DIGEST_SHOWN = 6
"""Characters of a digest that a label shows."""

MANY_VERSIONS = 10
"""Older versions in memory that are worth a warning; none is ever ended for that."""

RUNS_SHOWN = 10


@attrs.define(eq=False, kw_only=True)
class BundleVersion:
    """The code of one content digest, loaded once, with modules of its own."""

    bundle: str
    digest: str
    """Of the content, the same on every machine, and marked with its form; "" for classes of the host."""
    number: int = 0
    """Counts the versions of a bundle's name from 1; 0 until it is registered."""
    tasks: Mapping[str, TaskClass] = attrs.field(factory=dict, repr=False)
    """By path. Empty once the version is released."""
    definitions: tuple[JobDefinition, ...] = attrs.field(default=(), repr=False)
    """The job definitions that the bundle carries."""
    hooks: list[Callable[[], object]] = attrs.field(factory=list, repr=False)
    """The functions that are called when the version is released."""
    supersede_hooks: list[Callable[[], object]] = attrs.field(factory=list, repr=False)
    """The functions that are called before a newer version is imported, if no run pins this one."""
    warnings: tuple[str, ...] = attrs.field(default=(), repr=False)
    notes: tuple[str, ...] = attrs.field(default=(), repr=False)
    """What the Server found odd about it."""
    namespace: ModuleNamespace | None = attrs.field(default=None, repr=False)
    slug: str = attrs.field(default="", repr=False)
    """The name of its package below `scattersphere.bundles`."""
    content: Snapshot | None = attrs.field(default=None, repr=False)
    """The files that it was loaded from; None for classes of the host."""
    label: str = attrs.field(
        default=attrs.Factory(
            lambda version: f"{version.bundle}@{version.digest[:DIGEST_SHOWN] or 'host'}", takes_self=True
        ),
        init=False,
        repr=False,
    )
    """A short name for people: `etl@91be07`."""

    @property
    def snapshot(self) -> Path | None:
        """The folder of the files that it was loaded from; None for classes of the host."""
        return self.namespace.folder if self.namespace else None

    def export(self) -> bytes:
        """Return the files of this version as bytes for `TaskRegistry.adopt`: a zip, the same on every machine.

        Reads them all: call it in a thread. Raises BundleRefusedError if they are gone, or if code that ran has
        changed one, ConflictError for classes of the host.
        """
        if self.content is None:
            raise ConflictError(f"{self} is made of classes of the host: there is nothing to export")
        return export_snapshot(self.content)

    def logical(self, text: str) -> str:
        """Put module names and paths in `text` (a traceback, say) back into those the author knows."""
        return self.namespace.logical(text) if self.namespace else text

    def __str__(self) -> str:
        return self.label


@attrs.define(eq=False, kw_only=True)
class Bundle:
    """A bundle that is registered, as seen now. Its attributes change when it is reloaded."""

    name: str
    path: Path | None
    """Where it was registered from; None for classes of the host."""
    kind: BundleKind
    current: BundleVersion | None = None
    error: str | None = None
    """Why the newest content did not load; None again once it does."""
    loaded_at: datetime | None = None
    """When the current version became current, in UTC."""
    _held: Callable[[], Mapping[BundleVersion, frozenset[int]]] = attrs.field(alias="held", repr=False)
    _leaks: Callable[[], list[Leak]] = attrs.field(alias="leaks", repr=False)

    def __repr__(self) -> str:
        label = self.current.label if self.current else "nothing loaded"
        wrong = ", with an error" if self.error is not None else ""
        return f"<Bundle {self.name}: {label}, {len(self.tasks)} tasks, {self.path or 'classes of the host'}{wrong}>"

    def __str__(self) -> str:
        return "\n".join(bundle_words(self))

    def as_dict(self) -> BundleDict:
        """Return it as plain data."""
        current = self.current
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "kind": str(self.kind),
            "version": None if current is None else current.label,
            "digest": None if current is None else current.digest,
            "error": self.error,
            "loaded_at": None if self.loaded_at is None else self.loaded_at.isoformat(),
            "tasks": list(self.tasks),
            "runs": sorted(self.runs),
            "warnings": list(self.warnings),
        }

    @property
    def versions(self) -> Mapping[BundleVersion, frozenset[int]]:
        """Older versions, oldest first, each with the ids of the runs that pin it."""
        held = self._held()
        return {version: runs for version, runs in held.items() if version is not self.current}

    @property
    def runs(self) -> frozenset[int]:
        """The ids of all runs that need any version of this bundle."""
        return frozenset().union(*self._held().values())

    @property
    def tasks(self) -> Mapping[str, TaskClass]:
        """The task classes of the current version, by path."""
        return MappingProxyType(dict(self.current.tasks)) if self.current else MappingProxyType({})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the current version, but no reason to refuse it."""
        found: tuple[str, ...] = ()
        if self.current is not None:
            seen = self.current.namespace.warnings if self.current.namespace else ()
            found = tuple(dict.fromkeys((*self.current.warnings, *self.current.notes, *seen)))
        return (*found, crowd) if (crowd := self.crowd()) else found

    def crowd(self) -> str:
        """Say which runs hold older versions if those are many, else ""."""
        older = self.versions
        if len(older) < MANY_VERSIONS:
            return ""
        runs = sorted(frozenset().union(*older.values()))
        shown = ", ".join(map(str, runs[:RUNS_SHOWN]))
        more = f" and {len(runs) - RUNS_SHOWN} more" if len(runs) > RUNS_SHOWN else ""
        return f"{len(older)} older versions are in memory, held by the runs {shown}{more}"

    @property
    def leaks(self) -> list[Leak]:
        """What keeps released versions alive. Searches the whole heap, frozen or not: for people, not for loops."""
        return self._leaks()


class BundleEventKind(StrEnum):
    """What happened to a bundle, in the words of the wire protocol."""

    LOADED = "bundle-loaded"
    FAILED = "bundle-failed"
    RELEASED = "bundle-released"
    REMOVED = "bundle-removed"


@attrs.frozen(kw_only=True)
class BundleEvent:
    """A fact in the life of a bundle."""

    kind: BundleEventKind
    bundle: str
    label: str = ""
    """The version that it is about."""
    replaced: str = ""
    """The version that was current before."""
    error: str = ""
    tasks: tuple[str, ...] = ()
    """The paths that the version offers."""
    version: BundleVersion | None = attrs.field(default=None, eq=False, repr=False)
    """The version itself, for those who must take it up (`bundle-loaded`) or let go of it (`bundle-released`)."""


def bundle_words(bundle: Bundle) -> list[str]:
    """Return a bundle in a few lines: its current version first, then older ones, then what is wrong."""
    count = len(bundle.tasks)
    tasks = f"{count} task{'' if count == 1 else 's'}"
    current = bundle.current
    head = [
        f"{bundle.name:12}",
        f"{current.label if current else 'nothing loaded':20}",
        f"{tasks:9}",
        str(bundle.path or "classes of the host"),
    ]
    if bundle.loaded_at is not None:
        head.append(f"loaded {bundle.loaded_at:%Y-%m-%d %H:%M:%S} UTC")
    lines = ["  ".join(head)]
    for version, runs in bundle.versions.items():
        held = ", ".join(map(str, sorted(runs))) or "none"
        lines.append(f"{'':12}  {version.label:20}  held by runs {held}")
    if bundle.error is not None:
        lines.append(f"{'':12}  error: {bundle.error.partition(chr(10))[0]}")
    return lines + [f"{'':12}  warning: {warning}" for warning in bundle.warnings]


class BundleListing(LiveMapping[str, Bundle]):
    """The bundles by name: read-only, always up to date, readable in a REPL."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self._bundles = bundles

    def __getitem__(self, name: str) -> Bundle:
        return self._bundles[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._bundles))

    def __len__(self) -> int:
        return len(self._bundles)

    def __repr__(self) -> str:
        blocks = ["\n".join(bundle_words(bundle)) for bundle in list(self._bundles.values())]
        return rows(blocks, "bundle")

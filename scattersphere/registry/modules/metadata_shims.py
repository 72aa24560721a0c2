"""`importlib.metadata`, `importlib.resources` for a bundle: its own distributions, their entry points, its data."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.resources
import json
import os
import re
import sys
from functools import reduce, wraps
from importlib.metadata import Distribution, EntryPoint, EntryPoints, PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scattersphere._cached import cached_property
from scattersphere.registry.modules.shim import Shim, VersionNames
from scattersphere.registry.snapshots.layout import EXTENSION_SUFFIXES, normal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

_METADATA = re.compile(r"(([^/]+)\.(?:dist-info|egg-info))/(?:METADATA|PKG-INFO)")


class MetadataShim(Shim):
    """`importlib.metadata`, where `version("mylib")` means the copy of `mylib` that the bundle brings."""

    @cached_property
    def EntryPoint(self) -> type[EntryPoint]:  # noqa: N802 - as it is called there
        """An entry point that code of the bundle makes, of what it has cached: it loads what the bundle has."""
        namespace = self._namespace

        class Own(BundleEntryPoint, metaclass=AnyEntryPoint):
            def __init__(self, name: str, value: str, group: str) -> None:
                super().__init__(EntryPoint(name, value, group), namespace)

        return Own

    def distribution(self, distribution_name: str) -> Distribution:
        """Return the bundle's distribution of this name, else the host's."""
        wanted = normal_name(distribution_name)
        own = next((found for name, found in own_distributions(self._namespace) if name == wanted), None)
        return own or self._of_host(importlib.metadata.distribution(distribution_name))

    def _of_host(self, found: Distribution) -> Distribution:
        """Return a distribution of the host; one whose modules the bundle has itself is warned of.

        Not if the bundle is the very project of which it is an editable install.
        """
        title = found.metadata["Name"] or ""
        names = _tops(found) or {
            name for name in self._namespace.own if normal_name(name) == normal_name(title)
        }
        own = sorted(names & self._namespace.own)
        if not own:
            return found
        if not _is_project_of(found, self._namespace.shown_as):
            self._namespace.warn(
                f"importlib.metadata tells of {title} {found.version}, which is the host's, and what runs is the "
                f"bundle's own {', '.join(own)}: put its *.dist-info or *.egg-info folder into the bundle"
            )
        return HostDistribution(found, self._namespace)

    def distributions(self, **kwargs: Any) -> Iterator[Distribution]:
        """Yield the bundle's distributions and those of the host that it does not bring itself."""
        if kwargs:  # a search of one's own: `path=[...]`
            yield from importlib.metadata.distributions(**kwargs)
            return
        own = dict(own_distributions(self._namespace))
        yield from own.values()
        for found in importlib.metadata.distributions():
            if normal_name(found.metadata["Name"] or "") not in own:
                yield HostDistribution(found, self._namespace)

    def version(self, distribution_name: str) -> str:
        """Return the version of a distribution."""
        return self.distribution(distribution_name).version

    def metadata(self, distribution_name: str) -> object:
        """Return the metadata of a distribution."""
        return self.distribution(distribution_name).metadata

    def requires(self, distribution_name: str) -> list[str] | None:
        """Return what a distribution requires."""
        return self.distribution(distribution_name).requires

    def files(self, distribution_name: str) -> object:
        """Return the files of a distribution."""
        return self.distribution(distribution_name).files

    def entry_points(self, **params: Any) -> EntryPoints:
        """Return the entry points of the bundle's distributions, and those of the host."""
        entries = [entry for found in self.distributions() for entry in found.entry_points]
        return EntryPoints(entries).select(**params)


def own_distributions(namespace: VersionNames) -> Iterator[tuple[str, Distribution]]:
    """Yield by name the distributions that a bundle brings and that really run: one with C code is the host's."""
    for file in namespace.digests:
        match = _METADATA.fullmatch(file)
        if match is not None:
            found = BundleDistribution(namespace, match[1])
            if found.runs():
                yield normal_name(match[2].partition("-")[0]), found


def _tops(found: Distribution) -> set[str]:
    """Return the top-level names of its modules, as far as its record tells; of an editable install it does not."""
    names = [line.split(",")[0].strip('"') for line in (found.read_text("RECORD") or "").splitlines()]
    tops = {
        name.partition("/")[0].partition(".")[0]
        for name in names
        if name.endswith((".py", *EXTENSION_SUFFIXES)) and not name.startswith(("..", "__editable__"))
    }
    return tops or set((found.read_text("top_level.txt") or "").split())


def _is_project_of(found: Distribution, place: str) -> bool:
    """Whether it is an editable install of the project in which `place` lies."""
    from urllib.request import url2pathname  # noqa: PLC0415 - it brings a client of HTTP along

    try:
        told = json.loads(found.read_text("direct_url.json") or "{}")
        url, editable = urlsplit(told.get("url", "")), told.get("dir_info", {}).get("editable", False)
    except (ValueError, AttributeError):  # not what PEP 610 says
        return False
    folder = Path(os.path.realpath(url2pathname(url.path)))
    return bool(editable) and url.scheme == "file" and Path(os.path.realpath(place)).is_relative_to(folder)


def _own_entry_points(entries: Iterable[EntryPoint], namespace: VersionNames) -> Iterator[EntryPoint]:
    """Give those whose modules the bundle has itself as ones that load these, whoever has installed them."""
    for entry in entries:
        match = entry.pattern.match(entry.value)
        own = match is not None and namespace.owns(match["module"])
        yield BundleEntryPoint(entry, namespace) if own else entry


class HostDistribution(Distribution):
    """A distribution of the host, as a bundle sees it: what names modules of the bundle loads the bundle's."""

    def __init__(self, found: Distribution, namespace: VersionNames) -> None:
        self._found = found
        self._namespace = namespace

    def __getattr__(self, name: str) -> object:
        return getattr(self._found, name)

    def __reduce__(self) -> tuple[object, ...]:
        """Give to pickle and `copy` what the host has, which any process can read."""
        return copy.copy, (self._found,)

    def read_text(self, filename: str) -> str | None:
        """Return the text of a file of its metadata."""
        return self._found.read_text(filename)

    def locate_file(self, path: Any) -> Any:
        """Return where a file of it lies."""
        return self._found.locate_file(path)

    @property
    def entry_points(self) -> EntryPoints:
        """The entry points."""
        return EntryPoints(_own_entry_points(self._found.entry_points, self._namespace))


class BundleDistribution(PathDistribution):
    """A distribution that a bundle brings; its entry points load the bundle's modules."""

    def __init__(self, namespace: VersionNames, folder: str) -> None:
        super().__init__(namespace.folder / folder)
        self._namespace = namespace

    @property
    def entry_points(self) -> EntryPoints:
        """The entry points, which load what the bundle has."""
        return EntryPoints(BundleEntryPoint(entry, self._namespace) for entry in super().entry_points)

    def runs(self) -> bool:
        """Whether its modules are those that an import in the bundle gives; so too if it has none."""
        tops = _tops(self)
        return not tops or not tops.isdisjoint(self._namespace.own)


class BundleEntryPoint(EntryPoint):
    """An entry point of a bundle's distribution."""

    _namespace: VersionNames

    def __init__(self, entry: EntryPoint, namespace: VersionNames) -> None:
        super().__init__(entry.name, entry.value, entry.group)
        vars(self).update(_namespace=namespace, dist=entry.dist)

    def load(self) -> object:
        """Return what it names, from the bundle's own modules if they have it."""
        match = self.pattern.match(self.value)
        if match is None:
            raise ValueError(f"the entry point {self.name} = {self.value!r} names nothing that can be loaded")
        module = self._namespace.shims.instead_of(importlib).import_module(match["module"])
        return reduce(getattr, filter(None, (match["attr"] or "").split(".")), module)

    def __reduce__(self) -> tuple[object, ...]:
        """Give to pickle what any process can read."""
        return EntryPoint, (self.name, self.value, self.group)

    def __copy__(self) -> Self:
        return self  # it cannot be changed

    def __deepcopy__(self, memo: object) -> Self:
        return self


class AnyEntryPoint(type):
    """The type of the class that a bundle knows as `EntryPoint`: those that others have made are instances too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, EntryPoint) if cls._is_that() else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, EntryPoint) if cls._is_that() else super().__subclasscheck__(subclass)

    def _is_that(cls) -> bool:
        """Whether it is that class itself: a subclass of the bundle has its own instances only."""
        return BundleEntryPoint in cls.__bases__


RESOURCE_FUNCTIONS = frozenset(
    {
        "contents",
        "files",
        "is_resource",
        "open_binary",
        "open_text",
        "path",
        "read_binary",
        "read_text",
    }
)
"""Functions of `importlib.resources` whose first argument may be the name of a package."""


class ResourcesShim(Shim):
    """`importlib.resources`, where `files("etl")` means the bundle's own `etl`."""

    def __getattr__(self, name: str) -> object:
        found = getattr(importlib.resources, name)
        return self._wrapped(found) if name in RESOURCE_FUNCTIONS else found

    def _wrapped(self, function: Callable[..., object]) -> Callable[..., object]:
        namespace = self._namespace

        @wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            for key in ("anchor", "package"):  # the first parameter's name differs between versions
                if key in kwargs:
                    args = (kwargs.pop(key), *args)
            if not args or args[0] is None:
                # The module of the caller is meant; the standard library would find this one.
                args = (sys._getframe(1).f_globals["__name__"], *args[1:])  # noqa: SLF001 - it looks there too
            anchor = namespace.full(args[0]) if isinstance(args[0], str) else args[0]
            return namespace.guarded(lambda: function(anchor, *args[1:], **kwargs))

        return call

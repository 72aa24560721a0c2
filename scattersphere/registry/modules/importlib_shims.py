"""What a bundle's code gets when it imports `importlib`: names in strings then follow the bundle too."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import re
import sys
from functools import wraps
from importlib.metadata import Distribution, EntryPoints, PathDistribution
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scattersphere.registry.snapshots.layout import normal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableSequence
    from importlib.machinery import ModuleSpec

    from scattersphere.registry.modules.namespace import ModuleNamespace


_METADATA = re.compile(r"([^/]+)\.dist-info/METADATA")


class MetadataShim(ModuleType):
    """`importlib.metadata`, where `version("mylib")` means the copy of `mylib` that the bundle brings."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("importlib.metadata", importlib.metadata.__doc__)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.metadata, name)

    def distribution(self, distribution_name: str) -> Distribution:
        """Return the bundle's distribution of this name, else the host's."""
        wanted = normal_name(distribution_name)
        own = next((found for name, found in self._own() if name == wanted), None)
        return own or importlib.metadata.distribution(distribution_name)

    def distributions(self, **kwargs: Any) -> Iterator[Distribution]:
        """Yield the bundle's distributions and those of the host that it does not bring itself."""
        if kwargs:  # a search of one's own: `path=[...]`
            yield from importlib.metadata.distributions(**kwargs)
            return
        own = dict(self._own())
        yield from own.values()
        for found in importlib.metadata.distributions():
            if normal_name(found.metadata["Name"] or "") not in own:
                yield found

    def version(self, distribution_name: str) -> str:
        """Return the version of a distribution."""
        return self.distribution(distribution_name).version

    def metadata(self, distribution_name: str) -> Any:
        """Return the metadata of a distribution."""
        return self.distribution(distribution_name).metadata

    def requires(self, distribution_name: str) -> list[str] | None:
        """Return what a distribution requires."""
        return self.distribution(distribution_name).requires

    def files(self, distribution_name: str) -> Any:
        """Return the files of a distribution."""
        return self.distribution(distribution_name).files

    def entry_points(self, **params: Any) -> EntryPoints:
        """Return the entry points of the bundle's distributions, and those of the host."""
        entries = [entry for found in self.distributions() for entry in found.entry_points]
        return EntryPoints(entries).select(**params)

    def _own(self) -> Iterator[tuple[str, Distribution]]:
        namespace = self._namespace
        for file in namespace.digests:
            match = _METADATA.fullmatch(file)
            if match is not None:
                name = normal_name(match[1].partition("-")[0])
                yield name, PathDistribution(namespace.folder / f"{match[1]}.dist-info")


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


class ResourcesShim(ModuleType):
    """`importlib.resources`, where `files("etl")` means the bundle's own `etl`."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("importlib.resources", importlib.resources.__doc__)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.resources, name)
        return self._wrapped(found) if name in RESOURCE_FUNCTIONS else found

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        namespace = self._namespace

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for key in ("anchor", "package"):  # the first parameter's name differs between versions
                if key in kwargs:
                    args = (kwargs.pop(key), *args)
            if not args or args[0] is None:
                # The module of the caller is meant; the standard library would find this one.
                args = (sys._getframe(1).f_globals["__name__"], *args[1:])  # noqa: SLF001 - it looks there too
            anchor = namespace.full(args[0]) if isinstance(args[0], str) else args[0]
            return namespace.guarded(lambda: function(anchor, *args[1:], **kwargs))

        return call


class UtilShim(ModuleType):
    """`importlib.util`, where `find_spec("etl.util")` looks for the bundle's own `etl.util`."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("importlib.util", importlib.util.__doc__)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.util, name)

    def find_spec(self, name: str, package: str | None = None) -> ModuleSpec | None:
        """Return the spec of a module, or None; its name is the full one."""
        namespace = self._namespace
        if name.startswith("."):
            package = namespace.full(package) if package else package
        else:
            name = namespace.full(name)
        spec: ModuleSpec | None = namespace.guarded(importlib.util.find_spec, name, package)
        return spec


class ImportlibShim(ModuleType):
    """`importlib`, where `import_module("etl.util")` means the bundle's own `etl.util`."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("importlib", importlib.__doc__)
        self._namespace = namespace
        self.__path__: MutableSequence[str] = list(importlib.__path__)
        self.resources: ResourcesShim = ResourcesShim(namespace)
        self.metadata: MetadataShim = MetadataShim(namespace)
        self.util: UtilShim = UtilShim(namespace)

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import a module by name, relative to `package` if it begins with dots."""
        namespace = self._namespace
        if name.startswith("."):
            package = namespace.full(package) if package else package
        elif not namespace.owns(name):
            imported: ModuleType = namespace.host_import(importlib.import_module, name)
            return imported
        else:
            name = namespace.prefix + name
        module: ModuleType = namespace.guarded(importlib.import_module, name, package)
        return module

    def instead_of(self, module: ModuleType) -> ModuleType:
        """Return what the import statement that gave `module` gives in a bundle."""
        if module is importlib:
            return self
        if module is importlib.metadata:
            return self.metadata
        if module is importlib.util:
            return self.util
        return self.resources if module is importlib.resources else module

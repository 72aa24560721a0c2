"""What a bundle's code gets when it imports `importlib`: names in strings mean the bundle's own modules too."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import re
import sys
from functools import reduce, wraps
from importlib.metadata import Distribution, EntryPoint, EntryPoints, PathDistribution
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scattersphere.registry.modules.name_shims import NAMED, NamesShim, RunpyShim, SysShim
from scattersphere.registry.snapshots.layout import EXTENSION_SUFFIXES, normal_name

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
        """Yield the distributions that the bundle brings and that really run: one with C code comes from the host."""
        namespace = self._namespace
        for file in namespace.digests:
            match = _METADATA.fullmatch(file)
            if match is not None:
                found = BundleDistribution(namespace, match[1])
                if found.runs():
                    yield normal_name(match[1].partition("-")[0]), found


class BundleDistribution(PathDistribution):
    """A distribution that a bundle brings; its entry points load the bundle's modules."""

    def __init__(self, namespace: ModuleNamespace, stem: str) -> None:
        super().__init__(namespace.folder / f"{stem}.dist-info")
        self._namespace = namespace

    @property
    def entry_points(self) -> EntryPoints:
        """The entry points, which load what the bundle has."""
        return EntryPoints(BundleEntryPoint(entry, self._namespace) for entry in super().entry_points)

    def runs(self) -> bool:
        """Whether its modules are those that an import in the bundle gives; so too if it has none."""
        names = [line.split(",")[0].strip('"') for line in (self.read_text("RECORD") or "").splitlines()]
        tops = {
            name.partition("/")[0].partition(".")[0]
            for name in names
            if name.endswith((".py", *EXTENSION_SUFFIXES))
        }
        return not tops or not tops.isdisjoint(self._namespace.own)


class BundleEntryPoint(EntryPoint):
    """An entry point of a bundle's distribution."""

    _namespace: ModuleNamespace

    def __init__(self, entry: EntryPoint, namespace: ModuleNamespace) -> None:
        super().__init__(entry.name, entry.value, entry.group)
        vars(self).update(_namespace=namespace, dist=entry.dist)

    def load(self) -> Any:
        """Return what it names, from the bundle's own modules if they have it."""
        match = self.pattern.match(self.value)
        if match is None:
            raise ValueError(f"the entry point {self.name} = {self.value!r} names nothing that can be loaded")
        module = self._namespace.shims.importlib.import_module(match["module"])
        return reduce(getattr, filter(None, (match["attr"] or "").split(".")), module)


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


def _with_top_replaced(name: str, slug: str) -> str:
    """Return the name that is meant where code has put another top-level name into the place of its own.

    `"toolz" + __name__[__name__.index("."):]` in a module `tlz.curried` is to be `toolz.curried`; the private name
    has its first dot elsewhere.
    """
    head, mark, tail = name.partition(f".bundles.{slug}.")
    if not mark or head == "scattersphere":
        return name
    _, dot, below = tail.partition(".")
    return f"{head}{dot}{below}"


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
        name = _with_top_replaced(name, namespace.slug)
        if name.startswith("."):
            package = namespace.full(package) if package else package
        elif not namespace.owns(name):
            return namespace.shims.instead_of(namespace.host_import(importlib.import_module, name))
        else:
            name = namespace.prefix + name
        module: ModuleType = namespace.guarded(importlib.import_module, name, package)
        return module


class Shims:
    """What the code of one version gets in place of some modules of the standard library."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        self.importlib: ImportlibShim = ImportlibShim(namespace)
        self._namespace = namespace
        self._made: dict[str, ModuleType] = {
            "importlib": self.importlib,
            "importlib.metadata": self.importlib.metadata,
            "importlib.resources": self.importlib.resources,
            "importlib.util": self.importlib.util,
            "sys": SysShim(namespace),
        }

    def instead_of(self, module: ModuleType) -> ModuleType:
        """Return what the import statement that gave `module` gives in a bundle."""
        name = getattr(module, "__name__", None)
        if name not in SHIMMED or sys.modules.get(name) is not module:
            return module
        made = self._made.get(name)
        if made is None:
            shim = RunpyShim if name == "runpy" else NamesShim
            made = self._made[name] = shim(self._namespace, module)
        return made


SHIMMED = (
    frozenset({"importlib", "importlib.metadata", "importlib.resources", "importlib.util", "sys", "runpy"})
    | NAMED.keys()
)
"""Modules that resolve names in strings."""

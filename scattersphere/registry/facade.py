"""What a bundle's code gets when it imports `importlib`: names in strings then follow the bundle too."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import sys
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scattersphere.registry.metadata import MetadataFacade

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence
    from importlib.machinery import ModuleSpec

    from scattersphere.registry.imports import VersionSpace

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


class ResourcesFacade(ModuleType):
    """`importlib.resources`, where `files("etl")` means the bundle's own `etl`."""

    def __init__(self, space: VersionSpace) -> None:
        super().__init__("importlib.resources", importlib.resources.__doc__)
        self._space = space

    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.resources, name)
        return self._wrapped(found) if name in RESOURCE_FUNCTIONS else found

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        space = self._space

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for key in ("anchor", "package"):  # the first parameter's name differs between versions
                if key in kwargs:
                    args = (kwargs.pop(key), *args)
            if not args or args[0] is None:
                # The module of the caller is meant; the standard library would find this one.
                args = (sys._getframe(1).f_globals["__name__"], *args[1:])  # noqa: SLF001 - it looks there too
            anchor = space.full(args[0]) if isinstance(args[0], str) else args[0]
            return space.guarded(lambda: function(anchor, *args[1:], **kwargs))

        return call


class UtilFacade(ModuleType):
    """`importlib.util`, where `find_spec("etl.util")` looks for the bundle's own `etl.util`."""

    def __init__(self, space: VersionSpace) -> None:
        super().__init__("importlib.util", importlib.util.__doc__)
        self._space = space

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.util, name)

    def find_spec(self, name: str, package: str | None = None) -> ModuleSpec | None:
        """Return the spec of a module, or None; its name is the full one."""
        space = self._space
        if name.startswith("."):
            package = space.full(package) if package else package
        else:
            name = space.full(name)
        spec: ModuleSpec | None = space.guarded(importlib.util.find_spec, name, package)
        return spec


class ImportlibFacade(ModuleType):
    """`importlib`, where `import_module("etl.util")` means the bundle's own `etl.util`."""

    def __init__(self, space: VersionSpace) -> None:
        super().__init__("importlib", importlib.__doc__)
        self._space = space
        self.__path__: MutableSequence[str] = list(importlib.__path__)
        self.resources: ResourcesFacade = ResourcesFacade(space)
        self.metadata: MetadataFacade = MetadataFacade(space)
        self.util: UtilFacade = UtilFacade(space)

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import a module by name, relative to `package` if it begins with dots."""
        space = self._space
        if name.startswith("."):
            package = space.full(package) if package else package
        elif not space.owns(name):
            imported: ModuleType = space.host_import(importlib.import_module, name)
            return imported
        else:
            name = space.prefix + name
        module: ModuleType = space.guarded(importlib.import_module, name, package)
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

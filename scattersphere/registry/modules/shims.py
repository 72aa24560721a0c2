"""The modules of the standard library for which a bundle's code gets another: names in strings mean its own modules."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scattersphere.registry.modules.import_shims import (
    ImportlibShim,
    MachineryShim,
    NamesShim,
    PickleShim,
    RunpyShim,
    UtilShim,
)
from scattersphere.registry.modules.process_shims import BuiltinsShim, GettextShim, ModulesView, SysShim

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from scattersphere.registry.modules.shim import VersionNames


def _metadata(namespace: VersionNames, module: ModuleType) -> ModuleType:
    # When it is needed: what it imports of the standard library is a fifth of a worker's start.
    from scattersphere.registry.modules.metadata_shims import MetadataShim  # noqa: PLC0415 - see above

    return MetadataShim(namespace, module)


def _resources(namespace: VersionNames, module: ModuleType) -> ModuleType:
    from scattersphere.registry.modules.metadata_shims import ResourcesShim  # noqa: PLC0415 - the same

    return ResourcesShim(namespace, module)


SHIMMED: dict[str, Callable[[VersionNames, ModuleType], ModuleType]] = {
    "builtins": BuiltinsShim,
    "gettext": GettextShim,
    "importlib": ImportlibShim,
    "importlib.machinery": MachineryShim,
    "importlib.metadata": _metadata,
    "importlib.resources": _resources,
    "importlib.util": UtilShim,
    "pickle": PickleShim,
    "pkgutil": NamesShim,
    "pydoc": NamesShim,
    "runpy": RunpyShim,
    "sys": SysShim,
}
"""Modules that resolve names in strings, and what stands for each."""


class Shims:
    """What the code of one version gets in place of these modules; made when it first imports one."""

    def __init__(self, namespace: VersionNames) -> None:
        self.modules: ModulesView = ModulesView(namespace)
        """`sys.modules` as it is seen there."""
        self._namespace = namespace
        self._made: dict[str, ModuleType] = {}

    def instead_of(self, module: ModuleType) -> ModuleType:
        """Return what the import statement that gave `module` gives in a bundle."""
        name = getattr(module, "__name__", None)
        if name not in SHIMMED or sys.modules.get(name) is not module:
            return module
        made = self._made.get(name)
        if made is None:  # another thread may make one too: all get the same
            made = self._made.setdefault(name, SHIMMED[name](self._namespace, module))
        return made

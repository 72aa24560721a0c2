"""What stands for a module of the standard library in the code of one version, and what it must know of the version.

The bundle's modules are in the real `sys.modules` under private names. Code that looks a module up by the name that
its author knows would find the host's module of that name, or none.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from importlib.machinery import SourceFileLoader
    from pathlib import Path


class ShimTable(Protocol):
    """The shims of one version."""

    @property
    def modules(self) -> MutableMapping[str, ModuleType]:
        """What its code sees as `sys.modules`."""
        ...

    def instead_of(self, module: ModuleType) -> ModuleType:
        """Return what the import statement that gave `module` gives in the bundle."""
        ...


class VersionNames(Protocol):
    """What shims need of the namespace of a version; each member is explained there."""

    bundle: str
    slug: str
    prefix: str
    folder: Path
    own: frozenset[str]
    digests: Mapping[str, bytes]
    builtins: dict[str, object]
    shown_as: str

    @property
    def shims(self) -> ShimTable:
        """All shims of the version."""
        ...

    def owns(self, name: str) -> bool:
        """Whether an absolute import of `name` means a module of the bundle."""
        ...

    def full(self, name: str) -> str:
        """Turn a name as the bundle's code writes it into the one that `sys.modules` has."""
        ...

    def guarded(self, function: Callable[..., object], *args: object) -> Any:
        """Call a function that imports; an ImportError then speaks of logical names."""

    def host_import(self, function: Callable[..., object], *args: object) -> Any:
        """Call a function that imports from the host."""

    def host_gave(self, name: str) -> None:
        """Note that an import of `name` gave the host's module."""

    def warn(self, text: str) -> None:
        """Add to the warnings of the version, once."""

    def loader_of(self, fullname: str, path: object) -> SourceFileLoader | None:
        """Return a loader for a file of the snapshot; None for any other file."""

    def enter(self, table: MutableMapping[str, Any], key: str, value: object, what: str) -> None:
        """Change an entry of a table of the process: with a warning, undone at release."""


class Shim(ModuleType):
    """Stands for a module in the code of one version; what it does not have itself is that module's."""

    _namespace: VersionNames
    _module: ModuleType

    def __init__(self, namespace: VersionNames, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        vars(self).update(_namespace=namespace, _module=module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)

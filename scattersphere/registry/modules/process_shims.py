"""`sys`, `builtins`, `gettext` for a bundle: what its code would set for all of the program it sets for itself."""

from __future__ import annotations

import builtins
import gettext
import sys
from collections.abc import Iterator, MutableMapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scattersphere.registry.modules.shim import Shim, VersionNames
from scattersphere.registry.snapshots.layout import ALWAYS_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable


class ModulesView(MutableMapping[str, ModuleType]):
    """`sys.modules` as the code of a bundle sees it: its own modules by their logical names, then the host's."""

    def __init__(self, namespace: VersionNames) -> None:
        self._namespace = namespace

    def __getitem__(self, name: str) -> ModuleType:
        found: ModuleType = sys.modules[self._full(name)]
        return self._namespace.shims.instead_of(found)

    def __setitem__(self, name: str, module: ModuleType) -> None:
        namespace = self._namespace
        if namespace.owns(name) or name.startswith(namespace.prefix):
            sys.modules[self._full(name)] = module
        elif (
            "." not in name and name not in ALWAYS_HOST
        ):  # from now on it means this module, in this version alone
            namespace.own |= {name}
            sys.modules[namespace.full(name)] = module
        elif sys.modules.get(name) is not module:
            namespace.enter(sys.modules, name, module, f"sys.modules[{name!r}], which is the host's")

    def __delitem__(self, name: str) -> None:
        del sys.modules[self._full(name)]

    def __iter__(self) -> Iterator[str]:
        namespace = self._namespace
        for name in list(sys.modules):
            if name.startswith(namespace.prefix):
                yield name[len(namespace.prefix) :]
            elif not namespace.owns(name):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._full(name) in sys.modules

    def __repr__(self) -> str:
        return f"<modules that the bundle {self._namespace.bundle!r} sees: {len(self)}>"

    def copy(self) -> dict[str, ModuleType]:
        """Return a dict of what is there now."""
        return dict(self)

    def _full(self, name: str) -> str:
        return self._namespace.full(name) if isinstance(name, str) else name


class SysShim(Shim):
    """`sys`, but for `sys.modules`. What is set in it is set in the real one."""

    def __init__(self, namespace: VersionNames, module: ModuleType) -> None:
        super().__init__(namespace, module)
        vars(self)["modules"] = namespace.shims.modules

    def __setattr__(self, name: str, value: object) -> None:
        setattr(sys, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(sys, name)

    def __dir__(self) -> list[str]:
        return dir(sys)


class BuiltinsShim(ModuleType):
    """`builtins`, as code of the bundle has it: what is set in it is there for this version, and for it alone."""

    _namespace: VersionNames

    def __init__(self, namespace: VersionNames, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        super().__setattr__("_namespace", namespace)

    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]
        """The dict from which the version's functions take what is built in; the host's for what outlives a release."""
        return self._namespace.builtins or builtins.__dict__

    def __getattr__(self, name: str) -> object:
        try:
            return self.__dict__[name]
        except KeyError:
            raise self._lacking(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if self.__dict__.pop(name, self) is self:
            raise self._lacking(name)

    def __dir__(self) -> list[str]:
        return sorted(self.__dict__)

    def _lacking(self, name: str) -> AttributeError:
        return AttributeError(f"module 'builtins' has no attribute {name!r}", name=name, obj=self)


class GettextShim(Shim):
    """`gettext`, whose `install` puts `_` where the bundle's code looks for it."""

    def install(
        self, domain: str, localedir: Any = None, *, names: Iterable[str] | None = None, **kwargs: Any
    ) -> None:
        """Install `_`, and what else `names` names, for this version."""
        found = gettext.translation(domain, localedir, fallback=True, **kwargs)
        own = self._namespace.builtins
        own["_"] = found.gettext
        for name in {"gettext", "ngettext", "pgettext", "npgettext"} & set(names or ()):
            own[name] = getattr(found, name)

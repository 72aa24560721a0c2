"""What a bundle's code gets when it imports `sys`, `pkgutil`, `pydoc`, `runpy`: names in strings mean its own modules.

The bundle's modules are in the real `sys.modules` under private names. Code that looks a module up by the name that
its author knows would find the host's module of that name, or none.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, MutableMapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from scattersphere.registry.snapshots.layout import ALWAYS_HOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.abc import InspectLoader

    from scattersphere.registry.modules.namespace import ModuleNamespace


class ModulesView(MutableMapping[str, ModuleType]):
    """`sys.modules` as the code of a bundle sees it: its own modules by their logical names, then the host's."""

    def __init__(self, namespace: ModuleNamespace) -> None:
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


class SysShim(ModuleType):
    """`sys`, but for `sys.modules`. What is set in it is set in the real one."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("sys", sys.__doc__)
        vars(self)["modules"] = ModulesView(namespace)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(sys, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(sys, name)

    def __dir__(self) -> list[str]:
        return dir(sys)


NAMED: dict[str, dict[str, str]] = {
    "pkgutil": {
        "find_loader": "fullname",
        "get_data": "package",
        "get_loader": "module_or_name",
        "resolve_name": "name",
    },
    "pydoc": {"locate": "path", "resolve": "thing", "safeimport": "path"},
}
"""Functions of the standard library that import what a string names, and the parameter that is that string."""


class NamesShim(ModuleType):
    """A module of the standard library, some functions of which take names of modules: the first argument."""

    def __init__(self, namespace: ModuleNamespace, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._namespace = namespace
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        parameter = NAMED[self._module.__name__].get(name)
        return found if parameter is None else self._with_full_name(found, parameter)

    def _with_full_name(self, function: Callable[..., Any], parameter: str) -> Callable[..., Any]:
        namespace = self._namespace

        def call(*args: Any, **kwargs: Any) -> Any:
            if parameter in kwargs:
                args = (kwargs.pop(parameter), *args)
            if args and isinstance(args[0], str):
                args = (namespace.full(args[0]), *args[1:])
            return namespace.guarded(lambda: function(*args, **kwargs))

        return call

    def walk_packages(
        self, path: Any = None, prefix: str = "", onerror: Callable[[str], object] | None = None
    ) -> Iterator[Any]:
        """Yield what `pkgutil.walk_packages` does, with the names that the author knows."""
        namespace = self._namespace
        walk = self._module.walk_packages
        if path is None or not namespace.owns(prefix):
            yield from walk(path, prefix, onerror)
            return
        for info in walk(path, namespace.prefix + prefix, onerror):
            yield info._replace(name=info.name.removeprefix(namespace.prefix))


class RunpyShim(ModuleType):
    """`runpy`, where `run_module("etl.tool")` means the bundle's own, and what is run imports as the bundle does."""

    def __init__(self, namespace: ModuleNamespace, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._namespace = namespace
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def run_module(
        self,
        mod_name: str,
        init_globals: dict[str, Any] | None = None,
        run_name: str | None = None,
        alter_sys: bool = False,  # noqa: FBT001, FBT002 - runpy's own signature
    ) -> dict[str, Any]:
        """Execute a module of the bundle, or of the host, and return its globals."""
        namespace = self._namespace
        if not alter_sys and namespace.owns(mod_name):
            run = self._run, namespace.full(mod_name), init_globals or {}, run_name or mod_name
            return cast("dict[str, Any]", namespace.guarded(*run))
        found: dict[str, Any] = self._module.run_module(mod_name, init_globals, run_name, alter_sys)
        return found

    def _run(self, full: str, given: dict[str, Any], run_name: str) -> dict[str, Any]:
        """Do as runpy does. It would warn that the module is imported already, as all of a bundle's modules are."""
        spec = importlib.util.find_spec(full)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{full}.__main__")
        if spec is None or spec.loader is None:
            raise ImportError(f"No module named {full}", name=full)
        code = cast("InspectLoader", spec.loader).get_code(spec.name)
        if code is None:
            raise ImportError(f"No code object available for {full}", name=full)
        content: dict[str, Any] = {
            **given,
            "__name__": run_name,
            "__file__": spec.origin,
            "__cached__": None,
            "__doc__": None,
            "__loader__": spec.loader,
            "__package__": spec.parent,
            "__spec__": spec,
            "__builtins__": self._namespace.builtins,
        }
        exec(code, content)  # noqa: S102 - this is what running a module is
        return content

    def run_path(
        self, path_name: Any, init_globals: dict[str, Any] | None = None, run_name: str | None = None
    ) -> dict[str, Any]:
        """Execute a file; one of the bundle imports as the bundle does."""
        given = dict(init_globals or {})
        if str(path_name).startswith(str(self._namespace.folder)):
            given["__builtins__"] = self._namespace.builtins
        found: dict[str, Any] = self._module.run_path(path_name, given, run_name)
        return found

"""`importlib`, `pkgutil`, `pydoc`, `runpy` for a bundle: a name in a string means the bundle's own module."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import pickle
import re
from functools import cached_property
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from scattersphere.registry.modules.shim import Shim, VersionNames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableSequence
    from importlib.abc import InspectLoader
    from importlib.machinery import ModuleSpec


class PickleShim(Shim):
    """`pickle`, where data that names `etl.Item`, in any version of the bundle, means the one that reads."""

    @cached_property
    def Unpickler(self) -> type[pickle.Unpickler]:  # noqa: N802 - as it is called there
        """A reader of this version's own."""
        namespace = self._namespace
        # What the bundle has pickled itself names the version that did it, of this process or another.
        bundle = re.escape(namespace.slug.rpartition("_g")[0])
        version = re.compile(rf"\Ascattersphere\.bundles\.{bundle}_g\d+\.")

        class Unpickler(pickle.Unpickler):
            """Reads what was pickled."""

            def find_class(self, module: str, name: str) -> object:
                logical = version.sub("", module)
                if not namespace.owns(logical):
                    return super().find_class(module, name)
                return namespace.guarded(super().find_class, namespace.full(logical), name)

        return Unpickler

    def load(self, file: Any, **kwargs: Any) -> object:
        """Read one object from a file."""
        return self.Unpickler(file, **kwargs).load()

    def loads(self, data: Any, /, **kwargs: Any) -> object:
        """Read one object from bytes."""
        return self.Unpickler(BytesIO(data), **kwargs).load()


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


class ImportlibShim(Shim):
    """`importlib`, where `import_module("etl.util")` means the bundle's own `etl.util`."""

    def __init__(self, namespace: VersionNames, module: ModuleType) -> None:
        super().__init__(namespace, module)
        self.__path__: MutableSequence[str] = list(importlib.__path__)

    def __getattr__(self, name: str) -> object:
        found = super().__getattr__(name)
        return self._namespace.shims.instead_of(found) if type(found) is ModuleType else found

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import a module by name, relative to `package` if it begins with dots."""
        namespace = self._namespace
        name = _with_top_replaced(name, namespace.slug)
        if name.startswith("."):
            package = namespace.full(package) if package else package
        elif not namespace.owns(name):
            found = namespace.host_import(importlib.import_module, name)
            namespace.host_gave(name)
            return namespace.shims.instead_of(found)
        else:
            name = namespace.prefix + name
        module: ModuleType = namespace.guarded(importlib.import_module, name, package)
        return module


class UtilShim(Shim):
    """`importlib.util`, where `find_spec("etl.util")` looks for the bundle's own `etl.util`."""

    def find_spec(self, name: str, package: str | None = None) -> ModuleSpec | None:
        """Return the spec of a module, or None; its name is the full one."""
        namespace = self._namespace
        if name.startswith("."):
            package = namespace.full(package) if package else package
        else:
            name = namespace.full(name)
        spec: ModuleSpec | None = namespace.guarded(importlib.util.find_spec, name, package)
        return spec

    def spec_from_file_location(self, name: str, location: Any = None, **kwargs: Any) -> ModuleSpec | None:
        """Return the spec of a module in that file; one of the bundle imports as the bundle does."""
        full = self._namespace.full(name)  # a relative import of it looks there
        if kwargs.get("loader") is None and (own := self._namespace.loader_of(full, location)) is not None:
            name, kwargs["loader"] = full, own
        return importlib.util.spec_from_file_location(name, location, **kwargs)


class MachineryShim(Shim):
    """`importlib.machinery`, where `SourceFileLoader` loads a file of the bundle as the bundle's imports do."""

    @cached_property
    def SourceFileLoader(self) -> type[importlib.machinery.SourceFileLoader]:  # noqa: N802 - as it is called there
        """A loader of this version's own."""
        namespace = self._namespace

        class SourceFileLoader(importlib.machinery.SourceFileLoader):
            """Loads a module from a file."""

            def exec_module(self, module: ModuleType) -> None:
                own = namespace.loader_of(module.__name__, self.path)
                if own is None:
                    super().exec_module(module)
                else:
                    own.exec_module(module)

            def load_module(self, fullname: str | None = None) -> ModuleType:
                """Do as the deprecated method does; a module of the bundle is its version's alone."""
                name = self.name if fullname is None else fullname
                spec = importlib.util.spec_from_loader(name, self)
                if spec is None or namespace.loader_of(name, self.path) is None:
                    return super().load_module(name)
                module = importlib.util.module_from_spec(spec)
                namespace.shims.modules[name] = module
                self.exec_module(module)
                return module

        return SourceFileLoader


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


class NamesShim(Shim):
    """A module of the standard library, some functions of which take names of modules: the first argument."""

    def __getattr__(self, name: str) -> object:
        found = getattr(self._module, name)
        parameter = NAMED[self._module.__name__].get(name)
        return found if parameter is None else self._with_full_name(found, parameter)

    def _with_full_name(self, function: Callable[..., object], parameter: str) -> Callable[..., object]:
        namespace = self._namespace

        def call(*args: object, **kwargs: object) -> Any:
            if parameter in kwargs:
                args = (kwargs.pop(parameter), *args)
            if args and isinstance(args[0], str):
                args = (namespace.full(args[0]), *args[1:])
            return namespace.guarded(lambda: function(*args, **kwargs))

        return call

    def walk_packages(
        self, path: object = None, prefix: str = "", onerror: Callable[[str], object] | None = None
    ) -> Iterator[object]:
        """Yield what `pkgutil.walk_packages` does, with the names that the author knows."""
        namespace = self._namespace
        walk = self._module.walk_packages
        if path is None or not namespace.owns(prefix):
            yield from walk(path, prefix, onerror)
            return
        for info in walk(path, namespace.prefix + prefix, onerror):
            yield info._replace(name=info.name.removeprefix(namespace.prefix))


class RunpyShim(Shim):
    """`runpy`, where `run_module("etl.tool")` means the bundle's own, and what is run imports as the bundle does."""

    def run_module(
        self,
        mod_name: str,
        init_globals: dict[str, object] | None = None,
        run_name: str | None = None,
        alter_sys: bool = False,  # noqa: FBT001, FBT002 - runpy's own signature
    ) -> dict[str, object]:
        """Execute a module of the bundle, or of the host, and return its globals."""
        namespace = self._namespace
        if not alter_sys and namespace.owns(mod_name):
            run = self._run, namespace.full(mod_name), init_globals or {}, run_name or mod_name
            return cast("dict[str, Any]", namespace.guarded(*run))
        found: dict[str, object] = self._module.run_module(mod_name, init_globals, run_name, alter_sys)
        return found

    def _run(self, full: str, given: dict[str, object], run_name: str) -> dict[str, object]:
        """Do as runpy does. It would warn that the module is imported already, as all of a bundle's modules are."""
        spec = importlib.util.find_spec(full)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{full}.__main__")
        if spec is None or spec.loader is None:
            raise ImportError(f"No module named {full}", name=full)
        code = cast("InspectLoader", spec.loader).get_code(spec.name)
        if code is None:
            raise ImportError(f"No code object available for {full}", name=full)
        content: dict[str, object] = {
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
        self, path_name: object, init_globals: dict[str, object] | None = None, run_name: str | None = None
    ) -> dict[str, object]:
        """Execute a file; one of the bundle imports as the bundle does."""
        given = dict(init_globals or {})
        if str(path_name).startswith(str(self._namespace.folder)):
            given["__builtins__"] = self._namespace.builtins
        found: dict[str, object] = self._module.run_path(path_name, given, run_name)
        return found

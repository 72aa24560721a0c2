"""The modules of the standard library for which a bundle's code gets another: names in strings mean its own modules.

First `importlib`, `pkgutil`, `pydoc`, `runpy` and `pickle`, which look modules up by name. Then `sys`, `builtins` and
`gettext`: what a bundle's code would set for all of the program it sets for itself. Last the table of all.
"""

from __future__ import annotations

import builtins
import gettext
import importlib
import importlib.machinery
import importlib.util
import pickle
import re
import sys
from collections.abc import Iterator, MutableMapping
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from scattersphere._cached import cached_property
from scattersphere.registry.modules.shim import Shim, VersionNames
from scattersphere.registry.snapshots.layout import ALWAYS_HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableSequence
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


# ---- what is set for all of the program


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


# ---- all of them


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

"""What a bundle's code gets for `importlib`, `sys`, `pkgutil`, `pydoc`, `runpy`: names in strings mean its own modules.

The bundle's modules are in the real `sys.modules` under private names. Code that looks a module up by the name that
its author knows would find the host's module of that name, or none.
"""

from __future__ import annotations

import builtins
import gettext
import importlib
import importlib.machinery
import importlib.metadata
import importlib.resources
import importlib.util
import re
import sys
from collections.abc import Iterator, MutableMapping
from functools import cached_property, reduce, wraps
from importlib.metadata import Distribution, EntryPoint, EntryPoints, PathDistribution
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from scattersphere.registry.snapshots.layout import ALWAYS_HOST, EXTENSION_SUFFIXES, normal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableSequence
    from importlib.abc import InspectLoader
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

    def spec_from_file_location(self, name: str, location: Any = None, **kwargs: Any) -> ModuleSpec | None:
        """Return the spec of a module in that file; one of the bundle imports as the bundle does."""
        full = self._namespace.full(name)  # a relative import of it looks there
        if kwargs.get("loader") is None and (own := self._namespace.loader_of(full, location)) is not None:
            name, kwargs["loader"] = full, own
        return importlib.util.spec_from_file_location(name, location, **kwargs)


class MachineryShim(ModuleType):
    """`importlib.machinery`, where `SourceFileLoader` loads a file of the bundle as the bundle's imports do."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("importlib.machinery", importlib.machinery.__doc__)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.machinery, name)

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

    def __init__(self, modules: ModulesView) -> None:
        super().__init__("sys", sys.__doc__)
        vars(self)["modules"] = modules

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(sys, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(sys, name)

    def __dir__(self) -> list[str]:
        return dir(sys)


class BuiltinsShim(ModuleType):
    """`builtins`, as code of the bundle has it: what is set in it is there for this version, and for it alone."""

    _namespace: ModuleNamespace

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("builtins", builtins.__doc__)
        super().__setattr__("_namespace", namespace)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """The dict from which the version's functions take what is built in; the host's for what outlives a release."""
        return self._namespace.builtins or builtins.__dict__

    def __getattr__(self, name: str) -> Any:
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


class GettextShim(ModuleType):
    """`gettext`, whose `install` puts `_` where the bundle's code looks for it."""

    def __init__(self, namespace: ModuleNamespace) -> None:
        super().__init__("gettext", gettext.__doc__)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(gettext, name)

    def install(
        self, domain: str, localedir: Any = None, *, names: Iterable[str] | None = None, **kwargs: Any
    ) -> None:
        """Install `_`, and what else `names` names, for this version."""
        found = gettext.translation(domain, localedir, fallback=True, **kwargs)
        own = self._namespace.builtins
        own["_"] = found.gettext
        for name in {"gettext", "ngettext", "pgettext", "npgettext"} & set(names or ()):
            own[name] = getattr(found, name)


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
        self.machinery: MachineryShim = MachineryShim(namespace)

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
        self.modules: ModulesView = ModulesView(namespace)
        self.importlib: ImportlibShim = ImportlibShim(namespace)
        self._namespace = namespace
        self._made: dict[str, ModuleType] = {
            "importlib": self.importlib,
            "importlib.metadata": self.importlib.metadata,
            "importlib.resources": self.importlib.resources,
            "importlib.util": self.importlib.util,
            "importlib.machinery": self.importlib.machinery,
            "sys": SysShim(self.modules),
            "builtins": BuiltinsShim(namespace),
            "gettext": GettextShim(namespace),
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
    frozenset(
        {"importlib", "importlib.machinery", "importlib.metadata", "importlib.resources", "importlib.util"}
    )
    | {"builtins", "gettext", "runpy", "sys"}
    | NAMED.keys()
)
"""Modules that resolve names in strings."""

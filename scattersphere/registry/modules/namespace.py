"""The module namespace of one bundle version: its names, its own `import`, and how modules are found.

The full name of a module is `scattersphere.bundles.<slug>.<logical name>`. Code of the bundle says
`import etl.util`; its own `__import__`, which Python takes from the module's `__builtins__`, turns that into
the full name. Nothing of the interpreter is replaced; one finder answers for names below the prefix.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from scattersphere.registry.loader import HERE, undisturbed
from scattersphere.registry.modules.code_cache import compiled
from scattersphere.registry.modules.registrations import (
    CANARY,
    Canary,
    Forgetfulness,
    Registrations,
)
from scattersphere.registry.modules.shims import SHIMMED, Shims
from scattersphere.registry.snapshots.layout import ALWAYS_HOST, ModuleFile, normal_name
from scattersphere.undo import replace_item

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
    from importlib.metadata import Distribution, DistributionFinder
    from importlib.readers import FileReader
    from types import CodeType

    from scattersphere.registry.modules.code_cache import CodeCache
    from scattersphere.undo import Replacement


PARENT = "scattersphere.bundles"

DESCRIPTION = "version.json"
"""The file beside a version's snapshot from which a child process learns how to import it."""

LACKS = " lacks it)"


class ModuleNamespace:
    """The modules of one bundle version."""

    def __init__(  # noqa: PLR0913 - what a child process reads from a file, field by field
        self,
        *,
        bundle: str,
        slug: str,
        folder: Path,
        shown_as: str,
        modules: Mapping[str, ModuleFile],
        own: Collection[str],
        digests: Mapping[str, bytes],
        code: CodeCache,
        hosted: Collection[str] = (),
    ) -> None:
        self.bundle = bundle
        self.slug = slug
        self.name: str = f"{PARENT}.{slug}"
        self.prefix: str = f"{self.name}."
        self.folder = folder
        self._below = f"{folder}{os.sep}"
        self.shown_as = shown_as
        self.modules = modules
        self.own: frozenset[str] = frozenset(own)
        self.hosted: frozenset[str] = frozenset(hosted)
        """Modules below own packages that come from the host all the same."""
        self.digests = digests
        self.code = code
        self.released: bool = False
        self.has_hooks: bool = False
        """Whether its code has something to undo when it is let go."""
        self.loading = False
        self._host_gave: set[str] = set()
        """Top-level names of the host's modules that were imported, and looked at."""
        self._path: list[str] = []
        self._path_folders: list[str] = []
        """Folders of its own in `sys.path` when that was `_path`, as packages."""
        self.begun: dict[str, ModuleType] = {}
        """While loading: modules whose execution has begun, by logical name. `sys.modules` forgets one that fails."""
        self.executed: dict[str, ModuleType] = {}
        """Those of them that were executed to the end, in that order."""
        self.registrations: Registrations = Registrations()
        self.canary: Canary | None = Canary(slug)
        self.builtins: dict[str, object] = {
            **vars(builtins),
            "__import__": self._import,
            CANARY: self.canary,
        }
        self._shims: Shims | None = None
        self.taken: list[Replacement[object]] = []
        """Entries of the process's tables that the version's code has made or replaced."""
        self.warnings: list[str] = []
        """What the code was seen to do, at import or since, that reaches out of the version."""

    @property
    def shims(self) -> Shims:
        """What its code gets in place of some modules of the standard library; made when it first needs one."""
        if self._shims is None:
            self._shims = Shims(self)
        return self._shims

    def owns(self, name: str) -> bool:
        """Whether an absolute import of `name` by the bundle's code means a module of the bundle."""
        return name.partition(".")[0] in self.own

    def full(self, name: str) -> str:
        """Turn a name as the bundle's code writes it into the one that `sys.modules` has."""
        return self.prefix + name if self.owns(name) else name

    def logical(self, text: str) -> str:
        """Put names and paths in `text` back into those that the author of the bundle knows."""
        text = re.sub(rf"{re.escape(self.name)}(?!\w)", self.bundle, text.replace(self.prefix, ""))
        return text.replace(str(self.folder), self.shown_as)

    def module(self, logical: str) -> ModuleType:
        """Import and return a module of this version."""
        return cast("ModuleType", self.guarded(importlib.import_module, self.prefix + logical))

    def compile(self, logical: str) -> None:
        """Compile a module without importing it: its code is at hand when it is. Raises what compiling raises."""
        spec = self.find_spec(self.prefix + logical)
        if spec is not None and isinstance(spec.loader, SnapshotLoader):
            spec.loader.get_code(spec.name)

    def enter(self, table: MutableMapping[str, object], key: str, value: object, what: str) -> None:
        """Let code of the version change an entry of a table of the process: with a warning, undone at release."""
        self.taken.append(replace_item(table, key, value))
        self.warnings.append(f"the code sets {what}: all of the program gets it")

    def warn(self, text: str) -> None:
        """Add to the warnings of the version, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def host_gave(self, name: str) -> None:
        """Warn if an import of `name` gave the host's module of a file of the bundle, by an editable install of it."""
        top = name.partition(".")[0]
        if top in self._host_gave:  # each import comes here
            return
        self._host_gave.add(top)
        if top in ALWAYS_HOST:  # nobody installs these from the folder of a bundle
            return
        file = getattr(sys.modules.get(top), "__file__", None)
        if not isinstance(file, str):
            return
        below, real = f"{os.path.realpath(self.shown_as)}{os.sep}", os.path.realpath(file)
        if real.startswith(below) and real[len(below) :].replace(os.sep, "/") in self.digests:
            folder = Path(real).parent
            place = folder.parent if Path(real).stem == "__init__" else folder
            self.warn(
                f"`import {top}` gives the host's module, which it has loaded once from {place}: edits of it are not "
                f"taken up. Register {place}, where that is its name"
            )

    def guarded(self, function: Callable[..., object], *args: object) -> Any:
        """Call a function that imports; an ImportError then speaks of logical names."""
        if self.released:
            raise ImportError(
                f"bundle {self.bundle!r}: this version ({self.slug}) was released; code that still runs "
                f"from it cannot import its modules any more"
            )
        try:
            return function(*args)
        except ImportError as error:
            error.name = self.logical(error.name) if error.name else error.name
            if isinstance(error.msg, str):
                error.msg = self.logical(error.msg)
                error.args = (error.msg,)
            self.say_who_lacks(error)
            raise

    def say_who_lacks(self, error: ImportError) -> None:
        """Add to a ModuleNotFoundError whether the host or the bundle would have to have the module."""
        message = error.msg
        if not isinstance(error, ModuleNotFoundError) or not error.name or not isinstance(message, str):
            return
        if not message.endswith(LACKS):  # it passes through the imports of all modules that led to it
            lacks = f"bundle {self.bundle!r}" if self.owns(error.name) else "host"
            error.msg = f"{message} (the {lacks}{LACKS}"
            error.args = (error.msg,)

    def host_import(self, function: Callable[..., object], *args: object) -> object:
        """Call a function that imports from the host."""
        try:
            return function(*args)
        except ImportError as error:
            self.say_who_lacks(error)
            raise

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping[str, object] | None = None,  # noqa: A002 - the names of `__import__`
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> object:
        """Import as the builtin does, which is asked anew each time: a host may have replaced it."""
        plain = builtins.__import__
        if level:
            module = self.guarded(plain, name, globals, locals, fromlist, level)
            return self._checked(module, fromlist)
        if self.owns(name):
            module = self.guarded(plain, self.prefix + name, globals, locals, fromlist, 0)
            return self._checked(module, fromlist) if fromlist else self._top(name)
        if hacked := self._by_path(name):
            module = self.guarded(plain, self.prefix + hacked, globals, locals, fromlist, 0)
            top = hacked.removesuffix(name.removeprefix(name.partition(".")[0]))
            return self._checked(module, fromlist) if fromlist else sys.modules[self.prefix + top]
        try:
            module = plain(name, globals, locals, fromlist or (), 0)
        except ImportError as error:
            self.say_who_lacks(error)
            raise
        self.host_gave(name)
        if type(module) is ModuleType and getattr(module, "__name__", None) in SHIMMED:
            return self.shims.instead_of(module)
        return module

    def _by_path(self, name: str) -> str | None:
        """Return the logical name of a module that code reaches by a folder of its own in `sys.path`; None without one.

        The host would import it, once, for all versions.
        """
        if (
            sys.path == self._path and not self._path_folders
        ):  # each import comes here, the path changes seldom
            return None
        if sys.path != self._path:
            path = list(sys.path)
            own = (entry for entry in path if isinstance(entry, str) and entry.startswith(self._below))
            self._path_folders = [
                entry[len(self._below) :].strip(os.sep).replace(os.sep, ".") for entry in own
            ]
            self._path = path  # last: another thread may import meanwhile
        for folder in self._path_folders:
            if f"{folder}.{name.partition('.')[0]}" in self.modules:
                return f"{folder}.{name}"
        return None

    def _top(self, name: str) -> ModuleType:
        return sys.modules[self.prefix + name.partition(".")[0]]

    def _checked(self, module: ModuleType, names: Sequence[str] | None) -> ModuleType:
        """Raise now, in logical names, what the interpreter would raise for `from module import name` next."""
        namespace = vars(module) if type(module) is ModuleType else {"__getattr__": None}
        if "__getattr__" in namespace:  # whatever the module makes up, it shall be asked once only
            return module
        for name in names or ():
            if name == "*" or hasattr(module, name) or f"{module.__name__}.{name}" in sys.modules:
                continue
            logical = self.logical(module.__name__)
            half = getattr(module.__spec__, "_initializing", False)
            why = " (most likely due to a circular import)" if half else ""
            raise ImportError(f"cannot import name {name!r} from {logical!r}{why}", name=logical)
        return module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the version's own package or a module in it; `path` is where the package above looks for modules."""
        if fullname == self.name:
            return self._package_spec(fullname, self.folder)
        logical = fullname.removeprefix(self.prefix)
        if logical in self.hosted:
            loader = cast("importlib.machinery.SourceFileLoader", HostLoader(logical))
            return importlib.machinery.ModuleSpec(fullname, loader)
        module = self.modules.get(logical) or self._in_added_folder(logical, path or ())
        if module is None:
            return self._spec_by_own_finder(fullname, logical)
        if not module.file:
            return self._package_spec(fullname, self.folder / (module.folder or ""))
        path = f"{self._below}{module.file}"
        spec = importlib.util.spec_from_file_location(
            fullname,
            path,
            loader=SnapshotLoader(fullname, path, self, self.digests[module.file]),
            submodule_search_locations=None if module.folder is None else [f"{self._below}{module.folder}"],
        )
        if spec is not None:
            spec.cached = (
                f"{path}c"  # nobody reads or writes it, and to find its true place is a hundredth of a load
            )
        return spec

    def loader_of(self, fullname: str, path: object) -> SnapshotLoader | None:
        """Return a loader for a file of the snapshot that code loads by its path; None for any other file."""
        text = os.path.abspath(os.fspath(path)) if isinstance(path, str | os.PathLike) else ""  # noqa: PTH100 - text
        if not isinstance(text, str) or not text.startswith(self._below):
            return None
        digest = self.digests.get(text[len(self._below) :].replace(os.sep, "/"))
        return None if digest is None else SnapshotLoader(fullname, text, self, digest)

    def _in_added_folder(self, logical: str, path: Sequence[str]) -> ModuleFile | None:
        """Return the module in a folder that code has put into the `__path__` of a package."""
        for entry in path:
            if isinstance(entry, str) and entry.startswith(self._below):
                folder = entry[len(self._below) :].strip(os.sep).replace(os.sep, ".")
                if found := self.modules.get(f"{folder}.{logical.rpartition('.')[2]}"):
                    return found
        return None

    def _spec_by_own_finder(self, fullname: str, logical: str) -> importlib.machinery.ModuleSpec | None:
        """Ask the finders that the bundle's code has put into `sys.meta_path`, by the name that they know."""
        for finder in list(sys.meta_path):
            own = type(finder).__module__.startswith(self.prefix)
            find = getattr(finder, "find_spec", None) if own else None
            spec: importlib.machinery.ModuleSpec | None = find(logical, None, None) if find else None
            if spec is not None:
                spec.name = fullname
                return spec
        return None

    def _package_spec(self, fullname: str, folder: Path) -> importlib.machinery.ModuleSpec:
        """Return the spec of a package without `__init__.py`."""
        loader = cast("importlib.machinery.SourceFileLoader", FolderLoader(self, folder))
        spec = importlib.machinery.ModuleSpec(fullname, loader, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    def description(self) -> dict[str, object]:
        """Return what a child process needs to import the modules, as plain data."""
        return {
            "bundle": self.bundle,
            "slug": self.slug,
            "folder": str(self.folder),
            "shown_as": self.shown_as,
            "own": sorted(self.own),
            "hosted": sorted(self.hosted),
            "modules": {name: [module.file, module.folder] for name, module in self.modules.items()},
            "digests": {name: digest.hex() for name, digest in self.digests.items()},
        }

    @classmethod
    def described(cls, description: Mapping[str, Any], code: CodeCache) -> ModuleNamespace:
        """Return the namespace of which a parent process gave this description."""
        return cls(
            bundle=description["bundle"],
            slug=description["slug"],
            folder=Path(description["folder"]),
            shown_as=description["shown_as"],
            modules={name: ModuleFile(*module) for name, module in description["modules"].items()},
            own=description["own"],
            hosted=description["hosted"],
            digests={name: bytes.fromhex(digest) for name, digest in description["digests"].items()},
            code=code,
        )

    def let_go(self) -> None:
        """Be found no more, undo what was changed for it, and stop holding what its own code holds."""
        self.released = True
        FINDER.remove(self)
        self.code.drop(self.slug)
        for undo in reversed(self.taken):
            undo()
        self.taken.clear()
        self.begun.clear()
        self.executed.clear()
        self.canary = None
        self.builtins = {}


class SnapshotLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its snapshot. `.pyc` files are neither read nor written."""

    def __init__(self, fullname: str, path: str, namespace: ModuleNamespace, digest: bytes) -> None:
        super().__init__(fullname, path)
        self._namespace = namespace
        self._digest = digest

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - one loader, one module
        """Return the module's code, compiled from the bytes that were digested."""
        namespace = self._namespace
        return namespace.code.get(self._digest, self.path, namespace.slug) or self._compiled_anew(namespace)

    def _compiled_anew(self, namespace: ModuleNamespace) -> CodeType:
        with undisturbed():
            source = self.get_data(self.path)
            # A lazy import holds up its own thread anyhow; a load shall hold up no other.
            code = compiled(source, self.path, apart=namespace.loading)
            namespace.code.put(self._digest, code, namespace.slug)
            return code

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module with the builtins of its version."""
        namespace = self._namespace
        vars(module)["__builtins__"] = namespace.builtins
        if not namespace.loading:  # a lazy import at run time; those of a load are noted together
            with namespace.registrations.noted():
                exec(self.get_code(module.__name__), vars(module))  # noqa: S102 - this is what an import is
            return
        code, name = self.get_code(module.__name__), module.__name__.removeprefix(namespace.prefix)
        # Before, because an interruption may come at any place: what it did so far may have to be undone.
        namespace.begun[name] = module
        exec(code, vars(module))  # noqa: S102 - this is what an import is
        namespace.executed[name] = module


class FolderLoader:
    """Makes a package of a folder without `__init__.py`, whose data files can be read all the same."""

    def __init__(self, namespace: ModuleNamespace, folder: Path) -> None:
        self._namespace = namespace
        self.path: str = os.fspath(folder / "__init__.py")  # FileReader looks beside this file

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to the import system to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the package the builtins of its version; there is nothing to execute."""
        vars(module)["__builtins__"] = self._namespace.builtins

    def get_resource_reader(self, _fullname: str) -> FileReader:
        """Let `importlib.resources` read the folder."""
        from importlib.readers import FileReader  # noqa: PLC0415 - who asks has imported the rest of it

        return FileReader(cast("Any", self))


class HostLoader:
    """Stands for a module that a package of the bundle shares with the host: it gives the host's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to the import system to make one, which nobody gets."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the host's module into its place: the import system takes what stands there."""
        sys.modules[module.__name__] = importlib.import_module(self._name)


class BundleFinder:
    """Finds the modules below `scattersphere.bundles`. One for the process, whatever the number of Servers.

    It stands in `sys.meta_path` only while it has something to find.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, ModuleNamespace] = {}
        self._lock = threading.Lock()
        self._last = 0
        self._forgetfulness = Forgetfulness()
        self.attach: Callable[[str], ModuleNamespace | None] | None = None
        """In a child process: fetch a version that the parent loaded."""

    def new_slug(self, bundle: str) -> str:
        """Return a name for a new version of `bundle` that this process has never used."""
        with self._lock:
            self._last += 1
            return f"{bundle.replace('-', '_')}_g{self._last}"

    def number_apart(self) -> None:
        """In a child process: let versions that it loads itself bear other names than those of its parent."""
        # Without the lock: after a fork some thread that is not here may hold it.
        self._last = max(self._last, os.getpid() * 1_000)

    def namespace(self, slug: str) -> ModuleNamespace | None:
        """Return the loaded version of this name, or None."""
        return self._namespaces.get(slug)

    def add(self, namespace: ModuleNamespace) -> None:
        """Answer for the modules of `namespace` from now on."""
        # Not at the top: in a child process the parent package imports this module.
        importlib.import_module(PARENT)
        with self._lock:
            self._namespaces[namespace.slug] = namespace
            self.install()

    def remove(self, namespace: ModuleNamespace) -> None:
        """Answer no more; leave `sys.meta_path` with the last version."""
        with self._lock:
            self._namespaces.pop(namespace.slug, None)
            if not self._namespaces and self.attach is None and self in sys.meta_path:
                sys.meta_path.remove(self)
                self._forgetfulness.end()

    def install(self) -> None:
        """Stand first: the names below the prefix are nobody else's."""
        self._forgetfulness.begin()
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Implement `importlib.abc.MetaPathFinder`. Ends a load that was given up, whatever module it looks for."""
        load = getattr(HERE, "job", None)
        if load is not None and load.abandoned:
            load.end_if_given_up()
        if not fullname.startswith(f"{PARENT}."):
            return None
        slug = fullname[len(PARENT) + 1 :].partition(".")[0]
        namespace = self._namespaces.get(slug)
        if namespace is None and self.attach is not None:
            namespace = self.attach(slug)
            if namespace is not None:
                self._namespaces[slug] = namespace
        return None if namespace is None else namespace.find_spec(fullname, path)

    def find_distributions(self, context: DistributionFinder.Context) -> list[Distribution]:
        """Give a version's own code that asks, as the backport `importlib_metadata` does, what its bundle brings."""
        canary = sys._getframe(1).f_builtins.get(CANARY)  # noqa: SLF001 - nothing else tells who asks
        namespace = self._namespaces.get(canary.slug) if isinstance(canary, Canary) else None
        if namespace is None or "path" in vars(context):
            return []
        from scattersphere.registry.modules.metadata_shims import own_distributions  # noqa: PLC0415 - seldom needed

        wanted = None if context.name is None else normal_name(context.name)
        return [found for name, found in own_distributions(namespace) if wanted in {None, name}]


FINDER = BundleFinder()
"""The one process-wide object: names in `sys.modules` are process-wide."""

# The parent of every version must be there. Last, because in a child process it asks this module for the finder.
import scattersphere.bundles  # noqa: E402, F401

_SLUG = re.compile(r"\bscattersphere\.bundles\.([A-Za-z0-9_]+)|[/\\]([a-z][a-z0-9_]*_g[0-9]+)[/\\]root[0-9]")
"""A version's name as it stands in module names, and in the paths of its snapshot."""

_PREFIX = re.compile(r"\bscattersphere\.bundles\.[A-Za-z0-9_]+\.")


def logical(text: str) -> str:
    """Put the module names and snapshot paths in `text` back into those that the author knows.

    The path becomes that of the origin, whatever stands there by now. Of versions that were released, only
    the prefix of module names is taken out.
    """
    if "_g" not in text:  # most log lines; no version has a name without it
        return text
    namespaces: dict[str, ModuleNamespace] = {}
    for match in _SLUG.finditer(text):
        slug = match[1] or match[2]
        if slug not in namespaces and (namespace := FINDER.namespace(slug)) is not None:
            namespaces[slug] = namespace
    for namespace in namespaces.values():
        text = namespace.logical(text)
    return _PREFIX.sub("", text)

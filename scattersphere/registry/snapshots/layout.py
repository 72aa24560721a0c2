"""The modules and packages that a bundle holds, told from the list of its files alone. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase, translate
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

EXTENSION_SUFFIXES = (".so", ".pyd")
"""Endings of compiled modules, of this platform or another one."""

ALWAYS_HOST = frozenset(sys.stdlib_module_names) | {"scattersphere"}
"""Top-level names that a bundle never takes over: `import email` means the standard library."""

UNSCANNED = ("__main__", "setup", "conftest", "tests", "test_*")
"""Names of modules and packages that are never imported to look for tasks."""

_UNSCANNED = re.compile("|".join(translate(pattern) for pattern in UNSCANNED))

PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
"""What makes a project of a folder."""

BESIDE_A_PROJECT = frozenset({"docs", "doc", "noxfile"})
"""Top-level names in the folder of a project that are not searched for tasks: Sphinx runs `docs/conf.py`, we do not."""


@attrs.frozen
class ModuleFile:
    """Where a module's source lies in the snapshot. `file` is "" for a package without `__init__.py`."""

    file: str
    folder: str | None
    """The package's folder; None for a plain module."""


@attrs.frozen(kw_only=True)
class ModuleLayout:
    """The modules of a bundle by their logical name, and what their top-level names mean."""

    modules: Mapping[str, ModuleFile]
    tops: frozenset[str]
    """All importable top-level names."""
    compiled: Mapping[str, str]
    """Names that contain C extensions, each with one of the files: top-level ones, or, in a package without
    `__init__.py`, which many distributions may share, those below it (`acme.fast`)."""
    dependencies: frozenset[str]
    """Top-level names of vendored distributions: importable, never searched for tasks."""
    beside: frozenset[str] = frozenset()
    """Top-level names that lie beside the code of a project: importable, not searched for tasks."""

    own: frozenset[str] = attrs.field(
        default=attrs.Factory(
            lambda layout: layout.tops - ALWAYS_HOST - layout.compiled.keys(), takes_self=True
        ),
        init=False,
    )
    """Top-level names that resolve inside the bundle rather than in the host, but for those that are to be shared."""
    shadowed: frozenset[str] = attrs.field(
        default=attrs.Factory(
            lambda layout: (layout.tops & ALWAYS_HOST) - layout.dependencies, takes_self=True
        ),
        init=False,
    )
    """Own modules whose absolute import gives the host's module of that name."""

    def is_compiled(self, name: str) -> bool:
        """Whether a module comes from the host, as it has C code or lies in something that has."""
        parts = name.split(".") if self.compiled else []
        return any(".".join(parts[:depth]) in self.compiled for depth in range(1, len(parts) + 1))

    def scanned(self, exclude: Iterable[str] = (), shared: Iterable[str] = ()) -> Iterator[str]:
        """Yield the modules to import in search of tasks; parents come before their children.

        `exclude` holds patterns of logical names: `etl.legacy`, `*.experiments`. What always comes from
        the host (`shared`, C extensions, a copy of this library) is not looked at.
        """
        patterns = tuple(exclude)
        passed_over = self.dependencies | self.beside | self.compiled.keys() | {"scattersphere", *shared}
        for name in sorted(self.modules):
            parts = name.split(".")
            if parts[0] in passed_over or not self.modules[name].file or self.is_compiled(name):
                continue
            if any(_UNSCANNED.match(part) for part in parts):
                continue
            if not patterns:
                yield name
                continue
            prefixes = [".".join(parts[: end + 1]) for end in range(len(parts))]
            if not any(fnmatchcase(prefix, pattern) for prefix in prefixes for pattern in patterns):
                yield name


def lay_out(
    files: Collection[str], records: Mapping[str, str] | None = None, *, bundle: str = ""
) -> ModuleLayout:
    """Find the modules among `files` (relative, with slashes).

    `records` maps the `*.dist-info` folders to the text of their RECORD. The distribution that is the
    bundle itself records no dependencies: the one of its name, or the only one if it holds all there is.
    """
    modules: dict[str, ModuleFile] = {}
    extensions: dict[str, str] = {}
    for file in sorted(files):
        folder, _, base = file.rpartition("/")
        stem, dot, ending = base.rpartition(".")
        top = file.partition("/")[0].partition(".")[0]
        if f".{ending}" in EXTENSION_SUFFIXES and stem and top.isidentifier():
            extensions.setdefault(".".join([*filter(None, folder.split("/")), stem.partition(".")[0]]), file)
        elif dot and ending == "py":
            parts = folder.split("/") if folder else []
            if stem.isidentifier() and all(part.isidentifier() for part in parts):
                _add_module(modules, file, parts, stem)
    # What lies in a folder beside a module of the folder's name cannot be imported.
    reachable = {name: module for name, module in modules.items() if _is_reachable(name, modules)}
    compiled: dict[str, str] = {}
    for name, file in extensions.items():
        compiled.setdefault(_distributed_as(name, reachable), file)
    tops = frozenset(name.partition(".")[0] for name in (*reachable, *compiled))
    dependencies = _dependencies(records or {}, bundle, tops) & tops
    beside = BESIDE_A_PROJECT if not set(PROJECT_FILES).isdisjoint(files) else frozenset[str]()
    return ModuleLayout(
        modules=reachable, tops=tops, compiled=compiled, dependencies=dependencies, beside=beside
    )


def _distributed_as(name: str, modules: Mapping[str, ModuleFile]) -> str:
    """Return the nearest name above a C extension that one distribution has for itself."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        above = ".".join(parts[:depth])
        if above not in modules or modules[above].file:
            return above
    return name


def _add_module(modules: dict[str, ModuleFile], file: str, folders: list[str], stem: str) -> None:
    """Add one source file; a package beats a module of its name, as Python has it."""
    package = ".".join(folders)
    if package and package not in modules:  # folders without __init__.py are packages too
        for depth in range(1, len(folders) + 1):
            modules.setdefault(".".join(folders[:depth]), ModuleFile("", "/".join(folders[:depth])))
    if stem == "__init__":
        if package:
            modules[package] = ModuleFile(file, "/".join(folders))
        return
    name = f"{package}.{stem}" if package else stem
    taken = modules.get(name)
    if taken is None or not taken.file:  # only a real package stands before the module
        modules[name] = ModuleFile(file, None)


def _is_reachable(name: str, modules: Mapping[str, ModuleFile]) -> bool:
    parent = name.rpartition(".")[0]
    return not parent or (modules[parent].folder is not None and _is_reachable(parent, modules))


def normal_name(distribution: str) -> str:
    """Return a distribution's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _dependencies(records: Mapping[str, str], bundle: str, tops: frozenset[str]) -> frozenset[str]:
    names = {folder: normal_name(folder.removesuffix(".dist-info").split("-")[0]) for folder in records}
    recorded = set()
    for folder, name in names.items():
        if name != normal_name(bundle):
            for line in records[folder].splitlines():
                recorded.add(line.split(",")[0].strip('"').split("/")[0].partition(".")[0])
    itself = len(records) == 1 and tops <= recorded  # a wheel under another name than its own
    return frozenset() if itself else frozenset(recorded)

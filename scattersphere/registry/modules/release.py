"""Letting go of a version: everything in the interpreter that names it or holds it.

The dicts of its modules are never cleared: a thread that still runs code of the version must be able to
go on.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import sys
import typing
from typing import TYPE_CHECKING, Any

from scattersphere.registry.modules.leak_checks import Suspect
from scattersphere.registry.modules.namespace import FINDER, PARENT, ModuleNamespace, clear_typing_caches

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def release(namespace: ModuleNamespace) -> None:
    """Forget the version, as the import system and the standard library know it. Takes about 1 ms."""
    FINDER.remove(namespace)
    namespace.code.drop(namespace.slug)
    _forget_modules(namespace)
    _forget_sources(namespace)
    _forget_loggers(namespace)
    # Overloads are kept by module name, with strong references.
    _drop_keys(getattr(typing, "_overload_registry", {}), namespace.prefix)
    clear_typing_caches()
    suspect = Suspect(namespace.slug, namespace.prefix, namespace.logical)
    namespace.registrations.take_out(suspect)
    for entry in [entry for entry in sys.path if str(entry).startswith(str(namespace.folder))]:
        sys.path.remove(entry)
    for undo in reversed(namespace.taken):
        undo()
    namespace.let_go()


def _drop_keys(table: MutableMapping[str, Any], prefix: str) -> None:
    # A copy made by one C call: other threads may import meanwhile.
    for key in [key for key in list(table) if key.startswith(prefix)]:
        table.pop(key, None)


def _forget_modules(namespace: ModuleNamespace) -> None:
    _drop_keys(sys.modules, namespace.prefix)
    sys.modules.pop(namespace.name, None)
    vars(sys.modules[PARENT]).pop(namespace.slug, None)


def _forget_sources(namespace: ModuleNamespace) -> None:
    """Forget source lines, and what `inspect` and `pkgutil` noted of the files."""
    folder = str(namespace.folder)
    for name in list(linecache.cache):
        # attrs writes an entry for each method it makes, and names the class in it.
        if name.startswith(folder) or namespace.prefix in name:
            linecache.cache.pop(name, None)
    _drop_keys(sys.path_importer_cache, folder)
    _drop_keys(vars(inspect)["_filesbymodname"], namespace.prefix)
    vars(inspect)["_filesbymodname"].pop(namespace.name, None)
    _drop_keys(vars(inspect)["modulesbyfile"], folder)


def _forget_loggers(namespace: ModuleNamespace) -> None:
    """Forget the loggers of the version's modules, and that their parents have them as children."""
    loggers = logging.Logger.manager.loggerDict
    _drop_keys(loggers, namespace.prefix)
    loggers.pop(namespace.name, None)
    parent = PARENT
    while parent:
        holder = loggers.get(parent)
        if isinstance(holder, logging.PlaceHolder):
            children: dict[logging.Logger, None] = vars(holder)["loggerMap"]
            for child in list(children):
                if child.name == namespace.name or child.name.startswith(namespace.prefix):
                    children.pop(child, None)
            if not children:
                loggers.pop(parent, None)
        parent = parent.rpartition(".")[0]

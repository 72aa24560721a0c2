"""Releasing a version: its hooks, then everything in the interpreter that names it or holds it.

Hooks are functions of its modules that give back what only one version can have. `on_supersede` is called before a
newer version is imported, `on_release` when the version is let go. Over a reload: the new files are read, and compiled;
if no run pins the old version, its `on_supersede` is called; the new modules are imported; the new version becomes
current; when no run pins the old one, its `on_release` is called. If the import fails, what `on_supersede` returned is
called, and the old version stays.

The dicts of its modules are never cleared: a thread that still runs code of the version must be able to
go on.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import sys
import threading
import time
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.errors import BundleLoadError
from scattersphere.registry.failures import formatted, stack_of
from scattersphere.registry.modules.namespace import PARENT, ModuleNamespace
from scattersphere.registry.modules.registrations import Canary, Suspect, clear_typing_caches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
    from types import ModuleType

    Hook = Callable[[], object]

ON_RELEASE = "on_release"
ON_SUPERSEDE = "on_supersede"

HOOK_LIMIT = 5.0
"""Seconds that the hooks of one version have together."""

_log = logging.getLogger("scattersphere.registry")


def hooks_of(modules: Mapping[str, ModuleType], called: str) -> list[Hook]:
    """Return the functions of that name in `modules`, in the order in which they are to be called.

    The last imported module comes first, as with everything that is undone. Raises BundleLoadError
    for one that cannot be called so.
    """
    hooks: list[Hook] = []
    for name, module in modules.items():
        hook = vars(module).get(called)
        if not isinstance(hook, types.FunctionType) or hook.__module__ != module.__name__:
            continue  # something else of that name, or imported from the module that defines it
        if inspect.iscoroutinefunction(hook):
            raise BundleLoadError(
                f"{name}.{called} is async: it is called in a thread, so make it a plain def"
            )
        try:
            inspect.signature(hook).bind()
        except TypeError as error:
            raise BundleLoadError(f"{name}.{called} is called without arguments: {error}") from None
        hooks.append(hook)
    return hooks[::-1]


def call_hooks(
    hooks: Iterable[Hook],
    namespace: ModuleNamespace,
    called: str,
    returned: list[object] | None = None,
    *,
    limit: float = HOOK_LIMIT,
) -> threading.Thread | None:
    """Call the hooks in a thread of their own; return it if they are not done in time.

    What a hook raises is logged, and the others are called all the same; what they return is added to
    `returned`. In a thread, because a hook that never returns must not stop the loader.
    """
    todo = list(hooks)
    if not todo:
        return None
    thread = threading.Thread(
        target=_call_all,
        args=[todo, namespace, called, [] if returned is None else returned],
        name=f"scattersphere-release-{namespace.bundle}",
        daemon=True,
    )
    thread.start()
    thread.join(limit)
    if not thread.is_alive():
        return None
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented, the only way
    _log.warning(
        "bundle %r: %s has not returned after %g s:\n%s",
        namespace.bundle,
        called,
        limit,
        stack_of(frame, namespace),
    )
    return thread


def _call_all(hooks: Sequence[Hook], namespace: ModuleNamespace, called: str, returned: list[object]) -> None:
    for hook in hooks:
        try:
            returned.append(hook())
        except BaseException as error:  # noqa: BLE001 - code of a bundle may raise anything, SystemExit too
            # As text: a handler may keep the record, and an exception holds the whole version.
            _log.warning("bundle %r: %s failed\n%s", namespace.bundle, called, formatted(error, namespace))


# ---- what the interpreter knows of it


def release(namespace: ModuleNamespace) -> None:
    """Forget the version, as the import system and the standard library know it. Takes about 1 ms."""
    namespace.let_go()
    suspect = Suspect(namespace.slug, namespace.prefix, namespace.logical)
    texts = _has_classes_of_text(namespace, suspect)
    _forget_modules(namespace)
    _forget_sources(namespace)
    _forget_loggers(namespace)
    # Overloads are kept by module name, with strong references.
    _drop_keys(getattr(typing, "_overload_registry", {}), namespace.prefix)
    clear_typing_caches()
    namespace.registrations.take_out(suspect, texts=texts)
    for entry in [entry for entry in sys.path if str(entry).startswith(str(namespace.folder))]:
        sys.path.remove(entry)


def _drop_keys(table: MutableMapping[str, Any], prefix: str) -> None:
    # A copy made by one C call: other threads may import meanwhile.
    for key in [key for key in list(table) if key.startswith(prefix)]:
        table.pop(key, None)


def _has_classes_of_text(namespace: ModuleNamespace, suspect: Suspect) -> bool:
    """Whether its modules define classes of strings, a StrEnum say."""
    return any(
        issubclass(cls, str | bytes) and suspect.owns(cls)
        for name in namespace.modules
        for cls in [v for v in list(_contents(namespace.prefix + name)) if isinstance(v, type)]
    )


def _contents(module: str) -> Collection[object]:
    there: dict[str, object] = getattr(sys.modules.get(module), "__dict__", {})
    return there.values()


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


# ---- whether it vanishes


@attrs.define(eq=False)
class ReleasedVersion:
    """A version that was let go; its canary lives as long as its code can be reached."""

    bundle: str
    label: str
    suspect: Suspect
    canary: weakref.ref[Canary]
    at: float
    warned: bool = False


class ReleasedVersions:
    """The versions that were released and have not been seen to vanish."""

    def __init__(self) -> None:
        self._released: dict[int, ReleasedVersion] = {}
        self._count = 0

    def add(self, label: str, namespace: ModuleNamespace) -> None:
        """Watch a version; call it just before the version is released."""
        if namespace.canary is None:
            return
        self._count += 1
        table, number = self._released, self._count
        # Called by the collector, in whatever thread it runs: one atomic step, and no version is kept waiting.
        canary = weakref.ref(namespace.canary, lambda _: table.pop(number, None))
        suspect = Suspect(namespace.slug, namespace.prefix, namespace.logical)
        table[number] = ReleasedVersion(namespace.bundle, label, suspect, canary, time.monotonic())

    def warn(self, began: float) -> None:
        """Log, once for each, the versions that were there before a collection `began` and have outlived it."""
        for released in list(self._released.values()):
            if not released.warned and released.at < began:
                released.warned = True
                _log.warning(
                    "bundle version %s was released but is still in memory; "
                    "registry.leaks(%r) names what holds it",
                    released.label,
                    released.bundle,
                )

    def of(self, bundle: str) -> list[ReleasedVersion]:
        """Return the released versions of a bundle that are still there."""
        return [released for released in list(self._released.values()) if released.bundle == bundle]

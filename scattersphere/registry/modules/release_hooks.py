"""The hooks of a version: functions of its modules that give back what only one version can have.

`on_supersede` is called before a newer version is imported, `on_release` when the version is let go. Over a reload: the
new files are read, and compiled; if no run pins the old version, its `on_supersede` is called; the new modules are
imported; the new version becomes current; when no run pins the old one, its `on_release` is called. If the import
fails, the functions that `on_supersede` returned are called, and the old version stays.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import types
from typing import TYPE_CHECKING

from scattersphere.errors import BundleLoadError
from scattersphere.registry.failures import formatted, stack_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    from scattersphere.registry.modules.namespace import ModuleNamespace

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

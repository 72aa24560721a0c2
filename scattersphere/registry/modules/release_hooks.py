"""The `on_release` hooks of a version: functions by which a bundle undoes what it did when it was imported."""

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

NAME = "on_release"

HOOK_LIMIT = 5.0
"""Seconds that the hooks of one version have together."""

_log = logging.getLogger("scattersphere.registry")


def release_hooks(modules: Mapping[str, ModuleType]) -> list[Hook]:
    """Return the functions `on_release` of `modules`, in the order in which they are to be called.

    The last imported module comes first, as with everything that is undone. Raises BundleLoadError
    for one that cannot be called so.
    """
    hooks: list[Hook] = []
    for name, module in modules.items():
        hook = vars(module).get(NAME)
        if not isinstance(hook, types.FunctionType) or hook.__module__ != module.__name__:
            continue  # something else of that name, or imported from the module that defines it
        if inspect.iscoroutinefunction(hook):
            raise BundleLoadError(f"{name}.{NAME} is async: it is called in a thread, so make it a plain def")
        try:
            inspect.signature(hook).bind()
        except TypeError as error:
            raise BundleLoadError(f"{name}.{NAME} is called without arguments: {error}") from None
        hooks.append(hook)
    return hooks[::-1]


def call_hooks(
    hooks: Iterable[Hook], namespace: ModuleNamespace, *, limit: float = HOOK_LIMIT
) -> threading.Thread | None:
    """Call the hooks in a thread of their own; return it if they are not done in time.

    What a hook raises is logged, and the others are called all the same. In a thread, because a
    hook that never returns must not stop the loader.
    """
    todo = list(hooks)
    if not todo:
        return None
    thread = threading.Thread(
        target=_call_all,
        args=[todo, namespace],
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
        NAME,
        limit,
        stack_of(frame, namespace),
    )
    return thread


def _call_all(hooks: Sequence[Hook], namespace: ModuleNamespace) -> None:
    for hook in hooks:
        try:
            hook()
        except BaseException as error:  # noqa: BLE001 - code of a bundle may raise anything, SystemExit too
            # As text: a handler may keep the record, and an exception holds the whole version.
            _log.warning("bundle %r: %s failed\n%s", namespace.bundle, NAME, formatted(error, namespace))

"""The keyword arguments of a Server, checked before anything is made from them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec

from scattersphere.errors import ArgumentError
from scattersphere.model.arguments import (
    check_count,
    check_mapping,
    check_pools,
    check_seconds,
    check_text,
    describe,
)
from scattersphere.model.taskclass import LOOP
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.watching.debounce import WatchDelays

P = ParamSpec("P")
_COUNTS: Mapping[str, tuple[int, bool]] = {
    "threads": (1, True),
    "processes": (1, True),
    "max_parallel": (1, True),
    "max_runs": (1, True),
    "queue_limit": (0, False),
    "log_limit": (1, False),
    "keep_events": (0, False),
}
"""The least value of each count, and whether it may be None."""
_BACKEND_METHODS = ("open", "start", "aclose")


def checked(construct: Callable[P, None]) -> Callable[P, None]:
    """Have the keyword arguments of `Server.__init__` checked before it is called."""
    signature = inspect.signature(construct)

    @functools.wraps(construct)
    def checking(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            pass  # an unknown keyword: the call below says so in Python's own words
        else:
            bound.apply_defaults()
            check_settings(bound.arguments)
        construct(*args, **kwargs)

    return checking


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `TypeError` or `ArgumentError` for the first setting that cannot be meant."""
    for name, (least, optional) in _COUNTS.items():
        check_count(settings[name], name, least=least, optional=optional)
    check_seconds(settings["grace"], "grace")
    check_seconds(settings["load_timeout"], "load_timeout", endless=True)
    check_seconds(settings["blocked_after"], "blocked_after", optional=True, endless=True)
    check_pools(settings["pools"])
    _check_history(settings["history"])
    _check_backends(settings["backends"])
    _check_folder(settings["log_folder"])
    for name in ("bundle_roots", "shared", "capture_loggers"):
        _check_several(settings[name], name)
    if not isinstance(settings["bundle_limits"], SourceLimits):
        limits = describe(settings["bundle_limits"])
        raise TypeError(f"bundle_limits is SourceLimits(...), not {limits}")
    if not isinstance(settings["watch"], bool | WatchDelays):
        raise TypeError(f"watch is True, False or WatchDelays(...), not {describe(settings['watch'])}")


def _check_folder(folder: object) -> None:
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise TypeError(f"log_folder is the path of a folder or None, not {describe(folder)}")


def _check_history(history: object) -> None:
    if not isinstance(history, tuple | list) or len(history) != len(("count", "seconds")):
        raise TypeError(f"history is (count, seconds), like (1000, 86400), not {describe(history)}")
    check_count(history[0], "history: the count of ended runs", least=0)
    check_seconds(history[1], "history: their age", endless=True)


def _check_backends(backends: object) -> None:
    check_mapping(backends, "backends")
    for name, backend in dict(backends or {}).items():  # type: ignore[call-overload]
        check_text(name, "the name of a backend")
        if name == LOOP:
            raise ArgumentError('backends: "loop" is the event loop itself; choose another name')
        missing = [method for method in _BACKEND_METHODS if not callable(getattr(backend, method, None))]
        if missing or not hasattr(backend, "limit"):
            lacks = ", ".join(missing or ["limit"])
            raise TypeError(f"backends: {name!r} is no Backend but {describe(backend)}; it lacks {lacks}")


def _check_several(value: object, name: str) -> None:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is a list, not {describe(value)}")

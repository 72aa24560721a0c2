"""The usual places in which code of a released version is left behind, each looked at by one function."""

from __future__ import annotations

import atexit
import codecs
import copyreg
import encodings
import gc
import inspect
import logging
import signal
import sys
import threading
import types
import warnings
import weakref
from typing import TYPE_CHECKING, Any, cast

from scattersphere.registry.modules.namespace import logical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scattersphere.registry.modules.registrations import Suspect

    Finding = tuple[str, str]


def probe(suspect: Suspect) -> list[Finding]:
    """Return (kind, where) of everything of the version that is found in the usual places."""
    return [finding for look in PROBES for finding in look(suspect)]


def _threads(suspect: Suspect) -> Iterator[Finding]:
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        while frame is not None and not suspect.runs(frame):
            frame = frame.f_back
        if frame is not None:
            yield "thread", f"{thread.name!r} is executing {suspect.line(frame)}"
            continue
        # The target of a thread, the function of a Timer, or the thread's own class.
        own = next((part for part in (thread, *vars(thread).values()) if suspect.owns(part)), None)
        if own is not None:
            yield "thread", f"{thread.name!r} will execute {suspect.name(own)}"


def _local_variables(suspect: Suspect) -> Iterator[Finding]:
    """Variables of functions that are being executed: gc does not see into these."""
    for top in sys._current_frames().values():  # noqa: SLF001 - documented, in spite of its name
        frame: types.FrameType | None = top
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if not suspect.runs(frame) and not str(module).startswith("scattersphere.registry."):
                yield from _held_by(frame, suspect)
            frame = frame.f_back


def _held_by(frame: types.FrameType, suspect: Suspect) -> Iterator[Finding]:
    variables = frame.f_locals
    for name, value in list(variables.items()):
        if suspect.owns(value):
            yield "frame", f"{suspect.line(frame)}, variable {name!r}: {suspect.name(value)}"
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        # Here f_locals is a copy that the frame keeps: our looking must not make things live longer.
        variables.clear()


def _suspended(suspect: Suspect) -> Iterator[Finding]:
    """Coroutines and generators that wait: asyncio's and trio's tasks are among them."""
    kinds = (
        (types.CoroutineType, "coroutine", "cr_frame"),
        (types.AsyncGeneratorType, "asynchronous generator", "ag_frame"),
        (types.GeneratorType, "generator", "gi_frame"),
    )
    for thing in gc.get_objects():
        for cls, kind, attribute in kinds:
            if isinstance(thing, cls):
                frame = getattr(thing, attribute)
                if frame is not None and suspect.runs(frame):
                    yield kind, f"suspended at {suspect.line(frame)}"


def _signals(suspect: Suspect) -> Iterator[Finding]:
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler) and suspect.owns(handler):
            yield "signal handler", f"{signal.Signals(number).name}: {suspect.name(handler)}"


def _logging(suspect: Suspect) -> Iterator[Finding]:
    loggers = [logging.root, *list(logging.Logger.manager.loggerDict.values())]
    for logger in loggers:
        if not isinstance(logger, logging.Logger):
            continue
        for handler in logger.handlers:
            parts = (handler, handler.formatter, *handler.filters)
            own = next((part for part in parts if suspect.owns(part)), None)
            if own is not None:
                yield "logging handler", f"{suspect.name(own)} on the logger {logger.name!r}"
        for added in logger.filters:
            if suspect.owns(added):
                yield "logging filter", f"{suspect.name(added)} on the logger {logger.name!r}"


SINGLE_HOOKS = (
    ("sys", "excepthook"),
    ("sys", "unraisablehook"),
    ("sys", "displayhook"),
    ("sys", "breakpointhook"),
    ("threading", "excepthook"),
    ("warnings", "showwarning"),
)


def _interpreter_hooks(suspect: Suspect) -> Iterator[Finding]:
    for module, name in SINGLE_HOOKS:
        if suspect.owns(hook := getattr(sys.modules[module], name, None)):
            yield "hook", f"{module}.{name} = {suspect.name(hook)}"
    lists: tuple[tuple[str, list[Any]], ...] = (
        ("sys.meta_path", sys.meta_path),
        ("sys.path_hooks", sys.path_hooks),
        ("gc.callbacks", gc.callbacks),
    )
    for place, hooks in lists:
        for hook in hooks:
            if suspect.owns(hook):
                yield "hook", f"{suspect.name(hook)} in {place}"


def _tables(suspect: Suspect) -> Iterator[Finding]:
    """Tables of the standard library in which a class or function may be entered."""
    for key, reducer in list(copyreg.dispatch_table.items()):
        if suspect.owns(key) or suspect.owns(reducer):
            yield "pickle reducer", f"copyreg.dispatch_table[{suspect.name(key)}]"
    for category in list(warnings.filters):
        if suspect.owns(category[2]):
            yield "warnings filter", f"for the category {suspect.name(category[2])}"
    registry: dict[Any, Any] = vars(weakref.finalize).get("_registry", {})
    for entry in list(registry.values()):
        parts = (entry.func, *(entry.args or ()), *(entry.kwargs or {}).values())
        own = next((part for part in parts if suspect.owns(part)), None)
        if own is not None:
            yield "finalizer", f"weakref.finalize of {suspect.name(own)}"


class _Spy:
    """Compares unequal with everything, and remembers what it was compared with."""

    __hash__ = object.__hash__

    def __init__(self) -> None:
        self.seen: list[object] = []

    def __eq__(self, other: object) -> bool:
        self.seen.append(other)
        return False


def _atexit(suspect: Suspect) -> Iterator[Finding]:
    """Functions that are called when the process ends. They lie in C; `unregister` compares each with what it gets."""
    spy = _Spy()
    atexit.unregister(cast("Callable[..., object]", spy))
    for function in spy.seen:
        if suspect.owns(function):
            yield "atexit function", suspect.name(function)


def _codecs(suspect: Suspect) -> Iterator[Finding]:
    """Search functions and error handlers. The lists lie in C, and are found by what is always in them."""
    for functions in gc.get_referrers(encodings.search_function):
        if type(functions) is list and functions[0] is encodings.search_function:
            for function in functions:
                if suspect.owns(function):
                    yield "codec", f"the search function {suspect.name(function)}"
    for table in gc.get_referrers(codecs.lookup_error("backslashreplace")):
        if type(table) is dict and table.get("strict") is codecs.lookup_error("strict"):
            for name, function in list(table.items()):
                if suspect.owns(function):
                    yield "codec", f"the error handler {name!r}: {suspect.name(function)}"


def _patches(suspect: Suspect) -> Iterator[Finding]:
    """Globals of other modules, and attributes of their classes, that the bundle replaced or added."""
    for name, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType):
            continue
        if suspect.owns(module):
            yield "module entry", f"sys.modules[{name!r}]"
            continue
        for key, value in list(vars(module).items()):
            if (name, key) in SINGLE_HOOKS:
                continue
            if isinstance(value, types.FunctionType | type) and suspect.owns(value):
                yield "global", f"{logical(name)}.{key} = {suspect.name(value)}"
            elif isinstance(value, type) and value.__module__ == name:
                for attribute, method in list(vars(value).items()):
                    if isinstance(method, types.FunctionType) and suspect.owns(method):
                        yield "patched method", f"{name}.{key}.{attribute} = {suspect.name(method)}"


PROBES: tuple[Callable[[Suspect], Iterator[Finding]], ...] = (
    _threads,
    _local_variables,
    _suspended,
    _signals,
    _logging,
    _interpreter_hooks,
    _tables,
    _atexit,
    _codecs,
    _patches,
)

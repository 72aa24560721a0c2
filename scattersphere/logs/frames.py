"""Stack frames: which belong to the user, and how a place in the code is named for people."""

from __future__ import annotations

import concurrent.futures
import inspect
import itertools
import opcode
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from scattersphere.registry.modules.namespace import logical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from traceback import FrameSummary
    from types import FrameType, TracebackType

_PACKAGE = Path(__file__).resolve().parents[1]
_ENGINE = f"{_PACKAGE}/"
_NOT_ENGINE = tuple(f"{_PACKAGE}/{part}" for part in ("tasks/", "ext/", "testing/bodies.py"))
_LIBRARIES: tuple[str, ...] = tuple(
    f"{folder}/"
    for key in ("stdlib", "platstdlib", "purelib", "platlib")
    for folder in [sysconfig.get_path(key)]
    if folder is not None
)
_PLUMBING = tuple(f"{Path(str(module.__file__)).parent}/" for module in (anyio, concurrent.futures))
_DEEPEST = 10_000
"""Frames looked at: a place is wanted at once, also of a body that recurses without end."""


def logical_names(text: str) -> str:
    """Put module names and paths of bundle versions in `text` back into those that their author knows."""
    return logical(text)


def clear_locals(exc: BaseException, traceback: TracebackType | None) -> None:
    """Let go of what the locals hold of all frames that an exception has come through and that have ended.

    Not `traceback.clear_frames`: up to Python 3.12 that closes a coroutine or generator which has caught the exception
    long ago, and kept it for others to raise, and is suspended now. And a frame holds its caller, too.
    """
    seen: set[int] = set()
    todo: list[tuple[BaseException, TracebackType | None]] = [(exc, traceback)]
    while todo:
        each, trace = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        while trace is not None:
            _clear_frames(trace.tb_frame, seen)
            trace = trace.tb_next
        todo.extend((other, _TRACEBACK(other)) for other in _others_of(each))


def _others_of(exc: BaseException) -> list[BaseException]:
    """Return what an exception came of, and has in it."""
    # Not by the names of an exception of a user's, which may be properties that raise.
    others = [other for other in (_CAUSE(exc), _CONTEXT(exc)) if other is not None]
    return [*others, *(_MEMBERS(exc) if issubclass(type(exc), BaseExceptionGroup) else ())]


_CAUSE: Callable[[BaseException], BaseException | None] = vars(BaseException)["__cause__"].__get__
_CONTEXT: Callable[[BaseException], BaseException | None] = vars(BaseException)["__context__"].__get__
_TRACEBACK: Callable[[BaseException], TracebackType | None] = vars(BaseException)["__traceback__"].__get__
_MEMBERS: Callable[[BaseException], tuple[BaseException, ...]] = vars(BaseExceptionGroup)[
    "exceptions"
].__get__


def _clear_frames(frame: FrameType | None, seen: set[int]) -> None:
    """Clear a frame and those that have called it, up to the first that executes, or was seen."""
    while frame is not None and id(frame) not in seen:
        seen.add(id(frame))
        if not _may_be_suspended(frame):
            try:
                frame.clear()
            except RuntimeError:  # it executes, and so do those that have called it
                return
        frame = frame.f_back


def _may_be_suspended(frame: FrameType) -> bool:
    code = frame.f_code
    return (
        sys.version_info < (3, 13)  # from then on a suspended one is not cleared, either
        and bool(code.co_flags & _SUSPENDABLE)
        and code.co_code[frame.f_lasti] == _YIELD
    )


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_YIELD = opcode.opmap["YIELD_VALUE"]


def is_engine_file(filename: str) -> bool:
    """Whether a source file is the engine's. Stock tasks and extras count as a user's code."""
    return filename.startswith(_ENGINE) and not filename.startswith(_NOT_ENGINE)


def is_between(filename: str) -> bool:
    """Whether a source file is that of a library through which a thread has the loop do something."""
    return filename.startswith(_PLUMBING)


def without_engine(frames: Iterable[FrameSummary]) -> list[FrameSummary]:
    """Leave out the engine's frames, and those of libraries through which it calls itself."""
    kept: list[FrameSummary] = []
    between: list[FrameSummary] | None = None
    for frame in frames:
        if is_engine_file(frame.filename):
            between = []
        elif between is not None and is_between(frame.filename):
            between.append(frame)
        else:
            kept += (*(between or ()), frame)
            between = None
    return [*kept, *(between or ())]


def past_engine(traceback: TracebackType | None) -> TracebackType | None:
    """Return where a traceback leaves the engine; it as it is where it goes on in a library that calls the engine.

    `without_engine` leaves out the same frames, when they are summed up: to find the place in a function as long as
    that which calls bodies takes the standard library 20 microseconds or more, a quarter of what a failure costs.
    """
    rest = traceback
    while rest is not None and is_engine_file(rest.tb_frame.f_code.co_filename):
        rest = rest.tb_next
    return traceback if rest is not None and is_between(rest.tb_frame.f_code.co_filename) else rest


def user_place(frame: FrameType | None) -> str:
    """Name the innermost line of the user's own code on a stack: `etl/load.py:12 in run`.

    A body that waits inside a library is named by its own line, not by the library's; where there
    is none, by the library's. "" if the stack holds nothing but the engine.
    """
    return user_place_in(_callers(frame))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def user_place_in(frames: Iterable[FrameType]) -> str:
    """Do the same for frames that are given, the innermost first: those of an await chain."""
    fallback = ""
    for frame in itertools.islice(frames, _DEEPEST):
        filename = frame.f_code.co_filename
        if not is_engine_file(filename) and not filename.startswith("<frozen "):
            if filename.startswith(_NOT_ENGINE) or not filename.startswith(_LIBRARIES):
                return _name_place(frame)
            fallback = fallback or _name_place(frame)
    return fallback


def _name_place(frame: FrameType) -> str:
    filename, module = frame.f_code.co_filename, frame.f_globals.get("__name__")
    # The path of a version's snapshot is long, private and gone tomorrow: name the file inside the bundle.
    if isinstance(module, str) and (logical := logical_names(module)) != module:
        depth = logical.count(".") + (Path(filename).stem == "__init__")
        filename = "/".join(Path(filename).parts[-depth - 1 :])
    return f"{filename}:{frame.f_lineno} in {frame.f_code.co_name}"


# ---- chains of awaits, which both libraries build alike

DEEPEST_CHAIN = 1_000
"""Links of an await chain that are followed; a deeper one is named by what was seen of it."""


def line_of(coroutine: object) -> str:
    """Follow the await chain of a suspended coroutine; name the user's innermost line."""
    frames: list[FrameType] = []
    while coroutine is not None and len(frames) < DEEPEST_CHAIN:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return user_place_in(reversed(frames))

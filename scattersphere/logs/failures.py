"""The text of a failure, with its traceback: kept instead of the exception, which would keep old code alive."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any, cast

import attrs

from scattersphere.logs.frames import logical_names, past_engine, without_engine
from scattersphere.logs.masking import CUT, hide

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FAILURE_LIMIT = 16_000
"""Characters of a formatted failure: a little less than a line of the log may hold."""

PART_LIMIT = 4_000
"""Characters of one frame or one message in it, so that a huge message leaves room for the frames."""

NOTE_LIMIT = 100
"""Characters of the note of a cut, and more."""

STACK_LIMIT = 40
"""Frames shown of one traceback: the outer and the inner half of them."""


_LEFT_OUT = re.compile(r'File "\.\.\.", line 0, in (\d+ frames left out)')
"""How a summary of frames, which can only be made as a frame, comes out of the standard library."""


@attrs.frozen
class Failure:
    """Why an attempt failed, as text; `error` is the exception itself where it is had.

    Of a bundle's code it is not: it would keep the version alive.
    """

    type: str
    message: str
    traceback: str = attrs.field(default="", repr=False)
    error: BaseException | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def format_failure(exc: BaseException, *, of_body: bool = False, hidden: Sequence[str] = ()) -> str:
    """Return the traceback of `exc` as text, for the log of a run; no newline at its end.

    The engine's own frames are left out, unless there are no others; of a body's failure even then: the
    interpreter has raised it at the line that calls the body. Source lines come through
    linecache, and so from the snapshot of the version that ran. Module names are logical ones.
    Causes, notes and exception groups are shown as Python shows them. Never raises, whatever the
    exception's methods do, and never returns more than `FAILURE_LIMIT` characters. `***` stands for what is `hidden`.
    """
    try:
        trace = past_engine(exc.__traceback__) if of_body else exc.__traceback__
        shown = traceback.TracebackException(type(exc), exc, trace)
        _keep_user_frames(shown, of_body=of_body)
        parts = [shorten(_LEFT_OUT.sub(r"... \1", hide(part, hidden)), PART_LIMIT) for part in shown.format()]
        text = "".join(parts).rstrip("\n")
    except BaseException:  # noqa: BLE001 - it may be raised by a user's code
        # What a user's class does in __dir__, __cause__ or __class__ is beyond guessing; a real Ctrl-C
        # does not come here, because asyncio and trio turn it into a cancellation of their main task.
        text = f"{_name_type(exc)}: {hide(text_of(exc), hidden)}\n(its traceback cannot be formatted)"
    return shorten(logical_names(text), FAILURE_LIMIT)


def describe(exc: BaseException) -> str:
    """Return one line for people: `etl.load.LoadError: no such day`. Never raises."""
    message = " ".join(shorten(text_of(exc), 500).split())
    name = logical_names(_name_type(exc))
    return f"{name}: {message}" if message else name


def shorten(text: str, limit: int) -> str:
    """Return `text` with its middle left out if it is longer than `limit` characters.

    No cut goes through the note of an earlier one: what is masked at the cuts (`hide`) finds each of them whole.
    """
    if len(text) <= limit:
        return text
    note = f"\n... more than {len(text) - limit} characters left out ...\n"
    kept = max(0, limit - len(note))
    tail = kept // 2
    start, _ = _around_cut(text, kept - tail)
    _, end = _around_cut(text, len(text) - tail)
    return (text[:start] + note + text[end:])[:limit]


def _around_cut(text: str, at: int) -> tuple[int, int]:
    """Return where the note of an earlier cut begins and ends that stands at a place; else that place."""
    for cut in CUT.finditer(text, max(0, at - NOTE_LIMIT), at + NOTE_LIMIT):
        if cut.start() < at < cut.end():
            return cut.span()
    return at, at


def _name_type(exc: BaseException) -> str:
    kind = type(exc)  # not exc.__class__, which a class may make a property that lies
    module = type.__getattribute__(kind, "__module__")
    name: str = type.__getattribute__(kind, "__qualname__")
    return name if module in {"builtins", "__main__"} or not isinstance(module, str) else f"{module}.{name}"


def text_of(exc: BaseException) -> str:
    """Return `str(exc)`, whatever its `__str__` does."""
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001 - `__str__` is the user's code; even SystemExit must not get out of here
        return "<its text cannot be shown>"


def is_from_file(exc: BaseException, ending: str) -> bool:
    """Whether `exc`, or one in it if it is a group, was raised in a file whose path ends so. Never raises."""
    try:
        if issubclass(type(exc), BaseExceptionGroup):
            return any(is_from_file(part, ending) for part in cast("Any", exc).exceptions)
        frames = list(traceback.walk_tb(exc.__traceback__))
        return bool(frames) and frames[-1][0].f_code.co_filename.endswith(ending)
    except BaseException:  # noqa: BLE001 - a group may be of a user's class
        return False


def _keep_user_frames(top: traceback.TracebackException, *, of_body: bool) -> None:
    """Cut the stacks of an exception, its causes and its members, in place."""
    todo: list[traceback.TracebackException | None] = [top]
    while todo:
        shown = todo.pop()
        if shown is None:
            continue
        # Without a stack the standard library leaves out the line "Traceback" too.
        shown.stack = _cut(shown.stack, of_body=of_body) or cast("Any", None)
        todo += (shown.__cause__, shown.__context__, *(shown.exceptions or ()))


def _cut(stack: Iterable[traceback.FrameSummary], *, of_body: bool) -> traceback.StackSummary:
    frames = list(stack or ())
    users = without_engine(frames)
    if not users and not of_body:
        users = frames
    if len(users) > STACK_LIMIT:
        half = STACK_LIMIT // 2
        left_out = traceback.FrameSummary(
            "...", 0, f"{len(users) - STACK_LIMIT} frames left out", line="", lookup_line=False
        )
        users = [*users[:half], left_out, *users[-half:]]
    return traceback.StackSummary.from_list(users)

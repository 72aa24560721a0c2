"""The text of a failed load of a bundle: its traceback, in the names that its author knows.

An exception object holds its traceback, that the frames, and those the whole version: so no exception of a
bundle's code outlives the load.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

from scattersphere.errors import MESSAGE_LIMIT, BundleLoadError

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from scattersphere.registry.modules.namespace import ModuleNamespace


_OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # noqa: PTH100, PTH118, PTH120 - a prefix


def load_error(error: BaseException, namespace: ModuleNamespace) -> BundleLoadError:
    """Return an error of ours that says what happened where, in names that the author knows."""
    message = f"bundle {namespace.bundle!r} does not load: {_summary(error, namespace)}"
    return BundleLoadError(_cut(message), formatted(error, namespace))


def formatted(error: BaseException, namespace: ModuleNamespace) -> str:
    """Return the traceback of an error in a bundle's code, in names that the author knows."""
    return _cut(_details(error, namespace))


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else f"{text[: MESSAGE_LIMIT - 30]}\n... (cut)"


def _summary(error: BaseException, namespace: ModuleNamespace) -> str:
    try:
        said = str(error)
    except BaseException:  # noqa: BLE001 - an author's own error class may be wrong as well
        said = "<its text cannot be shown>"
    text = type(error).__name__ + (f": {said}" if said else "")
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
        text = f"{type(error).__name__}: {error.msg}"
        shown = (error.text or "").strip()
        text += f": {shown[:200]}" if shown else ""
    else:
        frames = _own_frames(error.__traceback__, namespace)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else namespace.shown_as
    if isinstance(error, SystemExit):
        text += " (the code ended the process at import; a bundle must not)"
    return namespace.logical(f"{where}: {text}")


def _own_frames(start: TracebackType | None, namespace: ModuleNamespace) -> list[traceback.FrameSummary]:
    folder = str(namespace.folder)
    return [frame for frame in traceback.extract_tb(start) if frame.filename.startswith(folder)]


def _details(error: BaseException, namespace: ModuleNamespace) -> str:
    """Format the traceback from the first frame of the bundle on: what is above is ours."""
    start = error.__traceback__
    folder = str(namespace.folder)
    while start is not None and not start.tb_frame.f_code.co_filename.startswith(folder):
        start = start.tb_next
    try:
        shown = traceback.TracebackException(type(error), error, start)
        _leave_out_ours(shown)
        text = "".join(shown.format())
    except BaseException:  # noqa: BLE001 - an error class whose __str__, __cause__ or notes misbehave
        text = f"{type(error).__name__}, whose traceback cannot be shown\n"
    return namespace.logical(text)


def _leave_out_ours(top: traceback.TracebackException) -> None:
    """Take the frames of this package, which stand between an import and what it leads to, out in place."""
    todo: list[traceback.TracebackException | None] = [top]
    while todo:
        shown = todo.pop()
        if shown is not None:
            frames = [frame for frame in shown.stack if not frame.filename.startswith(_OURS)]
            shown.stack = traceback.StackSummary.from_list(frames)
            todo += (shown.__cause__, shown.__context__, *(shown.exceptions or ()))


def stack_of(frame: FrameType | None, namespace: ModuleNamespace) -> str:
    """Return the stack of a thread that is stuck while loading, from the bundle's first frame on."""
    stack = traceback.extract_stack(frame) if frame else []
    folder = str(namespace.folder)
    own = next((at for at, entry in enumerate(stack) if entry.filename.startswith(folder)), len(stack))
    return namespace.logical("".join(traceback.format_list(stack[own:])))

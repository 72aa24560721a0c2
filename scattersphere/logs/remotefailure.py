"""Descriptions of exceptions sent between processes, and stand-ins made of them.

The exception itself does not travel: many cannot be unpickled, and unpickling one runs code of the user. What
travels is its description, and a stand-in is made of it that has the same name, message and bases.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

import attrs

from scattersphere import errors
from scattersphere.logs.failures import FAILURE_LIMIT, format_failure, shorten, text_of
from scattersphere.logs.frames import is_between, is_engine_file
from scattersphere.logs.masking import hide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_KNOWN = {
    ("builtins", name): value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
} | {
    (errors.__name__, name): value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
"""Classes that mean the same in both processes. No other is looked up: that would import code."""


@attrs.frozen
class RemoteFailure:
    """What is known of an exception of another process."""

    lineage: tuple[tuple[str, str], ...]
    """Module and qualified name of its class and its bases, in the order of the MRO."""
    message: str
    traceback: str

    @classmethod
    def of(
        cls, exc: BaseException, traceback: str | None = None, hidden: Sequence[str] = ()
    ) -> RemoteFailure:
        """Describe an exception; `***` stands for what is `hidden`. Never raises."""
        return cls(
            tuple((str(base.__module__), base.__qualname__) for base in type(exc).__mro__),
            shorten(hide(text_of(exc), hidden), FAILURE_LIMIT),
            format_failure(exc, hidden=hidden) if traceback is None else traceback,
        )

    def rebuild(self) -> BaseException:
        """Make an exception of the same name, message and bases.

        Policies that name classes (`retry_on`), and `isinstance` with builtins, work on it as on the original.
        """
        module, name = self.lineage[0]
        known = [_KNOWN[key] for key in self.lineage if key in _KNOWN]
        bases = _nearest(known) or (Exception,)
        strange = [key for key in self.lineage[1:] if key not in _KNOWN and key != ("builtins", "object")]
        made = _derive(bases, strange, module, name)
        failure = made(self.message)
        failure.args = (self.message,)
        return failure


def kept_error(exc: BaseException, text: str, *, is_freed: bool, hidden: Sequence[str] = ()) -> BaseException:
    """Return what may be kept of an exception as long as its run: itself, or a stand-in.

    A stand-in is kept where it would hold a version, or where what it says, or one that it came of, is `hidden`.

    The engine's frames are taken off the traceback of the host's own.
    """
    if not is_freed and not (hidden and _says(exc, hidden)):
        return exc.with_traceback(_user_traceback(exc.__traceback__))
    stand_in = RemoteFailure.of(exc, text, hidden).rebuild()
    stand_in.add_note(text)
    return stand_in


def _says(exc: BaseException, hidden: Sequence[str]) -> bool:
    """Whether an exception, or one that it came of, says what is hidden: it is shown with all of them."""
    # A text that was cut tells how much was left out: where more is hidden than is shown, the two differ in that.
    return hide(text_of(exc), hidden) != text_of(exc) or format_failure(exc, hidden=hidden) != format_failure(
        exc
    )


def _user_traceback(trace: TracebackType | None) -> TracebackType | None:
    users = trace
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if is_engine_file(filename):
            users = trace.tb_next
        elif not is_between(filename):
            break
        trace = trace.tb_next
    return users


def _nearest(known: list[type[BaseException]]) -> tuple[type[BaseException], ...]:
    """Leave out classes that others derive from, and groups, which cannot be made without members."""
    fit = [cls for cls in known if not issubclass(cls, BaseExceptionGroup)]
    return tuple(cls for cls in fit if not any(other is not cls and issubclass(other, cls) for other in fit))


def _derive(
    bases: tuple[type[BaseException], ...], strange: list[tuple[str, str]], module: str, name: str
) -> type[BaseException]:
    """Derive a class for each strange one, in a line: how they were mixed is of no use to anybody here."""
    for parent_module, parent in reversed(strange):
        bases = (_stand_in(bases, parent_module, parent),)
    return _stand_in(bases, module, name)


def _stand_in(bases: tuple[type[BaseException], ...], module: str, name: str) -> type[BaseException]:
    # __init__ and __str__ of a base may want arguments that nobody has kept (UnicodeDecodeError, OSError).
    body: dict[str, object] = {
        "__module__": module,
        "__qualname__": name,
        "__init__": lambda self, *args: None,  # noqa: ARG005 - it takes whatever its base takes
        "__str__": lambda self: str(self.args[0]),
    }
    simple = name.rpartition(".")[2]
    try:
        return type(simple, bases, body)
    except TypeError:  # two builtins whose memory layouts contradict each other
        return type(simple, bases[:1], body)

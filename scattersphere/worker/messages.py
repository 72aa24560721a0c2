"""Messages between the engine and a worker: a call, and what it came to.

Plain values and pickles: both ends are the same program of the same user, and trust each other.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, NamedTuple

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.logs.failures import shorten, text_of
from scattersphere.logs.masking import hide
from scattersphere.logs.remotefailure import RemoteFailure
from scattersphere.worker.longvalues import dump_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.abc.backend import Call


class CallMessage(NamedTuple):
    """A call, in plain values: a tuple of such is pickled several times as fast as an attrs instance.

    `of` makes one on the engine's side, `pack` makes bytes of it with the arguments, `read` takes those in a worker.
    """

    number: int
    module: str
    qualname: str
    is_async: bool
    hooks: tuple[str, ...]
    name: str
    run_id: int
    job: str
    task: str
    instance: int | None
    attempt: int
    idempotency_key: str
    level: int
    max_attempts: int
    retry_on: tuple[str, ...]
    library: str
    """The event loop of async bodies: the host's, `asyncio` or `trio`."""
    captures_print: bool
    around: bytes = b""
    """Pickles of the factories of context managers around it."""
    carrier: dict[str, str] | None = None
    """The strings for those."""
    file: str = ""
    """The name of the file into which a long result is laid, in place of being sent; "": none."""
    environment: dict[str, str] | None = None
    """Variables to set before the call; None where they are as before."""
    arguments: bytes = b""
    """A pickle of (arguments, parameters of the run), apart: when it fails, the rest is known."""

    @classmethod
    def of(cls, call: Call, number: int, library: str) -> CallMessage:
        """Make the message of a call, without its arguments; on the loop, where contexts may be read.

        `number` identifies the call among those of its backend. Raises TypeError if no other process could find the
        class.
        """
        made, context = call.task_class.cls, call.task_context
        _check_importable(call.name, made)
        carried = call.context.run(call.carries)
        log = getattr(context, "run_log", None)
        return cls(
            number=number,
            module=made.__module__,
            qualname=made.__qualname__,
            is_async=call.task_class.is_async,
            hooks=tuple(call.task_class.hooks),
            name=call.name,
            run_id=context.run_id,
            job=context.job,
            task=context.task,
            instance=context.index,
            attempt=context.attempt,
            idempotency_key=context.idempotency_key,
            level=getattr(log, "level", 0),
            max_attempts=call.retry.max_attempts,
            retry_on=call.retry.retry_on,
            library=library,
            captures_print=getattr(log, "takes_prints", False),
            around=carried.factories,
            carrier=dict(carried.carrier) or None,
        )

    def pack(self, call: Call, environment: Mapping[str, str] | None = None) -> bytes:
        """Make bytes of the message and the arguments of its call; in a thread, where those are large.

        Raises TypeError that names the argument that cannot be sent.
        """
        values = (dict(call.arguments), dict(call.task_context.params))
        try:
            arguments = dumps(values)
        except Exception as exc:
            raise TypeError(
                f"{call.name}: {_culprit(call.arguments)} cannot be sent to a worker process: {exc}; "
                'pass plain data, or use backend "thread"'
            ) from exc
        return dumps((*self[:-2], None if environment is None else dict(environment), arguments))

    @classmethod
    def read(cls, payload: bytes) -> CallMessage:
        """Take it from what `pack` has made."""
        return cls(*pickle.loads(payload))  # noqa: S301 - from the engine that this worker serves


def _check_importable(name: str, cls: type) -> None:
    if cls.__module__ == "__main__":
        raise TypeError(
            f"{name}: the class {cls.__qualname__} is defined in the program itself (__main__), which worker "
            'processes do not run; move it to a module, or use backend "thread"'
        )
    if "<locals>" in cls.__qualname__:
        raise TypeError(
            f"{name}: the class {cls.__qualname__} is defined inside a function, where a worker process cannot "
            'find it; move it to the top of a module, or use backend "thread"'
        )


def _culprit(arguments: Mapping[str, object]) -> str:
    for name, value in arguments.items():
        try:
            dumps(value)
        except Exception:  # noqa: BLE001 - see above
            return f"the argument {name!r} (a {type(value).__name__})"
    return "a parameter of the run"


class Reply(NamedTuple):
    """What a call came to, as it crosses: `of` in the worker, `outcome` on the engine's side."""

    kind: OutcomeKind
    payload: bytes = b""
    """A pickle: the value, or a `RemoteFailure`; nothing for a cancel."""
    type: str = ""
    """Module and name of the value's class."""
    size: int = 0
    """Bytes of the pickle where it is in the file that was given; 0: it is the payload."""

    @classmethod
    def of(cls, name: str, outcome: Outcome, file: str = "") -> Reply:
        """Pack the outcome of the call of that name, a long value into `file` if there is one. Never raises."""
        if outcome.error is not None:
            return cls(OutcomeKind.EXCEPTION, dumps(RemoteFailure.of(outcome.error, outcome.traceback)))
        if outcome.kind is OutcomeKind.CANCELLED:
            return cls(OutcomeKind.CANCELLED)
        try:
            made = type(outcome.value)
            payload, size = dump_to(file, outcome.value) if file else (dumps(outcome.value), 0)
            return cls(OutcomeKind.VALUE, payload, f"{made.__module__}.{made.__qualname__}", size)
        except BaseException as exc:  # noqa: BLE001 - the result's own __reduce__ may raise anything
            error = TypeError(
                f"{name}: its result (a {type(outcome.value).__name__}) cannot be sent from the worker process: "
                f'{exc}; return plain data, or use backend "thread"'
            )
            return cls.of_error(error)

    @classmethod
    def of_error(cls, error: BaseException) -> Reply:
        """Say that the call did not come to its code, or its result not out of the worker. Never raises."""
        return cls(OutcomeKind.EXCEPTION, dumps(RemoteFailure.of(error)))

    def outcome(self, name: str) -> Outcome:
        """Return the outcome of the call of that name. Never raises, whatever the classes of a result do."""
        match self.kind:
            case OutcomeKind.VALUE:
                try:
                    return Outcome(self.kind, pickle.loads(self.payload))  # noqa: S301 - from a worker of ours
                except BaseException as exc:  # noqa: BLE001 - unpickling runs code of the result's classes
                    return refused(
                        TypeError(
                            f"{name}: its result arrived from the worker process but cannot be read: {text_of(exc)}"
                        )
                    )
            case OutcomeKind.EXCEPTION:
                failure: RemoteFailure = pickle.loads(self.payload)  # noqa: S301 - as above
                return Outcome(self.kind, error=failure.rebuild(), traceback=failure.traceback)
            case _:
                return Outcome(self.kind)


def refused(exc: Exception) -> Outcome:
    """The call did not come to the user's code: the message says all, and the frames would all be ours."""
    return Outcome(OutcomeKind.EXCEPTION, error=exc, traceback=f"{type(exc).__name__}: {text_of(exc)}")


def dumps(value: object) -> bytes:
    """Pickle with the newest protocol: both ends are the same interpreter."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


MOST = 1e300
"""A number of units that can still be shown; ints of any size can be reported."""

WORDS = 500
"""Characters of a progress message: 10,000 of them are kept for each run."""

Report = tuple[float, float | None, str]
"""What a body reports of its progress: done, total, message."""


def checked(done: float, total: float | None, message: str, hidden: Sequence[str] = ()) -> Report:
    """Return a report that can be shown and sent, with `***` for what is `hidden`.

    Raises `TypeError` and `ValueError` at who makes it.
    """
    for name, value in (("done", done), ("total", total)):
        if value is None and name == "total":
            continue
        if not isinstance(value, int | float):
            raise TypeError(f"progress: {name} is a number, not {type(value).__name__}")
        if not abs(value) < MOST:
            raise ValueError(f"progress: {name} is {str(value)[:20]}")
    return done, total, shorten(hide(str(message), hidden), WORDS)

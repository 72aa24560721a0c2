"""What a worker process is told of a call."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.execution.backends.protocol import Call


class Order(NamedTuple):
    """A call, in plain values: a tuple of such is pickled several times as fast as an attrs instance."""

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
    environment: dict[str, str] | None = None
    """Variables to set; None where they are as before."""
    arguments: bytes = b""
    """A pickle of (arguments, parameters of the run), apart: when it fails, the rest is known."""

    @classmethod
    def read(cls, payload: bytes) -> Order:
        """Take it from the payload of a CALL."""
        return cls(*pickle.loads(payload))  # noqa: S301 - from the engine that started this worker


def make_order(call: Call, number: int, library: str) -> Order:
    """Make the order of a call, without its arguments; on the loop, where contexts may be read.

    Raises TypeError if no other process could find the class.
    """
    cls, context = call.task_class.cls, call.task_context
    if cls.__module__ == "__main__":
        raise TypeError(
            f"{call.name}: the class {cls.__qualname__} is defined in the program itself (__main__), which worker "
            'processes do not run; move it to a module, or use backend "thread"'
        )
    if "<locals>" in cls.__qualname__:
        raise TypeError(
            f"{call.name}: the class {cls.__qualname__} is defined inside a function, where a worker process cannot "
            'find it; move it to the top of a module, or use backend "thread"'
        )
    log = getattr(context, "run_log", None)
    return Order(
        number=number,
        module=cls.__module__,
        qualname=cls.__qualname__,
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
    )


def pack(call: Call, order: Order, environment: dict[str, str] | None) -> bytes:
    """Make the payload of a CALL. Raises TypeError that names the argument that cannot be sent."""
    values = (dict(call.arguments), dict(call.task_context.params))
    try:
        arguments = dumps(values)
    except Exception as exc:
        raise TypeError(
            f"{call.name}: {_culprit(call.arguments)} cannot be sent to a worker process: {exc}; "
            'pass plain data, or use backend "thread"'
        ) from exc
    return dumps((*order[:-2], environment, arguments))


def _culprit(arguments: Mapping[str, Any]) -> str:
    for name, value in arguments.items():
        try:
            dumps(value)
        except Exception:  # noqa: BLE001 - see above
            return f"the argument {name!r} (a {type(value).__name__})"
    return "a parameter of the run"


def dumps(value: Any) -> bytes:
    """Pickle with the newest protocol: both ends are the same interpreter."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

"""`run_call`: carries out one call in a worker, whatever transport has brought it there."""

from __future__ import annotations

import contextvars
import functools
import importlib
import os
import pickle
from contextlib import ExitStack
from typing import TYPE_CHECKING

from scattersphere.logs.capture import capture_print
from scattersphere.logs.runlog import current_attempt
from scattersphere.worker.around import Surroundings
from scattersphere.worker.attempt import WorkerAttempt
from scattersphere.worker.messages import Reply

if TYPE_CHECKING:
    from scattersphere.worker.channel import Channel
    from scattersphere.worker.messages import CallMessage


def run_call(message: CallMessage, channel: Channel) -> Reply:
    """Carry out a call: instance, hooks, body, `clean_up`, in the current thread and a context of its own.

    What the body says goes through `channel` while it executes, and `channel.begun` gets what cancels it before
    anything of it does. Async bodies get an event loop. Never raises: whatever a task's code does is in the reply, a
    class that cannot be imported and a result that cannot be pickled too.
    """
    return contextvars.copy_context().run(_run, message, channel)


def _run(message: CallMessage, channel: Channel) -> Reply:
    if message.environment is not None:
        os.environ.update(message.environment)
    surroundings = Surroundings.of(message.around, message.carrier) if message.around else None
    try:
        attempt = WorkerAttempt(message, channel, *_unpack(message))
    except BaseException as exc:  # noqa: BLE001 - the bundle's import, or an argument's class, may do anything
        return Reply.of_error(exc)
    current_attempt.set(attempt)
    channel.begun(attempt)
    with ExitStack() as stack:
        if message.captures_print:
            stack.enter_context(capture_print())
        return Reply.of(message.name, attempt.run_body(surroundings), message.file)


def _unpack(message: CallMessage) -> tuple[type, dict[str, object], dict[str, object]]:
    module = importlib.import_module(message.module)
    cls: type = functools.reduce(getattr, message.qualname.split("."), module)  # type: ignore[assignment]
    try:
        arguments, params = pickle.loads(message.arguments)  # noqa: S301 - from the engine that this worker serves
    except Exception as exc:
        raise TypeError(
            f"{message.name}: its arguments cannot be read in a worker process: {exc}; "
            'pass plain data, or use backend "thread"'
        ) from exc
    return cls, arguments, params

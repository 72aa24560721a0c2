"""The half of a backend that runs elsewhere: in a worker process, on another machine.

`run_call(message, channel)` carries out one call. A transport brings it a `CallMessage` and takes the `Reply` back;
what the body says meanwhile goes through a `Channel`, and the engine's end of that is a `CallChannel`. Pipes to a
process on this machine are one transport (`main` is the process, `WorkerProcess` its owner); a cluster is another.
Nothing here knows the engine.
"""

from scattersphere.worker.attempt import run_call
from scattersphere.worker.channel import CallChannel, CallControl, Channel
from scattersphere.worker.messages import CallMessage, Reply
from scattersphere.worker.process import WorkerProcess

__all__ = ["CallChannel", "CallControl", "CallMessage", "Channel", "Reply", "WorkerProcess", "run_call"]

"""What each command does, against the public names of the Server.

A handler gets a `Scene` and the arguments, and returns the result as JSON or raises; errors of the
engine keep their codes (`errors.wire_error`). The table is the only way from a name in `commands.py`
to a function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from scattersphere.remote.handlers import code, events, host, jobs, runs
from scattersphere.remote.handlers.scene import Scene

Handler = Callable[[Scene, Any], Awaitable[Any]]

HANDLERS: dict[str, Handler] = {
    "bundles": code.bundles,
    "tasks": code.tasks,
    "task": code.task,
    "register": code.register,
    "deregister": code.deregister,
    "reload": code.reload,
    "jobs": jobs.jobs,
    "job": jobs.job,
    "define": jobs.define,
    "validate": jobs.validate,
    "undefine": jobs.undefine,
    "save": jobs.save,
    "load": jobs.load,
    "run": runs.run,
    "run_task": runs.run_task,
    "runs": runs.runs,
    "status": runs.status,
    "result": runs.result,
    "explain": runs.explain,
    "pause": runs.pause,
    "resume": runs.resume,
    "stop": runs.stop,
    "cancel": runs.cancel,
    "kill": runs.kill,
    "rerun": runs.rerun,
    "wait": runs.wait,
    "logs": runs.logs,
    "follow": events.follow,
    "unfollow": events.unfollow,
    "stats": host.stats,
    "sessions": host.sessions,
    "shutdown": host.shutdown,
}

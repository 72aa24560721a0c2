"""What each command does, against the public names of the Server. Importing this fills the table.

A handler gets a `Context` and its arguments, and returns the result as JSON or raises; errors of the engine keep
their codes (`errors.wire_error`).
"""

from scattersphere.commands.handlers import code, events, host, jobs, runs, schedules, session

__all__ = ["code", "events", "host", "jobs", "runs", "schedules", "session"]

"""A small stock of tasks, as the original library had: `Shell`, `Delay`, `Repeat`, `RunJob`.

They are in no registry unless the host says so, because `Shell` is code execution::

    server.register_tasks("std", scattersphere.tasks.ALL)
"""

from scattersphere.tasks.delay import Delay
from scattersphere.tasks.jobs import Repeat, RunJob
from scattersphere.tasks.shell import Shell

ALL = (Shell, Delay, Repeat, RunJob)
"""All stock tasks, for `Server.register_tasks`."""

__all__ = ["ALL", "Delay", "Repeat", "RunJob", "Shell"]

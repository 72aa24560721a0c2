"""The errors that Scattersphere raises.

::

    ScattersphereError
    ├── DefinitionError          a definition is wrong; `.problems` lists everything at once
    ├── ArgumentError            an argument has a value that cannot be meant (also a ValueError)
    ├── TaskDeclarationError     a RunnableTask subclass is declared wrongly (also a TypeError)
    ├── NotFoundError            (also a KeyError)
    │   ├── NoSuchJobError
    │   ├── NoSuchTaskError
    │   ├── NoSuchRunError
    │   ├── NoSuchBundleError
    │   └── NoSuchScheduleError
    ├── ExistsError              the name is taken
    ├── ConflictError            the request contradicts the state of things
    │   ├── AmbiguousTaskError   two bundles hold the same task path
    │   ├── UnresolvedError      the definition waits for code that is not there
    │   ├── BundleBusyError      runs still need the bundle
    │   ├── RunStateError        the run's state does not allow the request
    │   └── FileChangedError     the file was changed since it was loaded
    ├── BusyError                a limit is reached; try later
    ├── BundleError
    │   ├── BundleRefusedError   unsafe or too large; nothing of it was executed
    │   └── BundleLoadError      its code failed to load; `.details` says where
    ├── ClosedError              the Server is closing or closed
    │   └── SuspendedError       the run goes on at the next start of a Server with its journal
    ├── JournalError             the journal cannot be read or written
    │   └── JournalBusyError     another Server holds it
    ├── ForkedError              the Server was made before `fork`
    ├── MissingExtraError        a package that an extra brings is not installed (also an ImportError)
    ├── WrongLoopError           used in another thread or event loop than the one that entered it
    ├── RunFailedError           a run that was waited for by `run` did not succeed; `.run` is it
    ├── TaskFailedError          a failure of which only the text is had
    ├── EngineError              a defect of the engine itself
    ├── NonRetryableError        raised by a task: fail now, whatever attempts are left
    └── TaskCrashedError         raised by a task: what carried it out has died

Each class has a stable `code`, the word that the wire protocol uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scattersphere.model.problem import Problem

MESSAGE_LIMIT = 20_000
"""Characters of the longest message of ours (design, section 4)."""
SHOWN = 1_000
"""Characters of what a head line names: a path of the file system may be long."""


def listing(head: str, problems: Sequence[Problem]) -> str:
    """Return problems under a head line: as many as the limit of a message allows."""
    count = len(problems)
    lines = [f"{head[:SHOWN]}: {count} problem{'' if count == 1 else 's'}"]
    size = len(lines[0])
    for shown, problem in enumerate(problems):
        line = f"  {problem}"
        size += len(line) + 1
        if size > MESSAGE_LIMIT - 100:
            lines.append(f"  ... and {count - shown} more")
            break
        lines.append(line)
    return "\n".join(lines)


class ScattersphereError(Exception):
    """The root of the tree: catch this to catch all of ours."""

    code: str = "internal"


class DefinitionError(ScattersphereError):
    """A definition is wrong. `problems` holds everything that was found, in the file's order."""

    code = "invalid-job"

    def __init__(self, problems: Iterable[Problem], *, source: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        super().__init__(self.problems, source)

    def __str__(self) -> str:
        return listing(self.source or "definition", self.problems)


class ArgumentError(ScattersphereError, ValueError):
    """An argument has the right type and a value that cannot be meant: a negative time, no places at all."""

    code = "bad-args"


class TaskDeclarationError(ScattersphereError, TypeError):
    """A subclass of `RunnableTask` is declared in a way that cannot work."""

    code = "bad-args"


class NotFoundError(ScattersphereError, KeyError):
    """What was asked for is not there. The message suggests the nearest name.

    A KeyError, so that our mappings keep the promises of `Mapping` (`get`, `in`).
    """

    code = "bad-args"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would show the repr of the message


class NoSuchJobError(NotFoundError):
    """No definition has this name."""

    code = "no-such-job"


class NoSuchTaskError(NotFoundError):
    """No task class has this path, or no task of the job this name."""

    code = "no-such-task"


class NoSuchRunError(NotFoundError):
    """No kept run has this id."""

    code = "no-such-run"


class NoSuchBundleError(NotFoundError):
    """No bundle has this name."""

    code = "no-such-bundle"


class NoSuchScheduleError(NotFoundError):
    """No schedule has this job and name."""

    code = "no-such-schedule"


class ExistsError(ScattersphereError):
    """The name is taken."""

    code = "exists"


class ConflictError(ScattersphereError):
    """The request contradicts the state of things."""

    code = "conflict"


class AmbiguousTaskError(ConflictError):
    """Two bundles hold the same task path; write `bundle:path`."""


class UnresolvedError(ConflictError):
    """The definition waits for code that is not registered; `.problems` says which."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(message)


class BundleBusyError(ConflictError):
    """Runs still need the bundle; `.runs` lists their ids."""

    def __init__(self, message: str, runs: Iterable[int] = ()) -> None:
        self.runs: tuple[int, ...] = tuple(runs)
        super().__init__(message)


class RunStateError(ConflictError):
    """The state of the run does not allow the request; the message names the state."""


class FileChangedError(ConflictError):
    """The file was changed since it was loaded; pass `overwrite=True` to replace it."""


class BusyError(ScattersphereError):
    """A limit is reached: the queue of runs is full, or a job refuses a second run."""

    code = "busy"


class BundleError(ScattersphereError):
    """A bundle cannot be used."""

    code = "conflict"


class BundleRefusedError(BundleError):
    """The bundle is unsafe, unreadable or too large. Nothing of it was executed."""

    code = "forbidden"


class BundleLoadError(BundleError):
    """The code of a bundle failed to load. `details` is the traceback with logical names."""

    def __init__(self, message: str, details: str = "") -> None:
        self.details = details
        super().__init__(message)


class ClosedError(ScattersphereError):
    """The Server is closing, closed, or not yet entered."""

    code = "shutting-down"


class SuspendedError(ClosedError):
    """The Server was closed and the run was not over: it goes on when a Server next opens its journal."""


class JournalError(ScattersphereError):
    """The journal cannot be read or written; the message says why and what to do."""

    code = "journal-unavailable"


class JournalBusyError(JournalError):
    """The journal is held by another Server; the message names its process."""


class ForkedError(ScattersphereError):
    """This process was forked from the one that entered the Server; make a new Server here."""


class MissingExtraError(ScattersphereError, ImportError):
    """A package that an extra brings is not installed; the message says which, and how to get it."""

    code = "unsupported"


class WrongLoopError(ScattersphereError):
    """A Server or a run is used in another thread or event loop than the one that entered it; both are named."""

    code = "conflict"


class RunFailedError(ScattersphereError):
    """A run did not succeed: it failed, crashed, was cancelled or stopped. `.run` is the run.

    The cause is the exception of the task that failed first, where there is one.
    """

    code = "conflict"

    def __init__(self, message: str, run: Any = None) -> None:
        self.run: Any = run
        """The `Run`; the `SyncRun` where a SyncServer raises it."""
        super().__init__(message)


class TaskFailedError(ScattersphereError):
    """Stands for what a task raised where only its text is had. `type` names the class, `details` is the traceback."""

    code = "conflict"

    def __init__(self, message: str, type: str = "", details: str = "") -> None:  # noqa: A002 - as in `Failure.type`
        self.type = type
        self.details = details
        super().__init__(message)


class EngineError(ScattersphereError):
    """A defect of the engine. The runs of this Server were marked `crashed`; please report it."""


class NonRetryableError(ScattersphereError):
    """Raised by a task: fail now, whatever attempts are left."""

    code = "bad-args"


class TaskCrashedError(ScattersphereError):
    """Raised by a task to say that what carried it out has died: a container, a machine, a program of its own.

    The attempt then ends `crashed` and not `failed`, as when a worker process dies. `retry_on` does not ask
    for it: a crash may be tried again whatever the task itself raises.
    """

    code = "conflict"


class TaskCancelled(BaseException):
    """Raised by `TaskContext.check()` in a thread or a process when a cancel was asked for."""

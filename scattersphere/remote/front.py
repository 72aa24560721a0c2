"""What all sessions of a listener share, and the rules of who sees what."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

import attrs

from scattersphere._text import did_you_mean
from scattersphere.errors import NotFoundError, ScattersphereError
from scattersphere.execution.run import Run
from scattersphere.remote.audit import Audit, NoAudit
from scattersphere.remote.errors import RequestError
from scattersphere.remote.limits import Limits
from scattersphere.remote.penalty import Penalties
from scattersphere.remote.tokens import TokenFile
from scattersphere.server import Server

if TYPE_CHECKING:
    from scattersphere.model.definition import JobDefinition
    from scattersphere.remote.roles import Principal
    from scattersphere.remote.session import Session

log: logging.Logger = logging.getLogger("scattersphere.remote")


class SessionRecord(Protocol):
    """What `sessions` shows of a connection."""

    session: Session
    peer: str
    since: str


@attrs.define(eq=False, kw_only=True)
class Front:
    """The server behind the sessions, what the operator allows, and who is connected."""

    server: Server
    limits: Limits = attrs.field(factory=Limits)
    tokens: TokenFile | None = None
    bundle_roots: tuple[Path, ...] = ()
    job_folder: Path | None = None
    audit: Audit = attrs.field(factory=NoAudit)
    on_shutdown: Callable[[], None] | None = None
    instance: str = attrs.field(factory=lambda: secrets.token_hex(4))
    penalties: Penalties = attrs.field(factory=Penalties)
    sessions: dict[str, SessionRecord] = attrs.field(factory=dict)
    refused: int = 0
    """Connections that were turned away for want of room: a flood costs a number, and no line of the log."""
    _incidents: int = 0
    _task_runs: WeakSet[Run] = attrs.field(factory=WeakSet)

    def incident(self, exc: BaseException) -> dict[str, Any]:
        """Log a defect with its traceback, and return the error that tells the client only its number."""
        self._incidents += 1
        number = f"{self.instance}-{self._incidents}"
        log.error("incident %s of the remote front-end", number, exc_info=exc)
        return {
            "code": "internal",
            "message": f"the server failed; its log has the details under incident {number}",
            "incident": number,
        }

    def note_task_run(self, run: Run) -> None:
        """Remember that a run is of one task, so that its bundle decides who sees it."""
        self._task_runs.add(run)

    def note_rerun(self, earlier: Run, run: Run) -> None:
        """Who saw the earlier run sees the new one, and nobody else."""
        if earlier in self._task_runs:
            self._task_runs.add(run)

    # ---- what exists for a principal; what is hidden is answered exactly as what is absent

    def run(self, principal: Principal, number: int) -> Run:
        """Return a run. Raises `RequestError` (`no-such-run`)."""
        if number in self.server.runs:
            run = self.server.runs[number]
            if self.sees_run(principal, run):
                return run
        raise RequestError("no-such-run", f"no run {number}", field="run")

    def sees_run(self, principal: Principal, run: Run) -> bool:
        """Whether a run exists for a principal."""
        if principal.unbounded:
            return True
        if run in self._task_runs:
            tasks = run.plan.definition.tasks.values()
            return all(task.bundle is not None and principal.sees_bundle(task.bundle) for task in tasks)
        return principal.sees_job(run.job)

    def sees_run_number(self, principal: Principal) -> Callable[[int], bool]:
        """Return a test for numbers of runs."""
        runs = self.server.runs
        return lambda number: number in runs and self.sees_run(principal, runs[number])

    def job(self, principal: Principal, name: str, field: str = "job") -> JobDefinition:
        """Return a definition. Raises `RequestError` (`no-such-job`), with the nearest visible name."""
        definition = self.server.definitions.get(name)
        if definition is not None and principal.sees_job(name):
            return definition
        names = [each for each in self.server.definitions if principal.sees_job(each)]
        raise RequestError("no-such-job", f"no job {name[:64]!r}{_near(name, names)}", field=field)

    def bundle(self, principal: Principal, name: str, field: str = "name") -> Any:
        """Return a bundle. Raises `RequestError` (`no-such-bundle`), with the nearest visible name."""
        bundle = self.server.registry.bundles.get(name)
        if bundle is not None and principal.sees_bundle(name):
            return bundle
        names = [each for each in self.server.registry.bundles if principal.sees_bundle(each)]
        raise RequestError("no-such-bundle", f"no bundle {name[:64]!r}{_near(name, names)}", field=field)

    def task(self, principal: Principal, path: str, field: str = "path") -> Any:
        """Return a task class. Raises `RequestError` (`no-such-task`), `ConflictError` for two of them."""
        registry = self.server.registry
        try:
            found = registry.find(path)
        except NotFoundError:
            found = None
        except ScattersphereError:
            if principal.unbounded:
                raise
            found = None  # the message would name bundles that do not exist for it
        if found is not None and principal.sees_bundle(found.bundle):
            return found
        paths = [each for each, task in registry.tasks.items() if principal.sees_bundle(task.bundle)]
        raise RequestError("no-such-task", f"no task {path[:64]!r}{_near(path, paths)}", field=field)

    def covers_code(self, principal: Principal, definition: JobDefinition) -> str | None:
        """Return the name of the first task whose code the principal may not use, or None.

        Asked when a job is defined and again when it is run: in between, a bundle may have come that
        holds a path which a definition named in advance.
        """
        if principal.unbounded:
            return None
        for name, task in definition.tasks.items():
            if task.bundle is not None:
                allowed = principal.sees_bundle(task.bundle)
            else:
                try:
                    allowed = principal.sees_bundle(self.server.registry.find(task.task).bundle)
                except ScattersphereError:
                    allowed = False
            if not allowed:
                return name
        return None


def _near(name: str, names: list[str]) -> str:
    return did_you_mean(name, names, quote="'")

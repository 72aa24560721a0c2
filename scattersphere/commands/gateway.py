"""The gateway that all sessions share: the Server behind them, access policy, limits and audit.

What a principal may see is asked here and nowhere else, for runs, their events and log lines, jobs, bundles and
tasks; what is hidden is answered exactly as what is absent. So is whether it may have code loaded, whichever way
that would happen: by `register`, or by a definition that names bundles and is taken up, saved or loaded.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import attrs

from scattersphere._text import did_you_mean
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.audit import Audit
from scattersphere.commands.errors import ListenError, RequestError
from scattersphere.commands.exits import CONTAINED
from scattersphere.commands.limits import AuthBackoff, Limits
from scattersphere.commands.paths import bundle_name, name_in_roots, no_such_file
from scattersphere.commands.tokens import TokenFile
from scattersphere.engine.naming import naming_only
from scattersphere.engine.run import Run
from scattersphere.errors import NoSuchRunError, NotFoundError, ScattersphereError
from scattersphere.jobs.history import bundle_of_task
from scattersphere.server import Server

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterable

    from scattersphere._json_words import JsonObject
    from scattersphere.commands.table import CommandSpec, Reply
    from scattersphere.jobs.history import RunSummary
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.events import Event

log: logging.Logger = logging.getLogger("scattersphere.remote")
PEER = "peer"
"""The credential of a unix socket's peer: the kernel vouches for it, and it cannot be revoked."""


class SessionRecord(Protocol):
    """What `sessions` shows of a connection."""

    peer: str
    since: str

    @property
    def principal(self) -> Principal | None:
        """Who it acts for."""
        ...

    @property
    def requests(self) -> int:
        """How many requests it has made."""
        ...

    @property
    def follows(self) -> int:
        """How many subscriptions it has."""
        ...


@attrs.define(eq=False, kw_only=True)
class Gateway:
    """The server behind the sessions, what the operator allows, and who is connected."""

    server: Server
    limits: Limits = attrs.field(factory=Limits)
    tokens: TokenFile | None = None
    bundle_roots: tuple[Path, ...] = ()
    job_folder: Path | None = None
    audit: Audit | None = None
    on_shutdown: Callable[[], None] | None = None
    instance: str = attrs.field(factory=lambda: secrets.token_hex(4))
    backoff: AuthBackoff = attrs.field(factory=AuthBackoff)
    sessions: dict[str, SessionRecord] = attrs.field(factory=dict)
    large_definitions: anyio.Lock = attrs.field(factory=anyio.Lock)
    """Held while a large definition is read: one after the other."""
    runs: Mapping[int, Run] = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: self.server.runs, takes_self=True)
    )
    """The live runs of the server, and the kept ended ones."""
    refused: int = 0
    """Connections that were turned away for want of room: a flood costs a number, and no line of the log."""
    _incidents: int = 0

    def incident(self, exc: BaseException) -> JsonObject:
        """Log a defect with its traceback, and return the error that tells the client only its number."""
        self._incidents += 1
        number = f"{self.instance}-{self._incidents}"
        log.error("incident %s of the remote front-end", number, exc_info=exc)
        return {
            "code": "internal",
            "message": f"the server failed; its log has the details under incident {number}",
            "incident": number,
        }

    # ---- what exists for a principal; what is hidden is answered exactly as what is absent

    async def run(self, principal: Principal, number: int, *, results: bool = False) -> Run:
        """Return a run, also one that only the journal has: then with its `results` where they are wanted.

        Raises `RequestError` (`no-such-run`), `JournalError`.
        """
        with suppress(NoSuchRunError):
            history, live = self.server.history, self.runs.get(number)
            run = live or await history.get(number, results=False)
            if self.sees_run(principal, run):  # only now may its code be loaded
                return await history.get(number) if results and live is None else run
        raise RequestError("no-such-run", f"no run {number}", field="run")

    def sees_run(self, principal: Principal, run: Run) -> bool:
        """Whether a run exists for a principal: that of a job by the job, that of one task by its bundle."""
        return principal.unbounded or _sees(principal, run.job, bundle_of_task(run.definition))

    def sees_record(self, principal: Principal, record: RunSummary) -> bool:
        """Whether a run of a list exists for a principal, also one that only the journal has."""
        return principal.unbounded or _sees(principal, record.job, record.of_task)

    def sees_run_of(self, principal: Principal, number: int, job: str) -> bool:
        """Whether a line or an event about a run exists for a principal, also where the run was evicted."""
        if principal.unbounded:
            return True
        run = self.runs.get(number)
        if run is not None:
            return self.sees_run(principal, run)
        # Of a run that is gone it is not known whether it was one of a task, which has the name of its class.
        return principal.sees_job(job) and job in self.server.definitions

    def sees_event(self, principal: Principal, event: Event) -> bool:
        """Whether an event of the server's stream exists for a principal."""
        if event.bundle is not None:
            return principal.sees_bundle(event.bundle)
        if event.run is not None:
            return self.sees_run_of(principal, event.run, event.job or "")
        return event.job is None or principal.sees_job(event.job)

    def telling(self, principal: Principal) -> AbstractContextManager[None]:
        """Name no run that does not exist for a principal in what is told inside, as the holder of a place."""
        if principal.unbounded:
            return nullcontext()
        return naming_only(partial(self.sees_run_of, principal))

    def sees_run_number(self, principal: Principal) -> Callable[[int], bool]:
        """Return a test for numbers of runs."""
        runs = self.server.runs
        return lambda number: number in runs and self.sees_run(principal, runs[number])

    async def judge(self, *names: str) -> None:
        """Look at what jobs, or all of them, lack of the code, before it is asked for on the loop."""
        unresolved: Any = self.server.unresolved
        await unresolved.judge(*names)

    def job(self, principal: Principal, name: str, field: str = "job") -> JobDefinition:
        """Return a definition. Raises `RequestError` (`no-such-job`), with the nearest visible name."""
        definition = self.server.definitions.get(name)
        if definition is not None and principal.sees_job(name):
            return definition
        names = (each for each in self.server.definitions if principal.sees_job(each))
        raise RequestError("no-such-job", f"no job {name[:64]!r}{_near(name, names)}", field=field)

    def bundle(self, principal: Principal, name: str, field: str = "name") -> Any:
        """Return a bundle. Raises `RequestError` (`no-such-bundle`), with the nearest visible name."""
        bundle = self.server.registry.bundles.get(name)
        if bundle is not None and principal.sees_bundle(name):
            return bundle
        names = (each for each in self.server.registry.bundles if principal.sees_bundle(each))
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
        paths = (each for each, task in registry.tasks.items() if principal.sees_bundle(task.bundle))
        raise RequestError("no-such-task", f"no task {path[:64]!r}{_near(path, paths)}", field=field)

    def uncovered(self, principal: Principal, definition: JobDefinition) -> str | None:
        """Return the name of the first task whose code the principal may not use, or None.

        Asked when a job is defined and again when it is run: in between, a bundle may have come that
        holds a path which a definition named in advance.
        """
        if principal.unbounded:
            return None
        known: dict[tuple[str, str | None], bool] = {}
        for name, task in definition.tasks.items():
            if (key := (task.task, task.bundle)) not in known:
                known[key] = self._covers(principal, *key)
            if not known[key]:
                return name
        return None

    def _covers(self, principal: Principal, path: str, bundle: str | None) -> bool:
        if bundle is None:
            try:
                bundle = self.server.registry.find(path).bundle
            except ScattersphereError:
                return False
        return principal.sees_bundle(bundle)

    # ---- the one check for whatever leads to code being loaded

    def check_load(self, principal: Principal, file: str, name: str, place: Path | None = None) -> None:
        """Raise `RequestError` unless the principal may have a file, at `place`, loaded as the bundle `name`.

        It needs the role admin, and patterns that cover the name and the file, also the one that a link leads to: that
        a file is there is told to nobody whose patterns do not cover it.
        """
        if not principal.role.covers(Role.ADMIN):
            message = f"to load code ({file[:64]!r}) needs the role {Role.ADMIN}"
            raise RequestError("forbidden", message, field="definition")
        names = (
            [file]
            if place is None or principal.unbounded
            else [file, name_in_roots(place, self.bundle_roots)]
        )
        if not all(principal.sees_bundle(bundle_name(each)) for each in names):
            raise no_such_file(file)
        if not principal.sees_bundle(name):
            raise RequestError(
                "forbidden", f"your token covers no bundle of the name {name[:64]!r}", field="name"
            )

    def check_bundles(self, principal: Principal, bundles: Iterable[tuple[str, str]]) -> bool:
        """Judge the bundles that a definition names, with their paths; return whether any would be loaded anew.

        What is registered already from the same file stays as it is, and needs no right to load code. Raises
        `RequestError`.
        """
        fresh = False
        for name, path in bundles:
            known = self.server.registry.bundles.get(name)
            if known is not None and principal.sees_bundle(name) and _same_file(known.path, path):
                continue
            place = None if self.job_folder is None else self.job_folder / path
            self.check_load(principal, Path(path).name, name, place)
            fresh = True
        return fresh


def _sees(principal: Principal, job: str, bundle: str | None) -> bool:
    """Whether a run exists for a principal: of a job, or of one task of a bundle."""
    if bundle is None:
        return principal.sees_job(job)
    return bool(bundle) and principal.sees_bundle(bundle)


def make_gateway(
    server: Server,
    *,
    tokens: TokenFile | str | os.PathLike[str] | None = None,
    bundle_roots: Iterable[str | os.PathLike[str]] = (),
    job_folder: str | os.PathLike[str] | None = None,
    audit: Audit | None = None,
    limits: Limits | None = None,
    on_shutdown: Callable[[], None] | None = None,
) -> Gateway:
    """Return what the commands ask, whatever carries them; the arguments are those of `listen`."""
    return Gateway(
        server=server,
        limits=limits or Limits(),
        tokens=tokens if tokens is None or isinstance(tokens, TokenFile) else TokenFile(tokens),
        bundle_roots=tuple(Path(root) for root in bundle_roots),
        job_folder=None if job_folder is None else Path(job_folder),
        audit=audit,
        on_shutdown=on_shutdown,
    )


def _same_file(known: Path | None, path: str) -> bool:
    """Whether a path of a definition can only mean the file that is registered: by its name, in the roots."""
    return known is not None and Path(path).name == known.name


def _near(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, list(names), quote="'")


@attrs.frozen
class SourceAuthenticator:
    """How the sessions of one source prove who they are; failures count against the source."""

    gateway: Gateway
    source: str
    clock: Callable[[], float]

    def blocked(self) -> float:
        """Return the seconds until this source may try again."""
        return self.gateway.backoff.blocked(self.source, self.clock())

    def authenticate(self, token: str) -> Principal | None:
        """Return who a token stands for, and remember a failure. Raises `RequestError` (`busy`)."""
        gateway = self.gateway
        principal = None
        if gateway.tokens is not None:
            try:
                gateway.tokens.refresh()
                principal = gateway.tokens.find(token)
            except ListenError:  # the file is gone or unsafe: nobody comes in; the sweeper logs it
                principal = None
        if principal is None:
            gateway.backoff.failed(self.source, self.clock())
            return None
        gateway.backoff.succeeded(self.source)
        limit = gateway.limits.sessions_of_user
        others = [each.principal for each in gateway.sessions.values()]
        if sum(each is not None and each.user == principal.user for each in others) >= limit:
            raise RequestError("busy", f"{principal.user} has {limit} sessions already; end one")
        return principal

    def current(self, principal: Principal) -> bool:
        """Return whether the proof still holds."""
        if principal.credential == PEER:
            return True
        return self.gateway.tokens is not None and self.gateway.tokens.current(principal)


class Follower(Protocol):
    """The connection, as far as subscriptions go."""

    def follow(
        self,
        events: AsyncIterator[Event],
        kinds: frozenset[str],
        shown: Callable[[Principal, Event], bool],
    ) -> int:
        """Send events from now on, after the reply; return the subscription's number."""
        ...

    def unfollow(self, number: int) -> None:
        """End a subscription. Raises `RequestError`."""
        ...


@attrs.frozen
class Context:
    """Who asks, of which server, over which connection; `in_words`: as a person types it."""

    gateway: Gateway
    principal: Principal
    follower: Follower
    in_words: bool = False

    async def run(self, number: int, *, results: bool = False) -> Run:
        """Return a run that exists for who asks; see `Gateway.run`."""
        return await self.gateway.run(self.principal, number, results=results)

    async def carry_out(self, row: CommandSpec, arguments: Mapping[str, object]) -> Reply:
        """Call the handler of a command; what it has changed is durable when the reply is there.

        Raises what the handler does (`CodeExitError` for what would end the program), `JournalError` where the
        journal commits nothing.
        """
        with CONTAINED:
            with self.gateway.telling(self.principal):
                reply: Reply = await row.handler(self, **arguments)
            if row.changes:
                await self.gateway.server.committed()
            return reply

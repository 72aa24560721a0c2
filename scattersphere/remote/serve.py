"""A server process from a shell: what `scattersphere serve` and `scattersphere token` do.

Only here are flags read and signals heeded: a library leaves both to the program that embeds it.
"""

from __future__ import annotations

import datetime as dt
import signal
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import attrs

from scattersphere.commands.access import Role
from scattersphere.commands.audit import AuditFile
from scattersphere.commands.errors import ListenError
from scattersphere.commands.gateway import Gateway, make_gateway
from scattersphere.commands.limits import Limits
from scattersphere.commands.tokens import TokenFile
from scattersphere.errors import ConflictError, ScattersphereError
from scattersphere.model.events import EventKind
from scattersphere.model.logs import make_block, make_printable
from scattersphere.model.states import RunState
from scattersphere.remote.listener import Listening, load_certificate, server_context
from scattersphere.runnable import RunnableTask
from scattersphere.server import Server

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Coroutine

    from scattersphere.options import ServerKeywords

    Attend = Callable[[Server], Coroutine[object, object, None]]
    Beside = Callable[[Gateway], Coroutine[object, object, None]]

NAMES_SHOWN = 10
"""Bundles and jobs that are named at the start."""
_BAD = frozenset({RunState.FAILED, RunState.CRASHED})


@attrs.frozen(kw_only=True)
class ServeOptions:
    """The flags of `scattersphere serve`."""

    bundles: tuple[Path, ...] = ()
    """Folders whose bundles are adopted as they come; what sessions may register must lie in them."""
    jobs: Path | None = None
    """The folder of definitions: loaded at the start, and where `save` and `load` look."""
    watch_jobs: bool = False
    """Whether an edited file of that folder replaces its definition."""
    tcp: tuple[str, ...] = ()
    unix: Path | None = None
    tokens: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    audit: Path | None = None
    host_tasks: Mapping[str, Sequence[type[RunnableTask]]] = attrs.field(factory=dict)
    """Classes to be registered by hand, by the name of their bundle: `{"std": scattersphere.tasks.ALL}`."""
    limits: Limits = attrs.field(factory=Limits)
    server: Mapping[str, object] = attrs.field(factory=dict)
    """Further options of the Server, as `ServerOptions` has them."""
    tls: ssl.SSLContext | None = None
    """That of certificate and key, where somebody else has made it already."""
    beside: tuple[Beside, ...] = ()
    """What goes on beside the listeners, or instead of them, until the end: pages for browsers, say. Each is given
    the gateway of the listeners, so that rights, limits and the audit are the same."""
    told: str = ""
    """What is said when all listen: how to reach it, say."""
    reread_limits: Callable[[], Limits] | None = None
    """Gives the limits anew, at SIGHUP; raises `ScattersphereError` or `OSError` where they cannot be read."""


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    # It holds what bundles and jobs say of themselves: a terminal is not to obey it.
    sys.stderr.write(make_block(line) + "\n")
    sys.stderr.flush()


async def serve(
    options: ServeOptions,
    *,
    say: Callable[[str], None] = _print,
    complain: Callable[[str], None] = _complain,
    attend: Attend | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `shutdown`: load bundles, then jobs, then listen.

    Says `listening on ...` for each listener once it accepts. What fails to load is complained of
    and does not keep the others from being served; later failures too, unless `attend`, which lives
    beside the listeners, is there to tell of them. Raises `ListenError`.
    """
    if not options.tcp and options.unix is None and not options.beside:
        raise ListenError("say where to listen: --tcp HOST:PORT, --unix PATH or --http HOST:PORT")
    try:
        await _serve(options, say, complain, attend)
    except ListenError as exc:
        if exc.lacks is None:
            raise
        raise ListenError(f"{exc.reason}: give {FLAGS[exc.lacks]}") from None


FLAGS = {"tokens": "--tokens FILE", "tls": "--tls-cert FILE and --tls-key FILE"}
"""What this command calls the arguments of `listen` that make an address safe."""


async def _serve(
    options: ServeOptions,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    attend: Attend | None,
) -> None:
    failure: Exception | None = None
    ending = _Ending(complain, suspends=options.server.get("journal") is not None)
    with anyio.open_signal_receiver(*_ENDING, signal.SIGHUP, *_IGNORED) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(ending.heed, signals)
            try:
                await _serve_until(ending, options, say, complain, attend)
            except Exception as exc:  # noqa: BLE001 - leaves as it is, and not inside an ExceptionGroup
                failure = exc
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


_ENDING = (signal.SIGTERM, signal.SIGINT)
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
"""Nothing is meant by them here; by default they would end the program without a word."""


def _reread(
    front: Gateway,
    tls: ssl.SSLContext | None,
    options: ServeOptions,
    audit: AuditFile | None,
    complain: Callable[[str], None],
) -> None:
    """Read tokens, certificate and limits again, and open the audit anew; what is wrong is left as it was."""

    def limits() -> None:
        if options.reread_limits is not None:
            front.limits = options.reread_limits()

    def certificate() -> None:
        if tls is not None and options.tls_cert is not None and options.tls_key is not None:
            load_certificate(tls, options.tls_cert, options.tls_key)

    steps: list[Callable[[], None]] = [limits, certificate]
    steps += [front.tokens.refresh] if front.tokens is not None else []
    steps += [audit.reopen] if audit is not None else []
    for step in steps:
        try:
            step()
        except (ScattersphereError, OSError) as exc:
            complain(f"SIGHUP: {exc}")


class _Ending:
    """When to end: at the first signal in good order, at the second without waiting for clean-up.

    With a journal (`suspends`) runs go on at the next start, whatever is killed.
    """

    def __init__(self, complain: Callable[[str], None], *, suspends: bool) -> None:
        self.suspends: bool = suspends
        self.asked: anyio.Event = anyio.Event()
        self.loading: anyio.CancelScope = anyio.CancelScope()
        self.server: Server | None = None
        self.failure: ListenError | None = None
        self.reread: Callable[[], None] = lambda: None
        self._complain = complain

    async def heed(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for received in signals:
            if received is signal.SIGHUP:
                self.reread()
            if received not in _ENDING:
                continue
            runs = self.server.runs.values() if self.server is not None else ()
            live = [run for run in runs if not run.state.ended]
            count = f"{len(live)} run{'' if len(live) == 1 else 's'}"
            goes = "goes" if len(live) == 1 else "go"
            later = f", which {goes} on at the next start" if self.suspends and live else ""
            if self.asked.is_set() and self.server is not None:
                self._complain(f"{received.name} again: killing {count}{later}")
                self.server.hurry()
            elif live:
                what = "suspending" if self.suspends else "cancelling"
                self._complain(f"{received.name}: {what} {count}{later}; the same again kills what is left")
            self.asked.set()
            self.loading.cancel()


async def _serve_until(
    ending: _Ending,
    options: ServeOptions,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    attend: Attend | None,
) -> None:
    async with AsyncExitStack() as stack:
        opened: tuple[Gateway, Listening | None] | None = None
        with ending.loading:
            opened = await _open(stack, ending, options, complain)
        if opened is None:
            return  # a signal came while code was being loaded
        gateway, listening = opened
        server = gateway.server
        async with anyio.create_task_group() as group:
            if attend is None:
                group.start_soon(_tell_of_failures, server, complain)
            else:
                group.start_soon(attend, server)
            if listening is not None:
                group.start_soon(_end_with, listening, ending)
            for each in options.beside:
                group.start_soon(each, gateway)
            addresses = () if listening is None else listening.addresses
            said = [f"listening on {address}" for address in addresses]
            # Who attends tells of all that is loaded, one by one.
            said += [_loaded(server) if attend is None else "", _recovered(server), options.told]
            for line in filter(None, said):
                say(line)
            await ending.asked.wait()
            group.cancel_scope.cancel()
        if ending.failure is not None:
            raise ending.failure


async def _open(
    stack: AsyncExitStack, ending: _Ending, options: ServeOptions, complain: Callable[[str], None]
) -> tuple[Gateway, Listening | None]:
    """Enter the Server, which loads its code and jobs, and then the listeners."""
    audit = stack.enter_context(AuditFile(options.audit)) if options.audit is not None else None
    keywords: ServerKeywords = {
        **cast("ServerKeywords", options.server),
        "bundle_roots": options.bundles,
        "job_folder": options.jobs,
        "watch_jobs": options.watch_jobs,
    }
    server = ending.server = Server(**keywords)
    await stack.enter_async_context(server)
    for name, classes in options.host_tasks.items():
        server.register_tasks(name, classes)
    _tell_of_the_start(server, complain)
    tls = options.tls or tls_context(options.tls_cert, options.tls_key)
    gateway = make_gateway(
        server,
        tokens=options.tokens,
        bundle_roots=options.bundles,
        job_folder=options.jobs,
        audit=audit,
        limits=options.limits,
        on_shutdown=ending.asked.set,
    )
    listening: Listening | None = None
    if options.tcp or options.unix is not None:
        unix = () if options.unix is None else (options.unix,)
        listening = await Listening(gateway, tcp=options.tcp, unix=unix, tls=tls)
        stack.push_async_exit(listening)
    ending.reread = partial(_reread, gateway, tls, options, audit, complain)
    return gateway, listening


def _loaded(server: Server) -> str:
    """Return what is served, in a line."""
    counts = {"bundle": server.registry.bundles, "job": server.definitions}
    return "serving " + " and ".join(
        f"{len(found)} {kind}{'' if len(found) == 1 else 's'}" + (f" ({_names(found)})" if found else "")
        for kind, found in counts.items()
    )


def _recovered(server: Server) -> str:
    """Return which runs of an earlier start go on, in a line; "" where there are none."""
    runs = [run for run in server.runs.values() if run.recovered and not run.state.ended]
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    return f"going on with {count} ({_names(f'{run.job}#{run.id}' for run in runs)})" if runs else ""


def _names(found: Iterable[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return make_printable(", ".join(names[:NAMES_SHOWN])) + more


async def _end_with(listening: Listening, ending: _Ending) -> None:
    """A program that is deaf is of no use: it ends, and whoever watches over it starts it again."""
    try:
        await listening.wait_closed()
    except ListenError as exc:
        ending.failure = exc
    ending.asked.set()


async def _tell_of_failures(server: Server, complain: Callable[[str], None]) -> None:
    """Complain of each run that failed in one line; its traceback is in the run's log.

    What failed to load at the start was told of; a run that could not go on after a restart was not.
    """
    start = server.last_event
    async for event in server.events():
        if event.kind is EventKind.RUN_ENDED and event.state in _BAD:
            complain(f"run {event.run} of {event.job} {event.state}; `explain {event.run}` tells why")
        elif event.seq <= start:
            continue
        elif event.kind is EventKind.JOURNAL_FAILED:
            complain(f"the journal commits nothing, so runs hold and new ones are refused: {event.message}")
        elif event.kind is EventKind.JOURNAL_MENDED:
            complain("the journal commits again")
        elif event.kind is EventKind.BUNDLE_FAILED:
            complain(str(event.message).rstrip())
        elif event.kind is EventKind.JOB_FAILED:
            complain(event.message or f"job {event.job} could not be loaded")


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return what speaks TLS with a certificate and its key, None without them. Raises `ListenError`."""
    if (certificate is None) != (key is None):
        raise ListenError("--tls-cert and --tls-key go together")
    if certificate is None or key is None:
        return None
    return server_context(certificate, key)


def _tell_of_the_start(server: Server, complain: Callable[[str], None]) -> None:
    """Complain of each bundle and each job that was not loaded, or that waits for code."""
    for bundle in server.registry.bundles.values():
        if bundle.error is not None:
            complain(bundle.error.rstrip())
    for message in server.problems.values():
        complain(message)
    for name, problems in server.unresolved.items():
        complain(f"job {name} cannot run yet: {problems[0]}")


# ---- tokens


def create_token(
    tokens: str | os.PathLike[str],
    name: str,
    role: str,
    *,
    patterns: Sequence[str] = (),
    days: float | None = None,
) -> str:
    """Add a token to the file, making the file where there is none, and return it: print it alone."""
    try:
        rank = Role(role)
    except ValueError:
        raise ConflictError(f"no role {role!r}; the roles are {', '.join(Role)}") from None
    expires = None
    if days is not None:
        if not days > 0:
            raise ConflictError("a token that has expired already is of no use; give days above 0")
        try:
            expires = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=days)
        except OverflowError:
            raise ConflictError(
                f"no calendar has a day in {days:g} days; leave days out for no end"
            ) from None
    return TokenFile(tokens).create(name, rank, patterns=tuple(patterns), expires=expires)


def list_tokens(tokens: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Return what may be shown of the tokens."""
    file = TokenFile(tokens)
    file.refresh()
    now = dt.datetime.now(dt.UTC)
    return [
        {
            "id": token.id,
            "name": token.name,
            "role": str(token.role),
            "patterns": " ".join(token.patterns) or "*",
            "created": token.created.isoformat(),
            "expires": token.expires.isoformat() if token.expires is not None else "never",
            "live": "yes" if token.live(now) else "no",
        }
        for token in file.tokens
    ]


def revoke_token(tokens: str | os.PathLike[str], name_or_id: str) -> list[str]:
    """Remove the tokens of a name, or the one of an id; return the ids. Sessions end within a second."""
    return [token.id for token in TokenFile(tokens).revoke(name_or_id)]

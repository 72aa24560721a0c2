"""One command of the line protocol from a shell: `scattersphere -c HOST:PORT runs`."""

from __future__ import annotations

import os
import shlex
import shutil
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import attrs
import click

from scattersphere._json_words import JsonObject
from scattersphere.cli.reaching import Reached
from scattersphere.commands.arguments import Definition
from scattersphere.commands.errors import RequestError
from scattersphere.commands.table import find_command
from scattersphere.errors import ConflictError, ScattersphereError
from scattersphere.model.logs import make_block
from scattersphere.model.states import RunState
from scattersphere.remote.client import (
    NONSENSE,
    TOKEN_VARIABLE,
    DisconnectedError,
    RemoteError,
    connect,
    find_token,
)
from scattersphere.remote.following import following
from scattersphere.remote.render import as_json, one_line, problem_lines, to_log, to_table
from scattersphere.remote.requests import arguments_of, parse

if TYPE_CHECKING:
    from collections.abc import Sequence


DEPTH = 96
FOLLOW = frozenset({"-f", "--follow"})
TOKEN_WANTED = f"auth-required: a token is wanted: give --token-file FILE, or set {TOKEN_VARIABLE}"
REFUSED, WRONG, NO_CONNECTION, INVALID, INTERRUPTED = 1, 2, 3, 3, 130
OUTCOMES = frozenset({"run", "run-task", "wait", "result"})
"""Commands that are asked for how a run ended."""
_WRONG_LINES = frozenset({"bad-args", "bad-request", "unknown-command"})
UNSUCCESSFUL = frozenset(state for state in RunState if state.ended and state is not RunState.SUCCEEDED)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("address", metavar="HOST:PORT")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--token-file", type=click.Path(dir_okay=False), help="Else SCATTERSPHERE_TOKEN is taken.")
@click.option("--cafile", type=click.Path(dir_okay=False), help="Use TLS, and trust this authority.")
@click.option("--json", "as_lines", is_flag=True, help="Print the replies as JSON lines.")
def at(
    address: str, words: tuple[str, ...], token_file: str | None, cafile: str | None, *, as_lines: bool
) -> None:
    """Ask a server at HOST:PORT (or unix:PATH); the words are those of the line protocol.

    `logs 7 -f` goes on with the lines to come.
    """
    try:
        asked = compile_words(words, as_lines=as_lines)
    except RequestError as exc:
        say(f"scattersphere: {exc}", WRONG)
    ask(Reached(address, token_file, cafile), asked)


def ask(where: Reached, asked: Asked) -> NoReturn:
    """Ask a server, show what it replies, and end the program with the exit code that this means."""
    ask_with(where, asked, _asked)


Asking = Callable[[str, "str | None", Any, "Asked"], Awaitable[int]]


def ask_with(where: Reached, asked: Asked, work: Asking) -> NoReturn:
    """Do `work` with a server, and end the program with the exit code that it returns, or that its error means."""
    address, tls = where.address, None
    try:
        token, tls = find_token(where.token_file), _tls(where.cafile)
    except ConflictError as exc:
        say(f"scattersphere: {exc}", NO_CONNECTION)
    except OSError as exc:  # ssl's has no filename, and SSLError for what is no certificate
        say(f"scattersphere: {exc.filename or where.cafile}: {exc.strerror or exc}", NO_CONNECTION)
    try:
        raise SystemExit(anyio.run(_ask, work, address, token, tls, asked))
    except RemoteError as exc:
        text = TOKEN_WANTED if exc.code == "auth-required" else str(exc)
        say(f"scattersphere: {text}", refused_with(exc, asked), _details(exc))
    except BrokenPipeError:
        raise  # who reads our output has seen enough; click knows what to do
    except OSError as exc:
        say(f"scattersphere: cannot connect to {address}: {_reason(exc)}", NO_CONNECTION)
    except DisconnectedError as exc:
        # Whoever expects TLS says nothing, and closes at last: whose patience ends first is a matter of chance.
        silent = exc.code in {"gone", "timeout"}
        hint = "; if it speaks TLS, give --cafile FILE" if silent and tls is None else ""
        say(f"scattersphere: {exc}{hint}", NO_CONNECTION)
    except ScattersphereError as exc:
        say(f"scattersphere: {exc}", NO_CONNECTION)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def refused_with(exc: RemoteError, asked: Asked) -> int:
    """Return the exit code of a refusal: that which the same mistake has with a file, where there is one."""
    if exc.code in _WRONG_LINES:
        return WRONG
    if exc.code == "invalid-job":  # the parameters, if some were given; else the definition
        return WRONG if {"params", "args"} & asked.args.keys() else INVALID
    return REFUSED


def _reason(exc: OSError) -> str:
    """Return what the system said; anyio tells only that all addresses of a name have failed."""
    cause: BaseException = exc
    while (inner := cause.__cause__) is not None or isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else inner or cause
    if words := getattr(cause, "verify_message", None):
        return f"its certificate is not trusted here: {words}"
    number = getattr(
        cause, "errno", None
    )  # asyncio's own words, "Connect call failed", say less than the system's
    return os.strerror(number) if number and not isinstance(cause, ssl.SSLError) else str(cause)


def say(text: str, status: int, more: Sequence[str] = ()) -> NoReturn:
    """End with a message and an exit code; `more` are further lines."""
    lines = [make_block(text), *map(one_line, more)]
    encoding = sys.stderr.encoding
    sys.stderr.write(
        "".join(f"{line}\n" for line in lines).encode(encoding, "backslashreplace").decode(encoding)
    )
    raise SystemExit(status)


def _details(exc: RemoteError) -> list[str]:
    try:
        return problem_lines(exc.error)
    except _ODD:
        return []


@attrs.frozen
class Asked:
    """What is asked of the server, and how the answer is shown."""

    name: str
    args: JsonObject
    follow: bool
    as_lines: bool


def compile_words(words: tuple[str, ...], *, as_lines: bool) -> Asked:
    """Return what the words ask. Raises `RequestError`."""
    name, *rest = words
    command = find_command(name)
    follow = name == "logs" and any(word in FOLLOW for word in rest)
    if follow:
        rest = [word for word in rest if word not in FOLLOW]
    elif name in {"run", "start"}:  # here as for a file: `run nightly -p day=2026-11-23`
        rest = [word.removeprefix("-p") for word in rest if word != "-p"]
    # The shell has split and unquoted already; a definition is one word as it stands.
    text = " ".join(rest) if command.whole else " ".join(_quoted(word) for word in rest)
    args = arguments_of(command, text, 1, DEPTH)
    return Asked(name, {key: _plain(value) for key, value in args.items()}, follow, as_lines)


def _quoted(word: str) -> str:
    """Quote a word again, but for the key before an equals sign: it would else be no key."""
    key, equals, value = word.partition("=")
    return f"{key}={shlex.quote(value)}" if equals and key.rstrip(":").isidentifier() else shlex.quote(word)


def _plain(value: object) -> object:
    return parse(value.text, DEPTH) if isinstance(value, Definition) else value


def parse_definition(text: str, source: str) -> object:
    """Return the JSON of a definition; what is wrong inside it is the server's to say."""
    try:
        return parse(text, DEPTH)
    except RequestError as exc:
        say(f"scattersphere: {source}: {exc}", INVALID)


def _tls(cafile: str | None) -> object:
    if cafile is None:
        return None
    return ssl.create_default_context(cafile=cafile)


_ODD = (TypeError, KeyError, ValueError, AttributeError, IndexError, RecursionError)
"""What comes of showing a reply that no server of ours gives."""


async def _ask(work: Asking, address: str, token: str | None, tls: object, asked: Asked) -> int:
    try:
        return await work(address, token, tls, asked)
    except OSError:
        raise  # ssl's errors are of ValueError, too
    except _ODD as exc:
        raise DisconnectedError(NONSENSE) from exc


async def _asked(address: str, token: str | None, tls: Any, asked: Asked) -> int:
    if asked.name == "follow":
        async with following(address, token=token, tls=tls, **asked.args) as events:
            async for event in events:
                show(_json(event) if asked.as_lines else to_table(event))
        return 0
    async with connect(address, token=token, tls=tls) as client:
        result = await client.call(asked.name, **asked.args)
    since: int | str = result.get("next", 1) - 1
    if "life" in result:
        since = f"{result['life']}.{since}"
    if asked.name == "logs" and not asked.as_lines:  # people have no use for them
        result.pop("next")
        result.pop("life", None)
    reply = {"n": 1, "result": result}
    show(_json(reply)) if asked.as_lines else show_reply(reply)
    if asked.follow:
        await _follow_log(address, token, tls, asked, since)
    return _status(asked.name, result)


def _status(name: str, result: JsonObject) -> int:
    """Return the exit code of a reply: scripts ask for it as they do where a job runs from a file."""
    if name in OUTCOMES and result.get("state") in UNSUCCESSFUL:
        return REFUSED
    wrong = [problem for problem in result.get("problems", ()) if not problem.get("warning")]
    return INVALID if name == "validate" and wrong else 0


async def _follow_log(address: str, token: str | None, tls: Any, asked: Asked, since: int | str) -> None:
    """Show the lines that come after those that were shown, for the same task, instance and attempt."""
    wanted = {name: asked.args[name] for name in ("task", "index", "attempt") if name in asked.args}
    run = asked.args.get("run")
    kinds = ["log"] if run is not None else ["runs"]
    async with following(address, run, token=token, tls=tls, kinds=kinds, since=since) as events:
        async for event in events:
            if run is None and asked.args.get("job") not in {None, event.get("job")}:
                continue
            if event["event"] != "log" or all(event.get(name) == value for name, value in wanted.items()):
                show(_json(event) if asked.as_lines else to_log(event))


def _json(message: Any) -> str:
    return as_json(message).decode("ascii")


def show_reply(reply: dict[str, object]) -> None:
    """Show a reply as text, its tables as wide as the terminal, without its head line: there is only one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    show(to_table(reply, width).partition("\n")[2].removesuffix("\n"))


def show(text: str) -> None:
    """Write to standard output; a letter that it has no code for as an escape."""
    encoding = sys.stdout.encoding  # a letter that our own output has no code for
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()

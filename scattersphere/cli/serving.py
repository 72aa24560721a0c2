"""`scattersphere serve`, `dev`, `token`: their flags, `--config FILE`, and what `scattersphere.remote` is given."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from scattersphere._text import did_you_mean
from scattersphere.cli import reaching
from scattersphere.cli.options import AS_JSON, PARAMS, fail
from scattersphere.errors import ConflictError

if TYPE_CHECKING:
    from scattersphere.commands.limits import Limits

# ---- `--config FILE`: options from a TOML file, which flags on the command line override

HIGHEST = 2**53
"""The highest limit: the largest number to which each whole number is exact in every reader of JSON."""
LIMITS = "scattersphere.limits"
"""Where a command that has limits finds those of its file: it puts None there before."""
SERVER = "scattersphere.server"
"""Where a command that has limits finds the options of the Server, too."""


def read_options(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """Take the defaults of the command from `file`: each key is the name of a flag, `tls-cert = "cert.pem"`.

    Relative paths are those of the file's folder, so that the file means the same wherever it is used from.
    Raises `click.BadParameter`, with all that is wrong at once.
    """
    if file is None:
        return None
    try:
        with file.open("rb") as source:
            given = tomllib.load(source)
    except OSError as exc:
        raise click.BadParameter(f"{file}: {exc.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise click.BadParameter(f"{file}: {exc}") from None
    except RecursionError:
        raise click.BadParameter(f"{file}: it is nested too deeply") from None
    if LIMITS in context.meta:
        context.meta[LIMITS] = file, limits_of(file, given.pop("limits", {}))
        context.meta[SERVER] = server_of(file, given.pop("server", {}))
    known = {_key(other): other for other in context.command.params if other is not option}
    known.pop("help", None)
    wrong = [_unknown(key, list(known)) for key in given if key not in known]
    wrong += [
        text for key, value in given.items() if key in known and (text := _mistake(key, value, known[key]))
    ]
    if wrong:
        raise click.BadParameter(f"{file}: " + "; ".join(wrong))
    context.default_map = {
        str(known[key].name): _placed(value, known[key], file.absolute().parent)
        for key, value in given.items()
    }
    return file


def server_of(file: Path, table: object) -> dict[str, object]:
    """Return the options that the table `[server]` of a file sets, by their names in `ServerOptions`.

    Raises `click.BadParameter`, with all that is wrong at once.
    """
    from scattersphere.options import ServerOptions  # noqa: PLC0415 - `--help` stays quick

    if not isinstance(table, dict):
        raise click.BadParameter(f'{file}: "server" is a table: [server]')
    found, wrong = ServerOptions.from_table(table)
    for name in ("log_folder", "snapshot_folder"):
        if name in found:
            found[name] = file.absolute().parent / found[name]
    if wrong:
        raise click.BadParameter(f"{file}: [server] " + "; ".join(wrong))
    return found


def limits_of(file: Path, table: object) -> Limits:
    """Return the limits that the table `[limits]` of a file sets, by their names in `Limits`.

    Raises `click.BadParameter`, with all that is wrong at once.
    """
    from scattersphere.commands.limits import Limits  # noqa: PLC0415 - `--help` stays quick

    if not isinstance(table, dict):
        raise click.BadParameter(f'{file}: "limits" is a table: [limits]')
    known = attrs.asdict(Limits())
    wrong = []
    for name, value in table.items():
        if name not in known:
            wrong.append(
                f'unknown limit "{name}"' + (did_you_mean(name, known) or f"; there are {', '.join(known)}")
            )
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= HIGHEST:
            wrong.append(f'limit "{name}" is a number above 0')
        elif isinstance(known[name], int) and not isinstance(value, int):
            wrong.append(f'limit "{name}" is a whole number')
    if wrong:
        raise click.BadParameter(f"{file}: " + "; ".join(wrong))
    return Limits(**table)


def reread_limits(file: Path) -> Limits:
    """Return the limits that a file sets now. Raises `ConflictError`, `OSError`."""
    try:
        with file.open("rb") as source:
            return limits_of(file, tomllib.load(source).get("limits", {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConflictError(f"{file}: {exc}") from None
    except click.BadParameter as exc:
        raise ConflictError(exc.message) from None


def _key(option: click.Parameter) -> str:
    """The longest flag without its dashes: that is the one that people know."""
    return max(option.opts, key=len).lstrip("-")


def _unknown(key: str, known: list[str]) -> str:
    hint = did_you_mean(key.replace("_", "-"), known)
    return f'unknown key "{key}"' + (hint or f"; there are {', '.join(known)}")


def _mistake(key: str, value: object, option: click.Parameter) -> str:
    """TOML has types, so a wrong one is an error here and not a conversion later."""
    if option.multiple:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return "" if fits else f'"{key}" is a list of strings: {key} = ["..."]'
    if getattr(option, "is_flag", False):
        return "" if isinstance(value, bool) else f'"{key}" is true or false'
    if option.type in {click.FLOAT, click.INT}:
        return (
            "" if isinstance(value, int | float) and not isinstance(value, bool) else f'"{key}" is a number'
        )
    return "" if isinstance(value, str) else f'"{key}" is a string: {key} = "..."'


def _placed(value: Any, option: click.Parameter, folder: Path) -> object:
    if not isinstance(option.type, click.Path):
        return value
    return [str(folder / item) for item in value] if option.multiple else str(folder / value)


CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=read_options,
    is_eager=True,
    expose_value=False,
    help="A TOML file with these options: tls-cert = 'cert.pem'. Flags override it.",
)


# ---- the commands

FOLDER = click.Path(file_okay=False, exists=True, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
TOKENS = click.option(
    "--tokens", type=FILE, help=f"The token file. Defaults to {reaching.TOKENS} in --state."
)


def _roles(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    from scattersphere.commands.access import Role  # noqa: PLC0415 - `--help` stays quick

    return [str(role) for role in Role if role.startswith(begun)]


class _Limited(click.Command):
    """A command whose file of options may have the tables `[server]` and `[limits]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[LIMITS] = ctx.meta[SERVER] = None
        return super().parse_args(ctx, args)


@click.command(cls=_Limited)
@CONFIG
@click.option("--bundles", multiple=True, type=FOLDER, help="A folder of bundles, watched; may be repeated.")
@click.option("--jobs", type=FOLDER, help="The folder of definitions.")
@click.option("--watch-jobs", is_flag=True, help="Load definitions again that are edited there.")
@click.option("--tcp", multiple=True, metavar="HOST:PORT", help="Listen there; port 0 for any.")
@click.option("--unix", type=FILE, help="Listen on a unix socket, in a folder of mode 0700.")
@click.option("--tokens", type=FILE, help="The token file; TCP needs one.")
@click.option("--tls-cert", type=FILE, help="The certificate; beyond loopback TCP needs one.")
@click.option("--tls-key", type=FILE, help="The key of the certificate.")
@click.option("--audit", type=FILE, help="Append who did what to this file.")
@click.option(
    "--journal", type=FILE, help="Keep runs in this file: those that have not ended go on after a restart."
)
@click.option(
    "--state",
    "state_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep socket, tokens, audit, journal and logs of runs in this private folder, where nothing else is said. "
    f"Defaults to {reaching.STATE} where there is no other address.",
)
@click.option(
    "--http", metavar="HOST:PORT", help="Pages for browsers and the HTTP API there; port 0 for any."
)
@click.option(
    "--http-name", "http_names", multiple=True, metavar="NAME", help="A name that browsers call --http by."
)
@click.option("--behind-proxy", is_flag=True, help="Let --http listen beyond loopback: a proxy adds TLS.")
@click.option("--stock-tasks", is_flag=True, help="Offer the stock tasks too. `Shell` runs any program.")
def serve(
    *, stock_tasks: bool, http: str | None, http_names: tuple[str, ...], behind_proxy: bool, **flags: Any
) -> None:
    """Serve runs to sessions: load the bundles, then the jobs, then listen until SIGTERM.

    Without an address it listens on a unix socket in the state folder: `scattersphere runs` in the same folder asks it.
    """
    import anyio  # noqa: PLC0415 - `--help` stays quick

    from scattersphere import tasks  # noqa: PLC0415 - the same
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - the same
    from scattersphere.remote import serve as serving  # noqa: PLC0415 - the same

    host_tasks = {"std": tasks.ALL} if stock_tasks else {}
    meta = click.get_current_context().meta
    if (found := meta[LIMITS]) is not None:
        file, flags["limits"] = found
        flags["server"] = meta[SERVER]
        flags["reread_limits"] = partial(reread_limits, file)
    try:
        _keep_state(flags.pop("state_folder"), flags, http)
        if (journal := flags.pop("journal")) is not None:
            flags["server"] = {**flags.get("server", {}), "journal": journal}
        if http is not None:
            flags["tls"] = serving.tls_context(flags["tls_cert"], flags["tls_key"])
            flags["beside"] = (_pages(http, flags["tls"], http_names, behind_proxy=behind_proxy),)
        anyio.run(serving.serve, serving.ServeOptions(host_tasks=host_tasks, **flags))
    except (ScattersphereError, OSError) as exc:
        fail(exc)


def _keep_state(folder: Path | None, flags: dict[str, Any], http: str | None) -> None:
    """Put what nothing was said of into the state folder: socket, tokens, audit, journal, logs. Raises `OSError`."""
    if folder is None and (flags["tcp"] or flags["unix"] or http):
        return
    from scattersphere.commands.tokens import TokenFile  # noqa: PLC0415 - `--help` stays quick

    where = folder or reaching.STATE
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags["unix"] = flags["unix"] or where / reaching.SOCKET
    flags["audit"] = flags["audit"] or where / reaching.AUDIT
    if flags["tcp"] or http or (where / reaching.TOKENS).exists():
        if http and not flags["tcp"] and not flags["tokens"]:
            TokenFile(where / reaching.TOKENS).make()  # browsers come in by links; tokens may come later
        flags["tokens"] = flags["tokens"] or where / reaching.TOKENS
    flags["server"] = {"log_folder": where / reaching.LOGS, **flags.get("server", {})}
    if "journal" not in flags["server"]:
        flags["journal"] = flags["journal"] or where / reaching.JOURNAL
    option = "" if folder is None else f" --state {shlex.quote(str(folder))}"
    flags["told"] = f"ask it from another shell: scattersphere runs{option}"


def _pages(address: str, tls: Any, names: tuple[str, ...], *, behind_proxy: bool) -> object:
    """Return what serves pages beside the listeners. Raises `ListenError`, `MissingExtraError`."""
    from scattersphere.web.serving import bind, serve_pages  # noqa: PLC0415 - `--help` stays quick

    listening = bind(address, beyond_loopback=behind_proxy or tls is not None)
    return partial(serve_pages, listening=listening, say=click.echo, tls=tls, hosts=names)


@click.command()
@click.argument("folder", type=FOLDER, default=".")
@click.option("--open", "open_", is_flag=True, help="Show pages of it in a browser.")
@click.option(
    "--run", "job", metavar="JOB", help="Run it now, and again whenever its code or its file changes."
)
@PARAMS
@AS_JSON
def dev(folder: Path, job: str | None, params: dict[str, object], *, open_: bool, as_json: bool) -> None:
    """Serve FOLDER while you work in it: watch its bundles and jobs, show reloads, runs and failures.

    Bundles lie in FOLDER or in FOLDER/bundles, jobs in FOLDER or in FOLDER/jobs. A unix socket for sessions is
    opened in a private folder; its address is the first line.
    """
    import anyio  # noqa: PLC0415 - `--help` stays quick

    from scattersphere.cli.developing import develop  # noqa: PLC0415 - the same
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - the same

    try:
        anyio.run(develop, folder, job, params, as_json, open_)
    except (ScattersphereError, OSError) as exc:
        fail(exc)


@click.group()
def token() -> None:
    """Make, list and revoke the tokens of `serve`."""


def _file(tokens: Path | None, state_folder: Path | None) -> Path:
    """Return the token file that is meant."""
    return tokens or (state_folder or reaching.STATE) / reaching.TOKENS


@token.command()
@click.argument("name", required=False)
@TOKENS
@reaching.STATE_OPTION
@click.option("--name", "named", help="Who it is for; the same as NAME.")
@click.option("--role", required=True, shell_complete=_roles, help="viewer, runner, operator or admin.")
@click.option("--allow", multiple=True, metavar="PATTERN", help="GLOB, job:GLOB or bundle:GLOB; else all.")
@click.option("--days", type=float, help="Days until it expires.")
@click.option(
    "--out", type=FILE, help="Write it into this new file, which only you can read, and print nothing."
)
def create(
    name: str | None,
    named: str | None,
    tokens: Path | None,
    state_folder: Path | None,
    role: str,
    allow: tuple[str, ...],
    days: float | None,
    out: Path | None,
) -> None:
    """Print a new token for NAME. It is shown this once."""
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - `--help` stays quick
    from scattersphere.remote.serve import create_token  # noqa: PLC0415 - the same

    if (name is None) == (named is None):
        raise click.UsageError("say once who it is for: scattersphere token create NAME --role ROLE")
    file = _file(tokens, state_folder)
    try:
        if tokens is None:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if out is None:
            click.echo(create_token(file, str(name or named), role, patterns=allow, days=days))
            return
        with open(
            out, "x", encoding="ascii", opener=_private
        ) as target:  # before there is a token that nobody has
            target.write(create_token(file, str(name or named), role, patterns=allow, days=days) + "\n")
    except (ScattersphereError, OSError) as exc:
        fail(exc)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@token.command("list")
@TOKENS
@reaching.STATE_OPTION
@AS_JSON
def list_(tokens: Path | None, state_folder: Path | None, *, as_json: bool) -> None:
    """List the tokens: their ids, never themselves."""
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - `--help` stays quick
    from scattersphere.remote.serve import list_tokens  # noqa: PLC0415 - the same

    try:
        rows = list_tokens(_file(tokens, state_folder))
        lines = [json.dumps(row) for row in rows] if as_json else _aligned(rows)
        for line in lines:
            click.echo(line)
    except (ScattersphereError, OSError) as exc:
        fail(exc)


def _aligned(rows: list[dict[str, str]]) -> list[str]:
    """Return rows under a header, in columns."""
    if not rows:
        return []
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]


@token.command()
@TOKENS
@reaching.STATE_OPTION
@click.argument("name_or_id")
def revoke(tokens: Path | None, state_folder: Path | None, name_or_id: str) -> None:
    """Revoke the tokens of a name, or the one of an id; their sessions end within a second."""
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - `--help` stays quick
    from scattersphere.remote.serve import revoke_token  # noqa: PLC0415 - the same

    try:
        for gone in revoke_token(_file(tokens, state_folder), name_or_id):
            click.echo(gone)
    except (ScattersphereError, OSError) as exc:
        fail(exc)

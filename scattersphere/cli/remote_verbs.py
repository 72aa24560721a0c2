"""`scattersphere runs --at HOST:PORT`: the commands of a server elsewhere, made from the one table of commands.

Each takes its words as the line protocol does (`logs 7 count tail=20`), and each argument as an option, too. Where a
definition is wanted it is a file, or - for standard input.
"""

from __future__ import annotations

import datetime as dt
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from scattersphere.cli import reaching
from scattersphere.cli.options import AS_JSON, PARAMS
from scattersphere.cli.verbs import OF_A_SESSION
from scattersphere.commands import handlers  # noqa: F401 - importing it fills the table
from scattersphere.commands.arguments import ArgumentKind, from_word
from scattersphere.commands.errors import RequestError
from scattersphere.commands.help import usage
from scattersphere.commands.table import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere._json_words import JsonObject
    from scattersphere.commands.arguments import CommandArgument
    from scattersphere.commands.table import CommandSpec

_OTHER_FLAGS = {"state": "--in-state"}
"""Arguments whose names are options of every verb."""
_OF_A_JOURNAL = frozenset({"runs", "logs"})
"""What can be read from a journal, too, without a server."""
EXIT_CODES = """\b
Exit codes: 0 it went well, 1 a run did not succeed or the server refused,
2 the command line is wrong, 3 a definition is wrong or there is no connection."""


@cache
def verb(name: str) -> click.Command | None:
    """Return the command that asks a server for a command of the table, or None where there is none."""
    row = COMMANDS.get(name)
    if row is None or name in OF_A_SESSION:
        return None
    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar=_metavar(row))
    given = [_option(key, taken, row) for key, taken in row.arguments.items() if key != row.whole]
    if name == "logs":
        given.append(click.Option(["-f", "--follow"], is_flag=True, help="Go on with the lines to come."))
    if name in _OF_A_JOURNAL:
        text = "Read this journal instead of asking a server; none need be running."
        given.append(click.Option(["--journal"], type=click.Path(dir_okay=False), help=text))
    json_option: list[click.Parameter] = list(AS_JSON(lambda: None).__click_params__)  # type: ignore[attr-defined]
    return click.Command(
        name,
        params=[words, *given, *reaching.options(), *json_option],
        callback=partial(_ask, row),
        help=f"{row.help}.\n\n\b\nExample: scattersphere {_example(row)}"
        + (f"\nNeeds the role {row.role}." if row.role is not None else ""),
        short_help=f"{row.help}.",
        epilog=EXIT_CODES,
    )


def _metavar(row: CommandSpec) -> str:
    if row.whole is not None:
        return "FILE"
    return usage(row).removeprefix(row.name).strip().replace(" AS NAME=VALUE...]", "]...")


def _example(row: CommandSpec) -> str:
    if row.whole is not None:
        return f"{row.name} nightly.json"
    return row.example


def _option(name: str, taken: CommandArgument, row: CommandSpec) -> click.Option:
    if name == row.extra:
        (made,) = PARAMS(lambda: None).__click_params__  # type: ignore[attr-defined]
        made.name, made.help = name, f"One of the {taken.help}; may be repeated."
        option: click.Option = made
        return option
    flag = _OTHER_FLAGS.get(name, f"--{name.replace('_', '-')}")
    text = taken.help[:1].upper() + taken.help[1:] + "."
    if taken.kind is ArgumentKind.FLAG:
        return click.Option([flag, name], is_flag=True, help=text)
    kind: object = click.Choice(taken.choices) if taken.choices and taken.kind is ArgumentKind.TEXT else None
    shown = {
        ArgumentKind.INTEGER: "N",
        ArgumentKind.NUMBER: "SECONDS" if taken.help == "seconds" else "NUMBER",
    }.get(taken.kind)
    return click.Option([flag, name], type=kind, metavar=None if kind else shown or "TEXT", help=text)


def _ask(
    row: CommandSpec,
    words: tuple[str, ...],
    *,
    as_json: bool,
    follow: bool = False,
    journal: str | None = None,
    **given: Any,
) -> None:
    from scattersphere.cli.asking import Asked, ask, say  # noqa: PLC0415 - it loads the client

    named = {name: given.pop(name) for name in reaching.NAMES}
    where = None if journal is not None else reaching.reached(**named)
    try:
        args = _arguments(row, words, given)
    except RequestError as exc:
        say(f"scattersphere: {exc}", 2)
    if where is None:
        from scattersphere.cli import journaling  # noqa: PLC0415 - as above

        if follow:
            raise click.UsageError("a journal is read as it is; -f follows a server")
        read: Any = {"runs": journaling.runs, "logs": journaling.logs}[row.name]
        read(journal, as_json=as_json, **args)
        return
    ask(where, Asked(row.name, args, follow, as_json))


def _arguments(row: CommandSpec, words: tuple[str, ...], given: Mapping[str, object]) -> dict[str, object]:
    """Return what words and options say. Raises `RequestError`, `click.UsageError`."""
    from scattersphere.cli.asking import compile_words  # noqa: PLC0415 - as above

    if row.whole is not None:
        args = {row.whole: _definition(words, row)}
    else:
        args = compile_words((row.name, *words), as_lines=False).args
    for name, value in _said(row, given).items():
        if name in args and name != row.extra:
            raise click.UsageError(f"{name} is given twice")
        args[name] = {**args.get(name, {}), **value} if name == row.extra else value
    for name, taken in row.arguments.items():
        if taken.required and name not in args:
            raise click.UsageError(f"{name} is missing: {taken.help}")
    return args


def validate_at(files: tuple[str, ...], where: Mapping[str, Any], *, as_json: bool) -> NoReturn:
    """Have a server say what is wrong with a definition file."""
    from scattersphere.cli.asking import Asked, ask  # noqa: PLC0415 - as above

    row = COMMANDS["validate"]
    ask(reaching.reached(**where), Asked("validate", {"definition": _definition(files, row)}, False, as_json))


def next_at(job: str, only: str | None, count: int, where: Mapping[str, Any], *, as_json: bool) -> NoReturn:
    """Have a server say when the schedules of a job, or `only` one of them, fire next."""
    from scattersphere.cli.asking import Asked, ask_with  # noqa: PLC0415 - as above

    async def tell(address: str, token: str | None, tls: Any, asked: Asked) -> int:
        from scattersphere.cli.timing import write_rows  # noqa: PLC0415 - as above
        from scattersphere.remote.client import connect  # noqa: PLC0415 - as above

        async with connect(address, token=token, tls=tls) as client:
            names = [only]
            if only is None:
                names = [row["name"] for row in (await client.call("schedules", job=job))["schedules"]]
            found = [await client.call("next", schedule=name, **asked.args) for name in names]
        rows = [
            {"schedule": row["name"], **{key: row[key] for key in ("words", "zone", "enabled", "next")}}
            for row in found
        ]
        write_rows(job, rows, dt.datetime.now(dt.UTC), as_json=as_json)
        return 0

    asked = Asked("next", {"job": job, "count": count}, follow=False, as_lines=as_json)
    ask_with(reaching.reached(**where), asked, tell)


def schema_at(where: Mapping[str, Any], write: Callable[[Any], None]) -> NoReturn:
    """Have a server give the schema of the definitions that it reads."""
    from scattersphere.cli.asking import Asked, ask_with  # noqa: PLC0415 - as above

    async def get(address: str, token: str | None, tls: Any, asked: Asked) -> int:
        from scattersphere.remote.client import connect  # noqa: PLC0415 - as above

        async with connect(address, token=token, tls=tls) as client:
            write((await client.call(asked.name, **asked.args))["schema"])
        return 0

    ask_with(reaching.reached(**where), Asked("schema", {"command": "definition"}, False, False), get)


def _said(row: CommandSpec, given: Mapping[str, object]) -> JsonObject:
    """Return what options say, converted as the words of the protocol are. Raises `RequestError`."""
    found: dict[str, object] = {}
    for name, value in given.items():
        if value in (None, False, {}):
            continue
        taken = row.arguments[name]
        found[name] = from_word(name, taken, value) if isinstance(value, str) else value
    return found


def _definition(words: tuple[str, ...], row: CommandSpec) -> Any:
    """Return the definition in a file, or - for standard input, or in the words themselves."""
    from scattersphere.cli.asking import parse_definition, say  # noqa: PLC0415 - as above

    if len(words) != 1:
        raise click.UsageError(f"{row.name} takes one FILE, or - for standard input")
    if words[0].startswith("{"):
        return parse_definition(words[0], "the definition")
    try:
        with click.open_file(words[0], encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        say(f"scattersphere: {words[0]}: {getattr(exc, 'strerror', None) or exc}", 3)
    return parse_definition(text, words[0])

"""Options that several commands share, `--json` and `-p`, and how a command ends with an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from scattersphere.model.logs import make_block

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one value a line.")


def fail(exc: Exception) -> NoReturn:
    """End with the message of an error and the code 3, without a traceback."""
    words = os_error_words(exc, str(exc.filename)) if isinstance(exc, OSError) and exc.filename else str(exc)
    sys.stderr.write(make_block(f"scattersphere: {words}") + "\n")
    raise SystemExit(3)


def os_error_words(exc: OSError, name: str) -> str:
    """Say why a file cannot be read, and which one may be meant where it is a folder."""
    words = f"{name}: {exc.strerror or exc}"
    if isinstance(exc, IsADirectoryError):
        found = sorted(each for each in Path(name).glob("*.json") if not each.name.endswith(".schema.json"))
        words += f"; write the file in it: {found[0]}" if found else ""
    return words


def _parameter(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, object]:
    """Read `key=text` and `key:=json`."""
    del context, option
    params: dict[str, object] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key.rstrip(":"):
            raise click.BadParameter(f"{item!r}: write key=text, or key:=json for anything else")
        name = key.removesuffix(":")
        if name in params:
            raise click.BadParameter(f"{item!r}: {name} is given twice")
        if key != name:
            try:
                params[name] = json.loads(value)
            except (ValueError, RecursionError) as exc:
                raise click.BadParameter(f"{item!r}: {value!r} is no JSON ({exc})") from None
        else:
            params[name] = value
    return params


WORDS = click.argument("words", nargs=-1, callback=_parameter, metavar="[KEY=TEXT | KEY:=JSON]...")
PARAMS = click.option(
    "-p",
    "params",
    multiple=True,
    callback=_parameter,
    metavar="KEY=TEXT | KEY:=JSON",
    help="Set a parameter of the run; may be repeated.",
)

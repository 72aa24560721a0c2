"""`--config FILE`: the options of a command from a TOML file, which flags on the command line override."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from scattersphere._text import did_you_mean
from scattersphere.errors import ConflictError

if TYPE_CHECKING:
    from scattersphere.commands.limits import Limits

HIGHEST = 2**53


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


LIMITS = "scattersphere.limits"
"""Where a command that has limits finds those of its file: it puts None there before."""


SERVER = "scattersphere.server"
"""Where a command that has limits finds the options of the Server, too."""


def server_of(file: Path, table: object) -> dict[str, Any]:
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

"""The commands and their options. What they do is imported when one is called: `--help` stays quick."""

from __future__ import annotations

import json
from importlib.metadata import version as installed_version
from typing import Any

import click

from scattersphere.cli.serving import serve, token

EXIT_CODES = """\b
Exit codes: 0 the run succeeded, 1 it did not, 2 the command line is wrong,
3 the file is wrong or cannot be read, 130 interrupted."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(installed_version("scattersphere"), "--version", message="scattersphere %(version)s")
def cli() -> None:
    """Scattersphere: run jobs, which are DAGs of tasks, from definition files."""


def _parameter(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """Read `key=text` and `key:=json`."""
    del context, option
    params: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key.rstrip(":"):
            raise click.BadParameter(f"{item!r}: write key=text, or key:=json for anything else")
        if key.endswith(":"):
            key = key[:-1]
            try:
                params[key] = json.loads(value)
            except ValueError as exc:
                raise click.BadParameter(f"{item!r}: {value!r} is no JSON ({exc})") from None
        else:
            params[key] = value
    return params


@cli.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "-p",
    "params",
    multiple=True,
    callback=_parameter,
    metavar="KEY=TEXT | KEY:=JSON",
    help="Set a parameter of the run; may be repeated.",
)
def run(file: str, params: dict[str, Any]) -> None:
    """Register the bundles that FILE names, run the job in it, and show how it goes.

    The first Ctrl-C cancels the run, the second kills it.
    """
    from scattersphere.cli.running import run_file  # noqa: PLC0415 - see above

    raise SystemExit(run_file(file, params))


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False), required=False)
def schema(file: str | None) -> None:
    """Print the JSON Schema of definition files, or write it to FILE."""
    from scattersphere.model.definition import JobDefinition  # noqa: PLC0415 - see above

    text = json.dumps(JobDefinition.schema(), indent=2) + "\n"
    if file is None:
        click.echo(text, nl=False)
    else:
        with click.open_file(file, "w", encoding="utf-8") as out:
            out.write(text)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"scattersphere {installed_version('scattersphere')}")


cli.add_command(serve)
cli.add_command(token)

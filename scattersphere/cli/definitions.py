"""The commands that look at definition files and run nothing: `validate`, `graph`, `next`, `schema`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scattersphere.cli.options import AS_JSON, fail
from scattersphere.cli.reaching import reaching

EXIT_CODES = """\b
Exit codes: 0 nothing is wrong, 2 the command line is wrong, 3 a file is wrong or
cannot be read."""
FILE = click.Path(dir_okay=False, allow_dash=True)
FORMATS = ("tree", "svg", "mermaid", "dot")
FROM_A_SERVER = 100
"""The most times that the command `next` of a server tells."""

BUNDLES = click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Load this bundle too (its code is run); may be repeated.",
)


@click.command(epilog=EXIT_CODES)
@click.argument("files", nargs=-1, required=True, type=FILE)
@BUNDLES
@reaching
@AS_JSON
def validate(files: tuple[str, ...], bundles: tuple[Path, ...], *, as_json: bool, **where: object) -> None:
    """Say everything that is wrong with definition FILES (- is standard input), each thing with its line.

    The bundles that a file names are loaded (their code is run) to check tasks and arguments; of a file
    that names none only what stands in it is checked. With --at or --state that server says what is wrong with one
    FILE, with the code that is there.
    """
    if where["address"] is not None or where["state_folder"] is not None:
        from scattersphere.cli.remote_verbs import validate_at  # noqa: PLC0415 - `--help` stays quick

        validate_at(files, where, as_json=as_json)
    from scattersphere.cli.checking import check_files  # noqa: PLC0415 - `--help` stays quick

    raise SystemExit(check_files(files, bundles, as_json=as_json))


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=FILE)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="tree", help="tree, if nothing is said."
)
def graph(file: str, form: str) -> None:
    """Draw the tasks of a definition FILE (- is standard input): a tree, SVG, Mermaid, or Graphviz.

    For a picture: scattersphere graph job.json --format svg > job.svg
    """
    from scattersphere.cli.checking import right  # noqa: PLC0415 - as above
    from scattersphere.errors import DefinitionError  # noqa: PLC0415 - as above

    try:
        definition = right(file)
    except (DefinitionError, OSError) as exc:
        fail(exc)
    draw = {
        "tree": definition.to_tree,
        "svg": definition.to_svg,
        "mermaid": definition.to_mermaid,
        "dot": definition.to_dot,
    }[form]
    click.echo(draw(), nl=False)


@click.command(name="next", epilog=EXIT_CODES)
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "-n", "count", type=click.IntRange(1, 1000), default=5, help="How many times of each; defaults to 5."
)
@click.option("--schedule", "only", metavar="NAME", help="Only this schedule. Defaults to all.")
@click.option("--since", metavar="TIME", help="Begin at this ISO time with an offset. Defaults to now.")
@reaching
@AS_JSON
def next_times(
    file: str, count: int, only: str | None, since: str | None, *, as_json: bool, **where: object
) -> None:
    """Show when the schedules of a definition FILE fire next: in their own time zones, and in UTC.

    No code is loaded. With --at or --state FILE is the name of a job of that server, which counts from now on.
    """
    if where["address"] is not None or where["state_folder"] is not None:
        from scattersphere.cli.remote_verbs import next_at  # noqa: PLC0415 - as above

        if since is not None:
            raise click.UsageError("--since is for a FILE: a server counts from now on")
        if count > FROM_A_SERVER:
            raise click.UsageError(f"a server tells {FROM_A_SERVER} times at most: write -n {FROM_A_SERVER}")
        next_at(file, only, count, where, as_json=as_json)
    from scattersphere.cli.timing import print_next  # noqa: PLC0415 - as above
    from scattersphere.errors import DefinitionError  # noqa: PLC0415 - as above
    from scattersphere.schedules.occurrences import read_instant  # noqa: PLC0415 - as above

    try:
        if since is not None:
            read_instant(since)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{since!r} is no time; write it like 2026-12-24T18:00:00+01:00", param_hint="--since"
        ) from None
    try:
        print_next(file, count, since, only, as_json=as_json)
    except LookupError as exc:
        raise click.BadParameter(str(exc.args[0]), param_hint="--schedule") from None
    except (DefinitionError, OSError) as exc:
        fail(exc)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@BUNDLES
@reaching
def schema(file: str | None, bundles: tuple[Path, ...], **where: object) -> None:
    """Print the JSON Schema of definition files, or write it to FILE.

    With --bundle it knows the tasks of a bundle and their arguments, so that an editor completes and
    explains them. With --at or --state it is the schema of what that server reads, which may be of another version.
    """
    from scattersphere.cli.checking import schema_with  # noqa: PLC0415 - as above
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - as above

    if where["address"] is not None or where["state_folder"] is not None:
        from scattersphere.cli.remote_verbs import schema_at  # noqa: PLC0415 - as above

        if bundles:
            raise click.UsageError("--bundle is for a schema that is made here")
        schema_at(where, lambda found: _write(found, file))
    try:
        found = schema_with(bundles)
    except ScattersphereError as exc:
        fail(exc)
    _write(found, file)


def _write(schema: dict[str, object], file: str | None) -> None:
    text = json.dumps(schema, indent=2) + "\n"
    try:
        with click.open_file(file or "-", "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as exc:
        fail(exc)

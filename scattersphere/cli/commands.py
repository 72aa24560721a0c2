"""The commands of the command line and their options. What they do is imported when one is called."""

from __future__ import annotations

import json
import platform
import shlex
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from scattersphere._version import own_version
from scattersphere.cli.definitions import graph, next_times, schema, validate
from scattersphere.cli.journaling import journal, show
from scattersphere.cli.options import AS_JSON, PARAMS, WORDS, fail
from scattersphere.cli.reaching import reached, reaching
from scattersphere.cli.serving import dev, serve, token
from scattersphere.cli.verbs import groups

EXIT_CODES = """\b
Exit codes: 0 the run succeeded, 1 it did not, 2 the command line is wrong,
3 the file is wrong or cannot be read, 130 interrupted."""


class _Commands(click.Group):
    """Our own commands, and the verbs of a server elsewhere: those are looked up when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*sorted(self.commands), *(name for rows in groups(self.commands).values() for name in rows)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        from scattersphere.cli.remote_verbs import verb  # noqa: PLC0415 - it takes a quarter of a second

        return verb(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without loading what they do."""
        helps = {name: command.get_short_help_str() for name, command in self.commands.items()}
        for rows in groups(self.commands).values():
            helps |= rows
        found = [
            CompletionItem(name, help=words) for name, words in helps.items() if name.startswith(incomplete)
        ]
        return found + super(click.Group, self).shell_complete(ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from scattersphere._text import did_you_mean  # noqa: PLC0415 - as above

            near = did_you_mean(args[0], self.list_commands(ctx)) or "; --help lists them"
            ctx.fail(f"no command {args[0]!r}{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        of_server = ("serve", "dev", "token")
        files = [name for name in sorted(self.commands) if name not in of_server]
        sections: dict[str, dict[str, str]] = {
            title: {name: self.commands[name].get_short_help_str(formatter.width - 16) for name in names}
            for title, names in (("With files", files), ("A server here", of_server))
        }
        sections |= {
            f"Of a server, by --at ADDRESS: {key}": rows for key, rows in groups(self.commands).items()
        }
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))
        del ctx


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(own_version(), "--version", message="scattersphere %(version)s")
def cli() -> None:
    """Scattersphere: run jobs, which are DAGs of tasks, from definition files; serve them, and ask who serves them.

    The commands of a server ask the one at --at ADDRESS, else at $SCATTERSPHERE_ADDRESS, else the one that `serve` has
    started in this folder.
    """
    from scattersphere.logs.hostlog import keep_quiet  # noqa: PLC0415 - `--help` needs none of it

    keep_quiet()


@cli.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(allow_dash=True))  # a job of a server may be called like a folder
@WORDS
@PARAMS
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write the timeline; Perfetto opens it."
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the tasks with their states and times, as the name ends: .svg, .png, .mmd, .dot or .txt.",
)
@reaching
@AS_JSON
def run(
    file: str,
    words: dict[str, object],
    params: dict[str, object],
    *,
    trace: Path | None,
    picture: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Register the bundles that FILE names, run the job in it, and show how it goes. - is standard input.

    Parameters of the run are written as KEY=TEXT or KEY:=JSON, with or without -p. With --at or --state FILE is the
    name of a job of that server, which runs it. The first Ctrl-C cancels the run, the second kills it.
    """
    for name in words.keys() & params.keys():
        raise click.UsageError(f"{name} is given twice, with -p and without")
    params = {**words, **params}
    if where["address"] is not None or where["state_folder"] is not None:
        from scattersphere.cli.remote_run import run_at  # noqa: PLC0415 - see above

        if trace is not None or picture is not None:
            raise click.UsageError("--trace and --picture are drawn from a run of a FILE")
        run_at(reached(**where), file, params, as_lines=as_json)
    from scattersphere.cli.running import run_file  # noqa: PLC0415 - see above

    raise SystemExit(run_file(file, params, as_json=as_json, trace=trace, picture=picture))


@cli.command()
@AS_JSON
def version(*, as_json: bool) -> None:
    """Print the version, and that of Python."""
    own, python = own_version(), platform.python_version()
    click.echo(
        json.dumps({"scattersphere": own, "python": python})
        if as_json
        else f"scattersphere {own}, Python {python}"
    )


COMPLETION = """\b
bash, in ~/.bashrc:  eval "$(scattersphere completion bash)"
zsh, in ~/.zshrc, after compinit:  eval "$(scattersphere completion zsh)"
fish:  scattersphere completion fish > ~/.config/fish/completions/scattersphere.fish"""


@cli.command(epilog=COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands and options."""
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - click has all three
    click.echo(made(cli, {}, "scattersphere", "_SCATTERSPHERE_COMPLETE").source())


@cli.command()
@click.argument("name")
@click.option(
    "--in",
    "parent",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="The folder to make it in. Defaults to the current one.",
)
@AS_JSON
def new(name: str, parent: Path, *, as_json: bool) -> None:
    """Make a folder NAME with a bundle, a job and the schema for editors, ready to run."""
    from scattersphere.cli.scaffold import make_folder  # noqa: PLC0415 - see above
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - see above

    try:
        made = make_folder(name, parent)
    except (ScattersphereError, OSError) as exc:
        fail(exc)
    if as_json:
        click.echo(json.dumps({"made": [str(path) for path in made]}))
        return
    for path in made:
        click.echo(f"made {path}")
    folder = shlex.quote(str(parent / name))
    click.echo(f"try: scattersphere run {folder}/{name}.json -p name=Ada")
    click.echo(f"test: python -m pytest {folder}")


cli.add_command(validate)
cli.add_command(graph)
cli.add_command(next_times)
cli.add_command(schema)
cli.add_command(journal)
cli.add_command(show)
cli.add_command(serve)
cli.add_command(dev)
cli.add_command(token)

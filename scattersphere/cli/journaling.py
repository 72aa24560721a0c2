"""`scattersphere journal ...`, and what `runs`, `show` and `logs` do with `--journal`: a journal's file, no server.

All but `restore` and `prune` only read, beside a live server too, in reads of at most a tenth of a second.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from scattersphere.cli.options import AS_JSON, fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.journal.sqlite import JournalReader

READ_SECONDS = 0.1
"""How long one look into a journal may take: a long one keeps the server's log of changes from being taken up."""
DAY = 86_400.0
FILE = click.argument("file", type=click.Path(dir_okay=False))
JOURNAL = click.option(
    "--journal", "file", type=click.Path(dir_okay=False), required=True, help="The file of the journal."
)


@click.group()
def journal() -> None:
    """Look after the journal of a server: check it, back it up, restore it, prune it, export it."""


@journal.command()
@FILE
@AS_JSON
def check(file: str, *, as_json: bool) -> None:
    """Say everything that is wrong with the journal FILE. Ends with 0 where nothing is, else with 1."""
    from scattersphere.journal.check import check as examine  # noqa: PLC0415 - `--help` stays quick

    with _failing():
        found = examine(file)
    for finding in found:
        _say({"run": finding.run, "words": finding.words} if as_json else str(finding))
    if not found and not as_json:
        _say(f"{file} is sound")
    raise SystemExit(1 if found else 0)


@journal.command()
@FILE
@click.argument("target", type=click.Path())
def backup(file: str, target: str) -> None:
    """Copy the journal FILE, as it stands at one instant, to TARGET, also while its server runs."""
    from scattersphere.journal import copies  # noqa: PLC0415 - as above

    with _failing():
        copies.backup(file, target)
    _say(f"{target} is a backup of {file}")


@journal.command()
@click.argument("backup", type=click.Path(dir_okay=False, exists=True))
@FILE
def restore(backup: str, file: str) -> None:
    """Put the journal BACKUP in the place of FILE, which no server may hold. The old one is moved aside."""
    from scattersphere.journal import copies  # noqa: PLC0415 - as above

    with _failing():
        replaced = copies.restore(backup, file)
    _say(f"{file} is as {backup} now" + (f"; what was there is {replaced}" if replaced else ""))


@journal.command()
@FILE
@click.option(
    "--keep", type=click.IntRange(min=0), required=True, help="So many ended runs, the newest ones."
)
@click.option("--days", type=click.FloatRange(min=0), help="And none that ended longer ago than this.")
def prune(file: str, keep: int, days: float | None) -> None:
    """Give up old runs of the journal FILE, which no server may hold: a server prunes by itself."""
    import math  # noqa: PLC0415 - as above

    from scattersphere.journal import copies  # noqa: PLC0415 - as above

    with _failing():
        gone = copies.prune(file, count=keep, seconds=math.inf if days is None else days * DAY)
    _say(f"{gone} runs are given up")


@journal.command()
@FILE
@click.argument("runs", nargs=-1, type=int)
def export(file: str, runs: tuple[int, ...]) -> None:
    """Print RUNS, or all runs, of the journal FILE as JSON: a run a line, with tasks, moves and log."""
    from scattersphere.journal import copies  # noqa: PLC0415 - as above

    with _failing():
        for run in copies.export(file, runs or None):
            _say(run)


@click.command()
@click.argument("run", type=int)
@JOURNAL
@AS_JSON
def show(run: int, file: str, *, as_json: bool) -> None:
    """Show a RUN of a journal, with its tasks and results."""
    from scattersphere.journal.views import RunViews, in_words  # noqa: PLC0415 - as above

    with _reading(file) as reader:
        shown = RunViews(reader).whole(_run(reader, run))
    _print(shown if as_json else in_words(shown), as_json=as_json)


def runs(
    file: str,
    *,
    job: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
    as_json: bool = False,
) -> None:
    """Print the runs of a journal, newest first; what `scattersphere runs --journal FILE` does."""
    from scattersphere.journal.views import RUN_STATES, run_row  # noqa: PLC0415 - as above

    names = [str(name) for name in RUN_STATES]
    if state is not None and state not in names:
        raise click.BadParameter(f"{state!r} is no state of runs; those are {', '.join(names)}")
    states = None if state is None else [names.index(state)]
    with _reading(file) as reader:
        found = reader.find_runs(job=job, states=states, since=None, before=before, limit=limit)
    rows = [run_row(stored) for stored in found]
    _print({"runs": rows}, as_json=as_json, each=rows)


def logs(
    file: str,
    *,
    run: int,
    task: str | None = None,
    attempt: int | None = None,
    index: int | None = None,
    tail: int = 100,
    as_json: bool = False,
) -> None:
    """Print the last lines of a run's log; what `scattersphere logs RUN --journal FILE` does."""
    from scattersphere.journal.views import RunViews  # noqa: PLC0415 - as above
    from scattersphere.model.logs import LEVEL_NAMES  # noqa: PLC0415 - as above

    wanted = {"task": task, "attempt": attempt, "index": index}
    asked = {name: value for name, value in wanted.items() if value is not None}
    with _reading(file) as reader:
        _run(reader, run)
        lines = RunViews(reader).lines(run)
        last = deque((line for line in lines if asked.items() <= line.items()), maxlen=tail)
    rows = [
        {
            "time": line["time"],
            "level": LEVEL_NAMES.get(line["level"], str(line["level"])),
            **({"task": line["task"]} if line["task"] else {}),
            **({"index": line["index"]} if line["index"] is not None else {}),
            **({"attempt": line["attempt"]} if line["attempt"] else {}),
            "message": line["message"],
        }
        for line in last
    ]
    _print({"lines": rows}, as_json=as_json, each=rows)


def _run(reader: JournalReader, run: int) -> Any:
    from scattersphere.errors import NoSuchRunError  # noqa: PLC0415 - as above

    for stored in reader.runs([run]):
        return stored
    raise NoSuchRunError(f"the journal has no run {run}")


@contextmanager
def _reading(file: str) -> Iterator[JournalReader]:
    from scattersphere.journal.place import JournalFiles  # noqa: PLC0415 - as above
    from scattersphere.journal.sqlite import JournalReader  # noqa: PLC0415 - as above

    with _failing(), closing(JournalReader(JournalFiles.at(file), seconds=READ_SECONDS)) as reader:
        yield reader


@contextmanager
def _failing() -> Iterator[None]:
    from scattersphere.errors import ScattersphereError  # noqa: PLC0415 - as above

    try:
        yield
    except BrokenPipeError:
        raise  # who reads our output has seen enough; click knows what to do
    except (ScattersphereError, OSError, ValueError) as error:
        fail(error)


def _print(
    shown: Mapping[str, object], *, as_json: bool, each: list[dict[str, object]] | None = None
) -> None:
    if as_json:
        for row in [shown] if each is None else each:
            _say(row)
        return
    from scattersphere.remote.render import to_table  # noqa: PLC0415 - as above

    click.echo(to_table({"result": shown}).partition("\n")[2], nl=False)


def _say(what: str | Mapping[str, object]) -> None:
    from scattersphere.model.logs import make_block  # noqa: PLC0415 - as above

    click.echo(make_block(what) if isinstance(what, str) else json.dumps(what))

"""`scattersphere run`: one Server, one job, and what a person sees of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import anyio
from rich.console import Console

from scattersphere._text import did_you_mean
from scattersphere.cli.checking import STDIN, check_file, judge, name_of, reading_of
from scattersphere.cli.jsonlines import JsonLines, json_only, run_summary, write_line
from scattersphere.cli.options import os_error_words
from scattersphere.cli.outcome import BAD_FILE, FAILED, INTERRUPTED, SUCCEEDED, USAGE, Refusal
from scattersphere.cli.pipes import shown_while_read
from scattersphere.cli.progress import make_display
from scattersphere.errors import BundleRefusedError, DefinitionError, ScattersphereError, listing
from scattersphere.model.logs import make_printable
from scattersphere.model.states import RunState, TaskState
from scattersphere.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from scattersphere.cli.progress import Display
    from scattersphere.engine.run import Run
    from scattersphere.model.definition import JobDefinition

SHOWN = 500
"""Characters of a result that are shown."""


def run_file(
    file: str,
    params: dict[str, object],
    *,
    as_json: bool = False,
    trace: Path | None = None,
    picture: Path | None = None,
) -> int:
    """Run the job in `file`, draw what is asked for when it has ended; return the exit code."""
    try:
        if not as_json:
            return anyio.run(_run_for_people, file, params, trace, picture)
        with json_only() as out:
            return anyio.run(_run_for_programs, file, params, trace, picture, out)
    except KeyboardInterrupt:  # it came before or after our own handling of signals
        return INTERRUPTED


async def _run_for_people(
    file: str, params: dict[str, object], trace: Path | None, picture: Path | None
) -> int:
    err = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        check_picture(picture)
        folder = _folder(file)
        async with _server(folder) as server:
            run = await _begin(server, file, folder, params)
            interrupted = await _watch(run, make_display(run, sys.stdout, sys.stderr))
            unwritten = write_pictures(run, trace, picture)
            _show_end(run, err)
    except Refusal as refusal:
        err.print(str(refusal).rstrip(), markup=False)
        return refusal.exit_code
    for problem in unwritten:
        err.print(problem, markup=False)
    return _exit_code(run, interrupted=interrupted, written=not unwritten)


async def _run_for_programs(
    file: str, params: dict[str, object], trace: Path | None, picture: Path | None, out: TextIO
) -> int:
    try:
        check_picture(picture)
        folder = _folder(file)
        async with _server(folder) as server:
            run = await _begin(server, file, folder, params)
            interrupted = await _watch(run, JsonLines(out, sys.stderr), out)
            unwritten = write_pictures(run, trace, picture)
            more = {"problems": [{"message": problem} for problem in unwritten]} if unwritten else {}
            write_line(out, run_summary(run) | more)
    except Refusal as refusal:
        write_line(out, refusal.as_dict())
        return refusal.exit_code
    return _exit_code(run, interrupted=interrupted, written=not unwritten)


def _folder(file: str) -> Path:
    """Return the folder where a file's bundles lie; links are kept, they may be swapped."""
    return Path.cwd() if file == STDIN else Path(file).absolute().parent


def _server(folder: Path) -> Server:
    # The folder is where the file's bundles may lie; whatever else is in it is none of our business.
    return Server(bundle_roots=[folder], adopt=False, watch=False, fire_schedules=False)


def _exit_code(run: Run, *, interrupted: bool, written: bool) -> int:
    if interrupted:
        return INTERRUPTED
    if not run.succeeded:
        return FAILED
    return SUCCEEDED if written else BAD_FILE


async def _begin(server: Server, file: str, folder: Path, params: dict[str, object]) -> Run:
    """Load the file and start the run, or raise `Refusal` with the exit code that fits."""
    try:
        definition = await (_piped(server, folder) if file == STDIN else server.load(file))
    except DefinitionError as exc:
        # What the code has to say to it is told at once too, and not only when this is mended.
        problems = exc.problems if file == STDIN else (await check_file(file, folder, []))[0]
        raise Refusal(BAD_FILE, listing(name_of(file), problems), problems) from exc
    except OSError as exc:
        raise Refusal(BAD_FILE, os_error_words(exc, name_of(file))) from exc
    except ScattersphereError as exc:
        raise Refusal(BAD_FILE, f"{name_of(file)}: {exc}\n{getattr(exc, 'details', '')}") from exc
    try:
        return await server.start(definition.name, params)
    except DefinitionError as exc:  # what -p said, if it said anything; else the file's own defaults
        raise Refusal(USAGE if params else BAD_FILE, str(exc), exc.problems) from exc
    except ScattersphereError as exc:
        raise Refusal(BAD_FILE, f"{name_of(file)}: {exc}") from exc


def _is_inside(folder: Path, place: str) -> bool:
    return Path(os.path.realpath(folder / place)).is_relative_to(os.path.realpath(folder))


async def _piped(server: Server, folder: Path) -> JobDefinition:
    """Read a definition from standard input. Raises `DefinitionError` with what the code has to say to it, too."""
    reading = reading_of(STDIN)
    definition = reading.definition
    problems = reading.problems()
    if definition is not None:
        for name, place in definition.bundles.items():
            if not _is_inside(folder, place):
                raise BundleRefusedError(
                    f"bundle {name!r} ({place}) lies outside {folder}, where standard input is"
                )
        problems = await judge(server, definition, reading, folder, [])
    if problems or definition is None:
        raise DefinitionError(problems, source=reading.source)
    return await server.adefine(definition)


async def _watch(run: Run, shown: AbstractContextManager[Display], out: TextIO | None = None) -> bool:
    """Show progress until the run has ended. Return whether Ctrl-C was pressed."""
    interrupted = False
    display: Display
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def obey_signals(received: AsyncIterator[signal.Signals]) -> None:
                nonlocal interrupted
                async for number in received:
                    if run.state.ended:
                        return
                    if interrupted:
                        display.say("Killed: what executes is not waited for.")
                        run.kill(f"{number.name} from the terminal")
                    else:
                        display.say(_CANCELLING)
                        run.cancel(f"{number.name} from the terminal")
                    interrupted = True

            with shown as display:
                tasks.start_soon(obey_signals, signals)
                show = shown_while_read(
                    display.show, lambda: run.cancel("nobody reads the output any more"), out
                )
                async for events in run.events().batches():
                    show(events)
            tasks.cancel_scope.cancel()
    return interrupted


_CANCELLING = "Cancelling: nothing new starts, what executes is asked to end. Ctrl-C again kills it."


def _show_end(run: Run, err: Console) -> None:
    out = Console(highlight=False, soft_wrap=True)
    counts = _count(status.state for status in run.tasks.values())
    instances = sum(len(run.tasks.instances(name)) for name in run.tasks)
    took = (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else 0.0
    if run.state is RunState.SUCCEEDED:
        for line in result_lines(run):
            out.print(line, markup=False)
    else:
        sys.stdout.flush()  # the lines of the run come before its story where both go to one file
        err.print(run.explain(), markup=False)
    shown = ", ".join(f"{count} {state}" for state, count in counts.items())
    more = f" ({instances} instances)" if instances else ""
    out.print(f"run {run.id} of {run.job} {run.state} in {took:.2f} s: {shown}{more}", markup=False)


def result_lines(run: Run) -> Iterator[str]:
    """Yield what people want to see of the results of a run that succeeded."""
    for name in _leaves(run):
        if name in run.results and run.results[name] is not None:
            yield f"{name}:"
            yield from _lines_of(run.results[name])


def _leaves(run: Run) -> list[str]:
    """The results that people want to see: those of tasks whose result is not a path on to others only."""
    definition = run.plan.definition
    normal = {name for name, task in definition.tasks.items() if not task.finally_}
    read = {other for name in normal for other in definition.upstreams[name]}
    ends = normal - read
    before = {other for name in ends for other in definition.upstreams[name]}
    return [name for name in run.tasks if name in ends or name in before]


def _lines_of(value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"  {_short(value)}"
        return
    for key, item in value.items():
        if isinstance(item, list) and item and all(map(_is_pair, item)):
            yield f"  {key}:"
            yield from (f"    {right!s:>9}  {left}" for left, right in item)
        else:
            yield f"  {key}: {_short(item)}"


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2  # noqa: PLR2004 - a pair has two


def _short(value: object) -> str:
    if isinstance(value, list | tuple | set) and len(value) > 10:  # noqa: PLR2004 - more is no summary
        return f"{len(value)} entries"
    try:
        text = make_printable(value if isinstance(value, str) else repr(value))
    except BaseException:  # noqa: BLE001 - a user's __repr__ may do anything; the run has succeeded all the same
        return f"<a {type(value).__qualname__} that cannot be shown>"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _count(states: Iterable[TaskState]) -> dict[TaskState, int]:
    counts: dict[TaskState, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return counts


# ---- pictures of a run that has ended

PNG_TIME = 120
"""Seconds that Graphviz may take for a picture."""


def _png(run: Run) -> bytes:
    done = subprocess.run(  # noqa: S603 - the program was looked up by `check_picture`
        [shutil.which("dot") or "dot", "-Tpng"],
        input=run.to_dot().encode(),
        capture_output=True,
        check=False,
        timeout=PNG_TIME,
    )
    if done.returncode:
        raise OSError(f"Graphviz failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


_FORMS: dict[str, Callable[[Run], bytes]] = {
    ".svg": lambda run: run.to_svg().encode(),
    ".png": _png,
    ".mmd": lambda run: run.to_mermaid().encode(),
    ".dot": lambda run: run.to_dot().encode(),
    ".txt": lambda run: run.to_tree().encode(),
}
"""What draws a file, by the ending of its name."""


def check_picture(path: Path | None) -> None:
    """Raise `Refusal` before anything runs, if a picture of that name could not be drawn."""
    if path is None:
        return
    if path.suffix not in _FORMS:
        known = ", ".join(_FORMS)
        hint = did_you_mean(path.suffix, _FORMS)
        raise Refusal(USAGE, f"--picture {path}: a picture's name ends in {known}{hint}")
    if path.suffix == ".png" and shutil.which("dot") is None:
        raise Refusal(
            USAGE, f"--picture {path}: Graphviz draws .png, and there is no program dot; take .svg instead"
        )


def write_pictures(run: Run, trace: Path | None, picture: Path | None) -> list[str]:
    """Write the files that were asked for; return what cannot be written, in words."""
    wanted: list[tuple[Path, Callable[[Run], bytes]]] = []
    if trace is not None:
        wanted.append((trace, lambda run: run.to_trace().encode()))
    if picture is not None:
        wanted.append((picture, _FORMS[picture.suffix]))
    unwritten = []
    for path, draw in wanted:
        try:
            path.write_bytes(draw(run))
        except (OSError, subprocess.TimeoutExpired) as exc:
            unwritten.append(f"{path}: {getattr(exc, 'strerror', None) or exc}")
    return unwritten

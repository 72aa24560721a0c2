"""`--json`: a run as lines of JSON, its events in the form of the line protocol, for programs that read them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO

from scattersphere.cli.pipes import write_to_nowhere
from scattersphere.commands.views import event_view, run_view_now
from scattersphere.remote.render import as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from scattersphere.engine.run import Run
    from scattersphere.model.events import Event


def write_lines(out: TextIO, messages: Iterable[Mapping[str, object]]) -> None:
    """Write lines of JSON in one, to be read at once."""
    out.write(b"".join(map(as_json, messages)).decode("ascii"))
    out.flush()


def write_line(out: TextIO, message: Mapping[str, object]) -> None:
    """Write one line of JSON, to be read at once."""
    write_lines(out, [message])


@contextmanager
def json_only() -> Iterator[TextIO]:
    """Give a stream to the standard output; whatever else writes there goes to the standard error meanwhile.

    A task may write to the descriptor itself, or start a program that does. The standard output must be a file of
    the system: in a test that has replaced it, nothing else writes there.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        yield sys.stdout
        return
    sys.stdout.flush()
    with open(os.dup(number), "w", encoding="utf-8") as out:  # noqa: PTH123 - it is no path
        os.dup2(sys.stderr.fileno(), number)
        try:
            yield out
        finally:
            sys.stdout.flush()
            try:
                out.flush()
            except BrokenPipeError:
                write_to_nowhere(out)
            os.dup2(out.fileno(), number)


class JsonLines:
    """One line for each event; a display as `scattersphere.cli.progress.Display` describes it."""

    def __init__(self, out: TextIO, err: TextIO | None = None) -> None:
        self._out = out
        self._err = err or sys.stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, events: Sequence[Event]) -> None:
        """Write the events; `sub` is left out, for there is no subscription."""
        views = [event_view(event, 0) for event in events]
        for view in views:
            del view["sub"]
        write_lines(self._out, views)

    def say(self, notice: str) -> None:
        """Write a notice where no program reads."""
        self._err.write(f"{notice}\n")
        self._err.flush()


def run_summary(run: Run) -> dict[str, object]:
    """Return the last line: the run as `status` of the line protocol shows it, and its results."""
    results = {name: run.results.shown_of(name) for name in run.results}
    return {"run": run_view_now(run), "results": results}

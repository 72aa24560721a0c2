"""Progress of a run on the screen: on a terminal a display that is refreshed, elsewhere a line for each event.

The loop that carries the run out only takes note of events (`Board`, pure); a thread of the display draws them, so
that a terminal, however slow, never holds up a task.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from scattersphere.model.events import Event, EventKind
from scattersphere.model.logs import LEVEL_NAMES, make_printable
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from rich.console import RenderableType

    from scattersphere.engine.run import Run

REFRESH = 0.1
"""Seconds between two drawings."""
BAR = 28
"""Letters of a bar."""
NAME = 32
"""Letters of a task's name; what is longer is cut."""


class Display(Protocol):
    """Something that shows events, and notices of our own."""

    def show(self, events: Sequence[Event]) -> None:
        """Take note of events that came together."""

    def say(self, notice: str) -> None:
        """Show a line that is no event."""


def make_display(run: Run, out: TextIO, err: TextIO) -> AbstractContextManager[Display]:
    """Return what suits `out`; notices go to `err` where there is no display to put them into."""
    console = Console(file=out, highlight=False)
    return Screen(run, console) if console.is_terminal else PlainLines(out, err)


class PlainLines:
    """One line for each event but progress; instances of a map are left out, what they log is not."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(BrokenPipeError):
            self._out.flush()

    def show(self, events: Sequence[Event]) -> None:
        """Write the lines in one, to be read at once; what follows the first line of a message is set in."""
        lines = [
            str(event)
            for event in events
            if event.kind is EventKind.LOG
            or (event.index is None and event.kind is not EventKind.TASK_PROGRESS)
        ]
        if lines:
            lines.append("")
            self._out.write("\n".join(lines))
            self._out.flush()

    def say(self, notice: str) -> None:
        """Write a notice beside the lines."""
        self._out.flush()
        self._err.write(f"{notice}\n")
        self._err.flush()


# ---- what goes on


@attrs.define
class Entry:
    """A task that has begun: since when (seconds of a monotonic clock), how far it is, in which state."""

    name: str
    since: float
    state: TaskState = TaskState.RUNNING
    done: float = 0.0
    total: float | None = None
    until: float | None = None
    failed: int = 0
    """Instances that ended failed."""

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return not self.state.ended


class Board:
    """What goes on in a run, as its events tell: no clock, no terminal. Times are given."""

    def __init__(self, total: int, width_of: Callable[[str], int | None]) -> None:
        self.total = total
        self.state: RunState = RunState.QUEUED
        self.counts: Counter[TaskState] = Counter()
        """Tasks that have ended, by state."""
        self.entries: dict[str, Entry] = {}
        """Tasks that have begun, but those that ended well; the oldest first."""
        self._width_of = width_of

    @property
    def done(self) -> int:
        """The tasks that have ended as they should or not, but for those that were cancelled: as far as a bar goes."""
        return sum(self.counts.values()) - self.counts[TaskState.CANCELLED]

    @property
    def colour(self) -> str | None:
        """That of the bar of the whole run, where something went wrong or was cancelled."""
        if any(self.counts[state] for state in _BAD):
            return "red"
        return _COLOURS[TaskState.CANCELLED] if self.counts[TaskState.CANCELLED] else None

    def note(self, event: Event, now: float) -> None:
        """Take note of an event at a time."""
        if event.task is None:
            self._note_run(event)
        elif event.kind is EventKind.TASK_PROGRESS:
            if event.index is None:
                entry = self._entry(event.task, now)
                entry.done, entry.total = event.done or 0.0, event.total
        elif event.state is not None:
            self._note_state(event.task, event.index, TaskState(event.state), now)

    def _note_run(self, event: Event) -> None:
        if event.kind is not EventKind.LOG and event.state is not None:
            with suppress(ValueError):
                self.state = RunState(event.state)

    def _note_state(self, task: str, index: int | None, state: TaskState, now: float) -> None:
        if index is not None:
            entry = self._entry(task, now)
            entry.total = self._width_of(task)
            if state.ended:
                entry.done += 1
                entry.failed += state in _BAD
            return
        if state.ended:
            self.counts[state] += 1
            if state in _SHOWN_ENDED and task in self.entries:
                entry = self.entries[task]
                entry.state, entry.until = state, now
            else:
                self.entries.pop(task, None)
        else:
            self._entry(task, now).state = state

    def _entry(self, task: str, now: float) -> Entry:
        if task not in self.entries:
            self.entries[task] = Entry(task, now)
        return self.entries[task]

    def rows(self, room: int) -> tuple[list[Entry], int]:
        """Return what there is room for, and how many are left out: what executes first, then what failed."""
        live = [entry for entry in self.entries.values() if entry.live]
        ended = [entry for entry in self.entries.values() if not entry.live]
        rows = (live + ended)[: max(room, 0)]
        return rows, len(self.entries) - len(rows)


_BAD = frozenset({TaskState.FAILED, TaskState.CRASHED})
_SHOWN_ENDED = _BAD | {TaskState.CANCELLED}
"""What stays on the screen when it has ended: a bar that was cancelled stands where it was."""
_COLOURS = {
    TaskState.RUNNING: "blue",
    TaskState.CANCELLING: "yellow",
    TaskState.UP_FOR_RETRY: "yellow",
    TaskState.SUCCEEDED: "green",
    TaskState.FAILED: "red",
    TaskState.CRASHED: "red",
    TaskState.CANCELLED: "bright_black",
    TaskState.UPSTREAM_FAILED: "red",
    TaskState.SKIPPED: "bright_black",
}
_MARKS = {
    TaskState.FAILED: "✗",
    TaskState.CRASHED: "✗",
    TaskState.CANCELLED: "-",
    TaskState.UP_FOR_RETRY: "↻",
}


# ---- on a terminal


class Screen:
    """A display of bars that a thread of its own draws; lines of the run's log go above it."""

    def __init__(self, run: Run, console: Console) -> None:
        self._title = f"run {run.id} of {run.job}"
        self._board = Board(len(run.tasks), run.tasks.width)
        self._console = console
        self._lines: list[Event | str] = []
        """Lines of the log, and notices, since the last drawing: what they look like is the drawing thread's work."""
        self._lock = threading.Lock()
        """Guards the board and the lines: the loop writes them, the drawing thread reads them."""
        self._begun = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, auto_refresh=False, transient=False, get_renderable=self._draw)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="scattersphere display", daemon=True)
        self._broken: BaseException | None = None

    def __enter__(self) -> Self:
        self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with suppress(BrokenPipeError, OSError, SystemExit):  # the terminal has gone
            self._paint()
            self._live.stop()

    def show(self, events: Sequence[Event]) -> None:
        """Take note; raises BrokenPipeError once the terminal has gone."""
        if self._broken is not None:
            raise BrokenPipeError
        now = time.monotonic()
        with self._lock:
            for event in events:
                self._board.note(event, now)
                if event.kind is EventKind.LOG:
                    self._lines.append(event)

    def say(self, notice: str) -> None:
        """Put a notice above the bars."""
        with self._lock:
            self._lines.append(notice)

    def _refresh(self) -> None:
        try:
            while not self._over.wait(REFRESH):
                self._paint()
        except (OSError, SystemExit) as error:  # rich makes an exit of a broken pipe
            self._broken = error

    def _paint(self) -> None:
        """Print the lines that came, all in one, then draw."""
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            shown = (
                Text(each, style="yellow") if isinstance(each, str) else _log_line(each) for each in lines
            )
            self._live.console.print(Text("\n").join(shown), soft_wrap=True)
        self._live.refresh()

    def _draw(self) -> RenderableType:
        now = time.monotonic()
        with self._lock:
            board = self._board
            rows, more = board.rows(self._console.height - 4)
            head = self._head(board, now)
            table = Table.grid(padding=(0, 1))
            for entry in rows:
                table.add_row(*self._row(entry, now))
        return Group(head, table, *([Text(f"  and {more} more", style="bright_black")] if more else []))

    def _head(self, board: Board, now: float) -> RenderableType:
        ended = sum(board.counts.values())
        running = sum(entry.live for entry in board.entries.values())
        said = [f"{ended}/{board.total} tasks"] + ([f"{running} running"] if running else [])
        text = Text.assemble((self._title, "bold"), "  ", ", ".join(said))
        for state, count in board.counts.items():
            if state is not TaskState.SUCCEEDED:
                text.append(f", {count} {state.replace('_', ' ')}", style=_COLOURS[state])
        bar = ProgressBar(
            total=max(board.total, 1),
            completed=board.done,
            width=BAR,
            complete_style=board.colour or "blue",
            finished_style=board.colour or "green",
        )
        grid = Table.grid(padding=(0, 1))
        of_run = "" if board.state is RunState.RUNNING else str(board.state)
        grid.add_row(bar, text, Text(f"{_clock(now - self._begun)} {of_run}".rstrip(), style="bright_black"))
        return grid

    def _row(self, entry: Entry, now: float) -> tuple[RenderableType, ...]:
        colour = _COLOURS.get(entry.state, "blue")
        live = entry.state is TaskState.RUNNING
        mark: RenderableType = self._spinner if live else Text(_MARKS.get(entry.state, "-"), style=colour)
        total = entry.total or None
        bar: RenderableType = Text("")
        if total is not None:
            bar = ProgressBar(
                total=total,
                completed=min(entry.done, total),
                width=BAR,
                complete_style=colour,
                finished_style=colour,
            )
        shown = "" if total is None else f"{entry.done:g}/{total:g}"
        failed = f" {entry.failed} failed" if entry.failed else ""
        took = _clock((entry.until or now) - entry.since)
        word = "" if live else str(entry.state).replace("_", " ")
        return (
            mark,
            Text(_cut(entry.name), style=colour if not live else ""),
            bar,
            Text.assemble(shown, (failed, "red")),
            Text(f"{took} {word}".rstrip(), style=colour if word else "bright_black"),
        )


def _log_line(event: Event) -> Text:
    """Return a line of the run's log as it stands above the bars."""
    place = "" if event.task is None else event.task + ("" if event.index is None else f"[{event.index}]")
    level: int = event.level or 0
    style = "red" if level >= _ERROR else "yellow" if level >= _WARNING else ""
    said = f"{LEVEL_NAMES.get(level, str(level))}: " if style else ""
    message = make_printable(event.message).replace("\n", "\n    ")
    return Text.assemble(
        (f"{event.time.astimezone():%H:%M:%S} ", "bright_black"),
        (f"{place}  ", "cyan"),
        (said + message, style),
    )


_WARNING, _ERROR = 30, 40


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _clock(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

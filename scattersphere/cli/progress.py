"""How a run is shown while it goes: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from scattersphere.model.events import Event, EventKind
from scattersphere.model.logs import make_printable
from scattersphere.model.states import TaskState

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from scattersphere.execution.run import Run


class Display(Protocol):
    """Something that shows events."""

    def show(self, event: Event) -> None:
        """Take note of an event."""


def make_display(run: Run, out: TextIO) -> AbstractContextManager[Display]:
    """Return what suits `out`."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    return Bars(run, console) if console.is_terminal else Lines(console)


class Lines:
    """One line for each start and end of a task; those of instances are left out."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Print a line, and what follows the first line of a message set in; but for progress and instances."""
        if event.kind is EventKind.TASK_PROGRESS or event.index is not None:
            return
        self._console.print(make_printable(str(event)).replace("\n", "\n    "), markup=False)


class Bars:
    """A bar for the run, and one for each task that has begun."""

    def __init__(self, run: Run, console: Console) -> None:
        self._run = run
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._whole: TaskID | None = None
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        self._whole = self._progress.add_task(
            f"run {self._run.id} of {self._run.job}", total=len(self._run.tasks)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Move the bars."""
        if event.task is None:
            return
        if event.task not in self._bars:
            self._bars[event.task] = self._progress.add_task(f"  {event.task}", total=1)
        bar = self._bars[event.task]
        ended = event.state is not None and TaskState(event.state).ended
        if event.index is not None:
            if event.kind is EventKind.TASK_STARTED and event.attempt == 1:
                width = self._run.tasks.width(event.task)
                self._progress.update(bar, total=width)
            elif ended:
                self._progress.advance(bar)
        elif event.kind is EventKind.TASK_PROGRESS:
            self._progress.update(bar, completed=event.done, total=event.total)
        elif ended:
            if self._run.tasks.width(event.task) is None:
                self._progress.update(bar, completed=1, total=1)
            if self._whole is not None:
                self._progress.advance(self._whole)

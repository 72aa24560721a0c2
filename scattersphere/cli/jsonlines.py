"""`--json`: a run as lines of JSON, its events in the form of the line protocol, for programs that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TextIO

from scattersphere.remote.render import as_json
from scattersphere.remote.views import event_view, run_view

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from scattersphere.execution.run import Run
    from scattersphere.model.events import Event


def write_line(out: TextIO, message: Mapping[str, Any]) -> None:
    """Write one line of JSON, and let it be read at once."""
    out.write(as_json(message).decode("ascii"))
    out.flush()


class JsonLines:
    """One line for each event; a display as `scattersphere.cli.progress.Display` describes it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Write the event; `sub` is left out, for there is no subscription."""
        view = event_view(event, 0)
        del view["sub"]
        write_line(self._out, view)


def run_summary(run: Run) -> dict[str, Any]:
    """Return the last line: the run as `status` of the line protocol shows it, and its results."""
    results = {name: run.results.shown_of(name) for name in run.results}
    return {"run": run_view(run), "results": results}

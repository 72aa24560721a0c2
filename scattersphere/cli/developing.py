"""`scattersphere dev`: a server for the time in which its code is being written."""

from __future__ import annotations

import sys
import tempfile
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console

from scattersphere.cli.jsonlines import JsonLines, run_summary, write_line
from scattersphere.cli.pipes import end_unread, shown_while_read
from scattersphere.cli.running import result_lines
from scattersphere.errors import ScattersphereError
from scattersphere.model.events import EventKind
from scattersphere.model.logs import make_printable
from scattersphere.model.states import RunState
from scattersphere.remote.serve import ServeOptions, serve

if TYPE_CHECKING:
    from scattersphere.engine.run import Run
    from scattersphere.model.events import Event
    from scattersphere.server import Server

_STYLES: dict[str, str] = {
    EventKind.BUNDLE_LOADED: "green",
    EventKind.BUNDLE_FAILED: "red",
    EventKind.JOB_FAILED: "red",
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "red",
    RunState.CRASHED: "red",
}
_TRACEBACK = "Traceback (most recent call last)"
_DULL = frozenset({EventKind.RUN_QUEUED})
_FAILURES = _DULL | {EventKind.BUNDLE_FAILED, EventKind.JOB_FAILED}


async def develop(
    folder: Path,
    job: str | None,
    params: dict[str, object],
    as_json: bool,  # noqa: FBT001 - anyio.run passes by place
    pages: bool,  # noqa: FBT001 - the same
) -> None:
    """Serve `folder` on a unix socket and tell what happens, until a signal comes. Raises `ListenError`."""
    inside = folder / "bundles"
    jobs = folder / "jobs"
    teller: Teller = JsonTeller() if as_json else Teller()
    with tempfile.TemporaryDirectory(prefix="scattersphere-dev-") as private:
        beside: tuple[Any, ...] = ()
        if pages:
            from scattersphere.web.serving import bind, serve_pages  # noqa: PLC0415 - an extra

            beside = (
                partial(serve_pages, listening=bind("127.0.0.1:0"), say=teller.say, opened=webbrowser.open),
            )
        options = ServeOptions(
            beside=beside,
            bundles=(inside if inside.is_dir() else folder,),
            jobs=jobs if jobs.is_dir() else folder,
            watch_jobs=True,
            unix=Path(private) / "s",
        )
        developing = Developing(teller, job, params)
        await serve(options, say=teller.say, complain=teller.complain, attend=developing.attend)


class ReadConsole(Console):
    """A console without whose reader there is no use in going on: we end as a signal would have us end."""

    def print(self, *objects: object, **style: Any) -> None:
        """Print, or end the program."""
        try:
            super().print(*objects, **style)
        except (BrokenPipeError, SystemExit):  # rich makes an exit of it, from version 14 on
            end_unread()


class Teller:
    """Tells people: a line for each event, and the whole story of what failed."""

    def __init__(self) -> None:
        self._out = ReadConsole(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._loaded: set[str] = set()

    def say(self, line: str) -> None:
        """Print what goes well."""
        if line.startswith("listening on unix://"):
            line = f"{line}\na session: nc -U {line.removeprefix('listening on unix://')}"
        self._out.print(line, markup=False)

    def complain(self, line: str) -> None:
        """Print what does not."""
        self._err.print(make_printable(line), markup=False, style="red")

    def show(self, event: Event) -> None:
        """Print an event of the server's stream."""
        style = _STYLES.get(event.kind) or _STYLES.get(event.state or "")
        self._out.print(f"{event.time.astimezone():%H:%M:%S} {self._words(event)}", markup=False, style=style)

    def _words(self, event: Event) -> str:
        if event.kind is EventKind.BUNDLE_LOADED:
            again = event.bundle in self._loaded
            self._loaded.add(str(event.bundle))
            return f"{'reloaded' if again else 'loaded'} {event.message or event.bundle}"
        if event.kind is EventKind.BUNDLE_FAILED:
            return f"bundle {event.bundle} is broken; runs go on with the last good version\n{event.message}"
        if event.run is not None:
            return f"run {event.run} of {event.job} {event.state}"
        what = f"bundle {event.bundle}" if event.bundle is not None else f"job {event.job}"
        more = f": {event.message}" if event.message and event.kind is EventKind.JOB_FAILED else ""
        return f"{what} {event.kind.partition('-')[2]}{more}"

    def line(self, event: Event) -> None:
        """Print a line of a run's log."""
        place = (event.task or "run") if event.index is None else f"{event.task}[{event.index}]"
        self._out.print(f"         {place}: {make_printable(event.message)}", markup=False, style="dim")

    def story(self, run: Run) -> None:
        """Print why a run did not succeed."""
        self._err.print(make_printable(run.explain()), markup=False)

    def results(self, run: Run) -> None:
        """Print what came of a run that succeeded."""
        for line in result_lines(run):
            self._out.print(f"         {make_printable(line)}", markup=False)


class JsonTeller(Teller):
    """Tells programs: events as lines of JSON, as `run --json` does."""

    def __init__(self) -> None:
        super().__init__()
        self._write = shown_while_read(JsonLines(sys.stdout).show, end_unread)

    def say(self, line: str) -> None:
        """Write where it listens, and whatever else goes well."""
        write_line(
            sys.stdout, {"listening": line.removeprefix("listening on ")} if "://" in line else {"said": line}
        )

    def show(self, event: Event) -> None:
        """Write the event."""
        self._write([event])

    def line(self, event: Event) -> None:
        """Write the line of a log as the event that it is."""
        self._write([event])

    def story(self, run: Run) -> None:
        """Write nothing: a program asks for what it wants to know."""

    def results(self, run: Run) -> None:
        """Write the run and its results, as `run --json` does at its end."""
        write_line(sys.stdout, run_summary(run))


class Developing:
    """What goes on beside the listeners: events are told, and one job is run again when it changes."""

    def __init__(self, teller: Teller, job: str | None, params: dict[str, object]) -> None:
        self._teller = teller
        self._job = job
        self._params = params
        self._run: Run | None = None
        self._told: dict[int, anyio.Event] = {}
        """The runs whose lines are being told, each with what is set when all are: only then comes its end."""
        self._changed = anyio.Event()

    async def attend(self, server: Server) -> None:
        """Tell of all that happens, from the first event on, until this is cancelled."""
        begun = server.last_event
        async with anyio.create_task_group() as group:
            if self._job is not None:
                group.start_soon(self._run_again, server, self._job)
            async for event in server.events():
                # Failures of the start were told by `serve`; that a run was queued is no news.
                run = server.runs.get(event.run) if event.run is not None else None
                if event.kind is EventKind.RUN_ENDED and run is not None and run.id in self._told:
                    group.start_soon(self._tell_end, event, run)
                elif event.kind not in (_FAILURES if event.seq <= begun else _DULL):
                    self._teller.show(event)
                if event.kind is EventKind.RUN_STARTED and run is not None:
                    self._told[run.id] = anyio.Event()
                    group.start_soon(self._tell_lines, run)
                if event.seq > begun and self._concerns_us(server, event):
                    self._changed.set()

    async def _tell_lines(self, run: Run) -> None:
        async for event in run.events():
            if event.kind is EventKind.LOG and not event.message.startswith(_TRACEBACK):  # the story tells it
                self._teller.line(event)
        self._told[run.id].set()

    async def _tell_end(self, event: Event, run: Run) -> None:
        await self._told[run.id].wait()
        del self._told[run.id]
        self._teller.show(event)
        if run.state in {RunState.FAILED, RunState.CRASHED}:
            self._teller.story(run)
        elif run.state is RunState.SUCCEEDED:
            self._teller.results(run)

    def _concerns_us(self, server: Server, event: Event) -> bool:
        definition = server.definitions.get(self._job or "")
        if definition is None:
            return False
        if event.kind is EventKind.JOB_DEFINED:
            return event.job == self._job
        used = {task.bundle for task in definition.tasks.values()}
        return event.kind is EventKind.BUNDLE_LOADED and event.bundle in used

    async def _run_again(self, server: Server, job: str) -> None:
        """Start the job, now and after each change; what still goes on with the code before is cancelled."""
        while True:
            self._changed = anyio.Event()
            if self._run is not None and not self._run.state.ended:
                self._run.cancel("its code changed")
                await self._run.wait()
            try:
                self._run = await server.start(job, self._params)
            except ScattersphereError as exc:
                self._teller.complain(str(exc))
            await self._changed.wait()

"""`scattersphere run --at ADDRESS JOB`: a job of a server elsewhere is run, and shown as one from a file is."""

from __future__ import annotations

import datetime as dt
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import anyio
import attrs

from scattersphere.cli.asking import INTERRUPTED, REFUSED, Asked, ask_with, show, show_reply
from scattersphere.cli.outcome import SUCCEEDED
from scattersphere.cli.progress import make_display
from scattersphere.model.events import Event, EventKind
from scattersphere.model.logs import LEVEL_NAMES
from scattersphere.model.states import RunState
from scattersphere.remote.client import RemoteClient, RemoteError, connect, whole_number
from scattersphere.remote.following import following
from scattersphere.remote.render import as_json

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from scattersphere._json_words import JsonObject
    from scattersphere.cli.reaching import Reached

_LEVELS = {name: level for level, name in LEVEL_NAMES.items()}
_CANCELLING = "Cancelling: nothing new starts, what executes is asked to end. Ctrl-C again kills it."


@attrs.frozen
class _Tasks:
    count: int

    def __len__(self) -> int:
        return self.count

    def width(self, _: str) -> int | None:
        """Return None: how wide a map is, the server has not said."""
        return None


@attrs.frozen
class _Shown:
    """As much of a run as a display asks for."""

    id: int
    job: str
    tasks: _Tasks


def event_of(row: JsonObject) -> Event:
    """Return an event as the engine has it; one that this version does not know, or that has no time, as a line."""
    try:
        kind, time = EventKind(row["event"]), dt.datetime.fromisoformat(row["ts"])
    except (KeyError, ValueError, TypeError):
        words = f"{row['event']} {row.get('dropped', '')}".rstrip()
        return Event(0, dt.datetime.now(dt.UTC), EventKind.LOG, message=words, level=0)
    more = {
        name: row[name]
        for name in (
            "run",
            "job",
            "task",
            "index",
            "attempt",
            "state",
            "message",
            "done",
            "total",
            "schedule",
        )
        if name in row
    }
    level = _LEVELS.get(row["level"], 0) if "level" in row else None
    return Event(seq=row.get("seq", 0), time=time, kind=kind, level=level, **more)


def run_at(where: Reached, job: str, params: dict[str, object], *, as_lines: bool) -> None:
    """Run a job elsewhere, show how it goes, and end the program with the exit code that fits."""
    asked = Asked(
        "run", {"job": job, **({"params": params} if params else {})}, follow=True, as_lines=as_lines
    )
    ask_with(where, asked, _run)


@attrs.define
class _Interrupts:
    """Ctrl-C for a run elsewhere: the first cancels it, the second kills it."""

    client: RemoteClient
    run: int
    say: Callable[[str], None]
    came: bool = False

    async def heed(self, received: AsyncIterator[signal.Signals]) -> None:
        async for each in received:
            self.say("Killed: what executes is not waited for." if self.came else _CANCELLING)
            verb, self.came = "kill" if self.came else "cancel", True
            try:
                await self.client.call(verb, run=self.run, reason=f"{each.name} from the terminal")
            except RemoteError as exc:  # who may only look on; or it has ended just now
                self.say(str(exc))


async def _run(address: str, token: str | None, tls: ssl.SSLContext | None, asked: Asked) -> int:
    async with connect(address, token=token, tls=tls) as client:
        number = whole_number(await client.call("start", **asked.args), "run")
        count = sum((await client.call("status", run=number))["counts"].values())
        shown: Any = _Shown(number, str(asked.args["job"]), _Tasks(count))
        lines: Any = _Lines() if asked.as_lines else make_display(shown, sys.stdout, sys.stderr)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, lines as display:
            interrupts = _Interrupts(client, number, display.say)
            async with anyio.create_task_group() as group:
                group.start_soon(interrupts.heed, signals)
                async with following(address, number, since=0, token=token, tls=tls) as events:
                    async for event in events:
                        display.show([event if asked.as_lines else event_of(event)])
                group.cancel_scope.cancel()
        ended = await client.call("wait", run=number)
        await _show_end(client, number, ended, asked)
    if interrupts.came:
        return INTERRUPTED
    return SUCCEEDED if ended.get("state") == RunState.SUCCEEDED else REFUSED


class _Lines:
    """Events as JSON lines, as they come; notices beside them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, events: Sequence[Any]) -> None:
        """Write the lines."""
        show("".join(as_json(event).decode("ascii") for event in events))

    def say(self, notice: str) -> None:
        """Write a notice."""
        sys.stderr.write(f"{notice}\n")


async def _show_end(client: Any, number: int, ended: dict[str, object], asked: Asked) -> None:
    """Show the results of a run that succeeded, and the story of one that did not."""
    if asked.as_lines:  # the last line is that of a run from a file
        found = await client.call("result", run=number)
        results = {name: found[name] for name in ("results", "left_out") if name in found}
        show(as_json({"run": await client.call("status", run=number), **results}).decode("ascii"))
        return
    verb = "result" if ended.get("state") == RunState.SUCCEEDED else "explain"
    try:
        show_reply({"n": 1, "result": await client.call(verb, run=number)})
    except RemoteError as exc:
        sys.stderr.write(f"{exc}\n")

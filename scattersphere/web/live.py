"""Server-sent events of pages: the regions of a page as they change, at most a few times a second.

A message is `{"put": {id: HTML}, "append": {id: HTML}}`, rendered as the page itself is, off the loop. The latest
wins: a reader that is slow gets fewer messages, never a queue of them. What does not change is not sent. The format:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import anyio

from scattersphere.model.logs import LogLine
from scattersphere.web.rendering import drawn
from scattersphere.web.runpage import last_events
from scattersphere.web.streams import ALIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.run import Run
    from scattersphere.web.content import Taken, VisibleServer
    from scattersphere.web.runpage import Query
    from scattersphere.web.streams import Write

GAP = 0.25
"""Seconds between two messages of one page."""
SHARE = 4
"""So many times as long as the drawing of a page took it rests: ten thousand tasks are drawn less often than ten."""
BURST = 200
"""Lines of a log in one message; more at once, and the page shows the last of them."""


def _message(put: dict[str, str], append: dict[str, str]) -> bytes:
    data = json.dumps({"put": put, "append": append}, ensure_ascii=False)
    return b"event: page\ndata: " + data.encode() + b"\n\n"


class _Changes:
    """Regions as they were sent last, so that only what changed is sent."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}

    def of(self, parts: dict[str, str]) -> dict[str, str]:
        changed = {name: html for name, html in parts.items() if self._sent.get(name) != html}
        self._sent |= changed
        return changed


async def write_run(
    run: Run,
    query: Query,
    parts: Callable[[list[object]], dict[str, str]],
    lines: Callable[[list[LogLine]], str],
    write: Write,
) -> None:
    """Write the page of a run until it has ended. `parts`, given the last events, and `lines` render in a thread."""
    changes = _Changes()
    woken, waiting = anyio.Event(), list[LogLine]()
    over = False

    async def follow() -> None:
        nonlocal over
        task = query.task if query.of_task and query.task in run.tasks else None
        async with anyio.create_task_group() as group:
            group.start_soon(follow_lines, task)
            async for _ in run.events(since=run.last_event):
                woken.set()
            group.cancel_scope.cancel()
        over = True
        woken.set()

    async def follow_lines(task: str | None) -> None:
        async for line in run.follow_logs(task, tail=0):
            waiting.append(line)
            del waiting[:-BURST]
            woken.set()

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        try:
            while True:
                if not over:
                    with anyio.move_on_after(ALIVE):
                        await woken.wait()
                ended = over
                if not woken.is_set():
                    await write(b": alive\n\n")
                    continue
                woken = anyio.Event()
                found, waiting[:] = list(waiting), []
                begun = anyio.current_time()
                events = await last_events(run)
                put = changes.of(await drawn(partial(parts, events), tasks=len(run.definition.tasks)))
                took = anyio.current_time() - begun
                append = {"log-lines": await drawn(partial(lines, found))} if found else {}
                await write(_message(put, append))
                if ended:
                    if (
                        run.state.ended
                    ):  # else it is suspended: the browser comes again until the server is back
                        await write(b"event: ended\ndata:\n\n")
                    return
                await anyio.sleep(max(GAP, SHARE * took))
        finally:
            group.cancel_scope.cancel()


async def write_table(look: VisibleServer, parts: Callable[[Taken], dict[str, str]], write: Write) -> None:
    """Write a page of many runs, drawn again at events of the Server. `parts` renders, in a thread."""
    changes = _Changes()
    woken = anyio.Event()

    async def follow() -> None:
        async for _ in look.server.events():
            woken.set()

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        try:
            while True:
                with anyio.move_on_after(4 * GAP):  # counts of tasks move between the events of runs
                    await woken.wait()
                woken = anyio.Event()
                await look.gateway.judge()
                begun = anyio.current_time()
                put = changes.of(await drawn(partial(parts, look.take())))
                took = anyio.current_time() - begun
                await write(_message(put, {}) if put else b": alive\n\n")
                await anyio.sleep(max(2 * GAP, SHARE * took))
        finally:
            group.cancel_scope.cancel()

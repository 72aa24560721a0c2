"""Shell: run a program, with its output in the log line by line."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.text import TextReceiveStream

from scattersphere.errors import ScattersphereError
from scattersphere.task import RunnableTask, TaskContext

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream, Process

TERMINATE_LIMIT = 5.0
"""Seconds between SIGTERM and SIGKILL when a cancel ends the program."""
LINE_LIMIT = 16 * 1024
"""Characters of a line without an end, after which it is logged as it is."""


class ExitCodeError(ScattersphereError):
    """The program ended with an exit code that is not among the accepted ones."""

    code = "conflict"


class Shell(RunnableTask):
    """Run a program. A list is run as it is; a string goes through the system's shell.

    Returns `{"exit_code": .., "stdout": .., "stderr": ..}` with the last `keep` characters of each
    stream. `ok` are the exit codes that mean success. `env` is added to the environment. On
    a cancel the whole process group gets SIGTERM, and SIGKILL five seconds later.
    """

    command: list[str] | str
    env: dict[str, str] = {}  # noqa: RUF012 - a parameter's default; RunnableTask copies it
    cwd: str | None = None
    input: str | None = None
    ok: list[int] = [0]  # noqa: RUF012 - as above
    keep: int = 65_536

    async def run(self, context: TaskContext) -> dict[str, Any]:
        """Run the program to its end."""
        process = await anyio.open_process(
            self.command,
            cwd=self.cwd,
            env={**os.environ, **self.env},
            start_new_session=True,
        )
        out, err = _Tail(self.keep), _Tail(self.keep)
        code = -1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_feed, process, self.input)
                tasks.start_soon(_log_lines, process.stdout, context, logging.INFO, out)
                tasks.start_soon(_log_lines, process.stderr, context, logging.WARNING, err)
                code = await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
                await process.aclose()
        if code not in self.ok:
            tail = err.text().strip() or out.text().strip()
            raise ExitCodeError(f"exit code {code}, accepted are {self.ok}; last words: {tail[-500:]}")
        return {"exit_code": code, "stdout": out.text(), "stderr": err.text()}


class _Tail:
    """The last characters of a stream."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._size = 0
        self._parts: deque[str] = deque()

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        while self._parts and self._size - len(self._parts[0]) >= self._keep:
            self._size -= len(self._parts.popleft())

    def text(self) -> str:
        return "".join(self._parts)[-self._keep :] if self._keep else ""


async def _feed(process: Process, text: str | None) -> None:
    if process.stdin is None:
        return
    try:
        if text:
            await process.stdin.send(text.encode())
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the program does not read its input: its right


async def _log_lines(stream: ByteReceiveStream | None, context: TaskContext, level: int, tail: _Tail) -> None:
    if stream is None:
        return
    pending = ""
    async for chunk in TextReceiveStream(stream, errors="replace"):
        tail.add(chunk)
        *lines, pending = (pending + chunk).split("\n")
        for line in lines:
            context.log.log(level, "%s", line.rstrip("\r"))
        if len(pending) > LINE_LIMIT:
            context.log.log(level, "%s", pending)
            pending = ""
    if pending:
        context.log.log(level, "%s", pending)


async def _end(process: Process) -> None:
    """End the process group, politely first. Its members may outlive the program itself."""
    if process.returncode is not None:
        _signal_group(process, signal.SIGKILL)
        return
    _signal_group(process, signal.SIGTERM)
    with anyio.move_on_after(TERMINATE_LIMIT):
        await process.wait()
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left, or only a zombie of somebody else

"""Shell: run a program, with its output in the log line by line."""

from __future__ import annotations

import codecs
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from scattersphere.errors import NonRetryableError, ScattersphereError
from scattersphere.runnable import RunnableTask, TaskContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteReceiveStream, Process

LINE_LIMIT = 16 * 1024
"""Characters of a line, after which the log goes on in the next one."""
CHUNK = 8 * 1024
"""Bytes that are read at once."""
FED = 64 * 1024
"""Bytes that are written at once: what a pipe takes."""
SLICE = 0.005
"""Seconds of writing lines, before the loop has a turn: a chunk may hold as many lines as bytes."""
LAST_OUTPUT = 1.0
"""Seconds to wait for the end of the output when the program and its group have gone: somebody who left
the group may still hold the pipe."""
LAST_WORDS = 500
"""Characters of output that an error message quotes."""
STEP = 0.02
"""Seconds between looks at a group that was told to end: the kernel tells nobody when the last one has gone."""
SHARE_OF_GRACE = 0.7
"""The part of an attempt's grace that the group may use: the rest is for SIGKILL, and for reading what is left."""
LEAST_GRACE = 0.1
"""Seconds of grace below which there is no time to be polite: a kill gives a coroutine 0.05 s."""


class ExitCodeError(ScattersphereError):
    """The program ended with an exit code that is not among the accepted ones."""

    code = "conflict"


class Shell(RunnableTask):
    """Run a program. A list is run as it is; a string goes through the system's shell.

    Returns `{"exit_code": .., "stdout": .., "stderr": ..}` with the last `keep` characters of each
    stream; every line is in the log. `ok` are the exit codes that mean success. `env` is added to the environment, or
    is all of it where `inherit_env` is false. Without `input` the program finds an empty one.

    The program leads a process group of its own. On a cancel or timeout the whole group gets SIGTERM, and
    SIGKILL when `terminate_seconds`, or most of the attempt's grace if that is less, have passed; on a kill
    it gets SIGKILL at once. What the program leaves running in its group when it ends is ended in the same way.
    """

    command: list[str] | str
    env: dict[str, str] = {}  # noqa: RUF012 - a parameter's default; RunnableTask copies it
    inherit_env: bool = True
    cwd: str | None = None
    input: str | None = None
    ok: list[int] = [0]  # noqa: RUF012 - as above
    keep: int = 65_536
    terminate_seconds: float = 5.0

    async def run(self, context: TaskContext) -> dict[str, Any]:
        """Run the program to its end."""
        given = self._check()
        out, err = _Tail(self.keep), _Tail(self.keep)
        process = await self._open()
        code = -1
        group = ProcessGroup(process, self.terminate_seconds, lambda: context.grace_left)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_feed, process, given)
                tasks.start_soon(_log_lines, process.stdout, context, logging.INFO, out)
                tasks.start_soon(_log_lines, process.stderr, context, logging.WARNING, err)
                code = await process.wait()
                await group.end()
                tasks.cancel_scope.deadline = anyio.current_time() + LAST_OUTPUT
        finally:
            await group.aclose()
        if code not in self.ok:
            tail = err.text().strip() or out.text().strip() or "(it said nothing)"
            raise ExitCodeError(
                f"{_how(code)}, accepted are {self.ok}; last words: {tail[-LAST_WORDS:]}",
            )
        return {"exit_code": code, "stdout": out.text(), "stderr": err.text()}

    def _check(self) -> bytes | None:
        """Return the input as bytes. Raises `NonRetryableError` for what no program can be given."""
        words = [self.command] if isinstance(self.command, str) else self.command
        if not words or not words[0].strip():
            raise NonRetryableError(
                'command is empty: write a program and its arguments, as ["ls", "-l"], or a line for the shell'
            )
        if any("\0" in word for word in (*words, *self.env, *self.env.values(), self.cwd or "")):
            raise NonRetryableError("command, env and cwd cannot hold the character NUL")
        if any(not name or "=" in name for name in self.env):
            raise NonRetryableError('env: the name of a variable is not empty and holds no "="')
        try:
            # What the system gave us as a name that is not UTF-8 goes back to it as it was.
            return None if self.input is None else self.input.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            character = ord(self.input[error.start]) if self.input else 0
            raise NonRetryableError(
                f"input: character {error.start} is U+{character:04X}, one half of a pair, and no text"
            ) from None

    async def _open(self) -> Process:
        return await anyio.open_process(
            self.command,
            stdin=subprocess.DEVNULL if self.input is None else subprocess.PIPE,
            cwd=self.cwd,
            env={**(os.environ if self.inherit_env else {}), **self.env},
            start_new_session=sys.platform != "win32",
        )


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name} (exit code {code})"
    except ValueError:
        return f"ended by signal {-code} (exit code {code})"


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
        return "".join(self._parts)[-self._keep :] if self._keep > 0 else ""


async def _feed(process: Process, given: bytes | None) -> None:
    if process.stdin is None or given is None:
        return
    try:
        for start in range(
            0, len(given), FED
        ):  # the loop moves what it could not send yet: little, but not megabytes
            await process.stdin.send(given[start : start + FED])
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the program does not read its input: its right


async def _log_lines(stream: ByteReceiveStream | None, context: TaskContext, level: int, tail: _Tail) -> None:
    if stream is None:
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending, going_on = "", True
    while going_on:
        try:
            text = decoder.decode(await stream.receive(CHUNK))
        except anyio.EndOfStream:
            text, going_on = decoder.decode(b"", final=True), False
        tail.add(text)
        *lines, pending = (pending + text).split("\n")
        end = time.perf_counter() + SLICE
        for line in lines:
            _log(context, level, line.rstrip("\r"))
            if time.perf_counter() > end:
                await anyio.lowlevel.checkpoint()
                end = time.perf_counter() + SLICE
        if len(pending) > LINE_LIMIT or (pending and not going_on):
            _log(context, level, pending)
            pending = ""
        await anyio.lowlevel.checkpoint()  # what asyncio has buffered is received without one


def _log(context: TaskContext, level: int, line: str) -> None:
    for start in range(0, len(line) or 1, LINE_LIMIT):  # the log would leave out the middle of a longer one
        context.log.log(level, "%s", line[start : start + LINE_LIMIT])


class ProcessGroup:
    """The group that `process` leads (it was started in a session of its own).

    `patience` is the seconds between SIGTERM and SIGKILL, or most of what `grace_left()` says if that is less.
    """

    def __init__(self, process: Process, patience: float, grace_left: Callable[[], float | None]) -> None:
        self._process = process
        self._patience = patience
        self._grace_left = grace_left

    async def aclose(self) -> None:
        """End the group, whatever cancels the caller meanwhile, and close the program's streams."""
        with anyio.CancelScope(shield=True):
            try:
                await self.end()
            except GeneratorExit:  # the body is closed by force and cannot wait; the loop reaps the program
                self._signal("KILL")
                raise
            except BaseException:  # a second cancel of asyncio's goes through the shield: no more patience
                self._signal("KILL")
                await self._process.aclose()
                raise
            await self._process.aclose()

    async def end(self) -> None:
        """End what is there of the group; return when it has gone, or has got SIGKILL."""
        begun = anyio.current_time()
        if not self._signal("TERM"):
            return
        while anyio.current_time() - begun < self._limit(begun):
            with anyio.move_on_after(STEP):
                await self._process.wait()
            if self._process.returncode is not None and not self._anybody_left():
                return
            await anyio.sleep(STEP)
        self._signal("KILL")
        await self._process.wait()

    def _limit(self, begun: float) -> float:
        left = self._grace_left()
        if left is None:
            return self._patience
        whole = left + anyio.current_time() - begun
        return 0 if whole < LEAST_GRACE else min(self._patience, whole * SHARE_OF_GRACE)

    def _signal(self, name: str) -> bool:
        """Send SIGTERM or SIGKILL to the whole group. Return whether anybody was there."""
        if sys.platform == "win32":  # no groups there: the program alone
            if self._process.returncode is not None:
                return False
            self._process.kill()
            return True
        try:
            os.killpg(self._process.pid, signal.Signals[f"SIG{name}"])
        except (ProcessLookupError, PermissionError):
            return False  # nobody is left, or only a zombie of somebody else
        return True

    def _anybody_left(self) -> bool:
        """Whether a member of the group still runs, now that the program itself has ended."""
        group = str(self._process.pid).encode()
        if not Path("/proc/self/stat").exists():
            return self._signal("TERM")
        # A container's first process often reaps no orphans: `killpg` finds their zombies for ever.
        return any(_is_alive_in(group, folder) for folder in Path("/proc").glob("[0-9]*"))


def _is_alive_in(group: bytes, folder: Path) -> bool:
    try:
        state, _parent, of_group = (folder / "stat").read_bytes().rpartition(b")")[2].split(maxsplit=3)[:3]
    except (OSError, ValueError):
        return False  # it ended meanwhile
    return of_group == group and state not in {b"Z", b"X"}

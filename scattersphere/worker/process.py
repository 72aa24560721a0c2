"""A worker process from outside: started, told, killed, reaped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from scattersphere.worker.pipes import Kind, Receiver, Sender

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.runnable import TaskContext


LateLine = Callable[[int, str, str, float], None]
"""Takes level, message and logger of a line that no run takes, and how many seconds ago it was written."""

REMEMBERED = 8
"""Earlier calls of a worker whose late lines still find their run."""


class LateLines:
    """Finds the run of a line by the number of its call, as long as that run is kept; for one thread."""

    def __init__(self, elsewhere: LateLine | None) -> None:
        self._elsewhere = elsewhere
        self._calls: deque[tuple[int, weakref.ref[Any], dict[str, Any]]] = deque(maxlen=REMEMBERED)

    def remember(self, number: int, context: TaskContext) -> None:
        """Note where lines of a call belong that comes to its end. Keeps no run alive."""
        log = getattr(context, "run_log", None)
        if log is not None:
            place = {"task": context.task, "index": context.index, "attempt": context.attempt}
            self._calls.append((number, weakref.ref(log), place))

    def take(self, number: int, level: int, message: str, logger: str, ago: float) -> None:
        """File a line: with its own run if that is still there, else where the host wants such lines."""
        for called, reference, place in self._calls:
            log = reference()
            if called == number and log is not None:
                log.append(level, message, logger=logger, ago=ago, **place)
                return
        if self._elsewhere is not None:
            self._elsewhere(level, message, logger, ago)


_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from scattersphere.worker.main import main; main(*map(int, sys.argv[2:]))"
)
"""Not `-m`, which puts the working directory first on the path; not multiprocessing's spawn, which runs the
host's `__main__` again and leaves a resource tracker behind."""

_LAST_WORDS = 1.0
"""Seconds that a worker without a call may take to exit by itself."""

_POLL = 0.0005, 0.02
"""Seconds between looks whether a process that must be ending has ended: the first and the longest."""


class WorkerProcess:
    """A process that carries out one call at a time.

    It leads a process group of its own, so that a kill reaches what it started, and a Ctrl-C at the
    terminal does not reach it. Used by one lane; `tell` and `kill` are for any thread.
    """

    def __init__(self, environment: Mapping[str, str], on_late_line: LateLine | None = None) -> None:
        self.environment: dict[str, str] = dict(environment)
        self.versions: set[str] = set()
        """The bundle versions that it has loaded."""
        self.hooked: dict[str, str] = {}
        """Of these, by bundle, the last one that has something to undo when it is let go."""
        self.exhausted = False
        """Whether it ran out of memory: what it holds nobody can know."""
        self.late: LateLines = LateLines(on_late_line)
        self.started = False
        """Whether it has ever said that it is ready."""
        self._guard = threading.Lock()
        """Held while the process is reaped: nothing may be killed by a number that is free again."""
        self._current: object | None = None
        pipes = [os.pipe() for _ in range(3)]
        (calls, calls_in), (control, control_in), (replies_out, replies) = pipes
        try:
            self._process = _spawn(calls, replies, control, self.environment)
        except BaseException:
            for end in (calls_in, control_in, replies_out):
                os.close(end)
            raise
        finally:
            for end in (calls, control, replies):
                os.close(end)
        # A worker that holds the interpreter's lock does not read its control pipe; telling it must not block.
        os.set_blocking(control_in, False)
        self.calls: Sender = Sender(calls_in)
        self.replies: Receiver = Receiver(replies_out)
        self._control = Sender(control_in)

    @property
    def pid(self) -> int:
        """The number of the process and of its group."""
        return self._process.pid

    def begin(self, call: object) -> None:
        """From now on `tell` and `kill` are meant for `call`."""
        with self._guard:
            self._current = call

    def end(self) -> None:
        """The call is over; a late `tell` or `kill` for it does nothing."""
        with self._guard:
            self._current = None

    def tell(self, call: object, kind: Kind, number: int) -> None:
        """Send a control frame, if `call` is still the current one. Never blocks."""
        with self._guard:
            if self._current is call:
                with suppress(OSError):  # gone, or so many unread frames that one more says nothing new
                    self._control.send(kind, number.to_bytes(8, "little"))

    def kill(self, call: object) -> None:
        """End the process and its group by force, if `call` is still the current one."""
        with self._guard:
            if self._current is call:
                self._kill_group()

    def reap(self) -> str:
        """After its pipe has ended: take leave of the process and say how it ended.

        What it had started ends too: nobody would look after that.
        """
        with self._guard:
            # Its pipe is closed, so its exit code is settled, unless it had closed the pipe itself and lives.
            if self._process.returncode is None:
                self._kill_group()
        self._await_end(monotonic() + _LAST_WORDS)
        self._close_pipes()
        return _describe(self._process.returncode)

    def stop(self) -> None:
        """End a worker that has no call: kindly, so that its exit handlers run, then by force."""
        with suppress(OSError):
            self._control.send(Kind.LEAVE)
        self._close_pipes()
        if not self._await_end(monotonic() + _LAST_WORDS, group=True):
            with self._guard:
                self._kill_group()
            self._await_end(monotonic() + _LAST_WORDS)

    def _kill_group(self) -> None:
        if self._process.returncode is None:  # only while it is not reaped is the number its own
            with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
                os.killpg(self._process.pid, signal.SIGKILL)

    def _await_end(self, deadline: float, *, group: bool = False) -> bool:
        pause, longest = _POLL
        while True:
            with self._guard:
                if group and _has_exited(self._process):
                    self._kill_group()  # while its number is still taken: what it had started ends too
                if self._process.poll() is not None:
                    return True
            if monotonic() > deadline:
                return False
            sleep(pause)
            pause = min(longest, pause * 2)

    def _close_pipes(self) -> None:
        self.calls.close()
        self.replies.close()
        self._control.close()


def _spawn(calls: int, replies: int, control: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    numbers = (str(end) for end in (calls, replies, control))
    command = [sys.executable, *_interpreter_flags(), "-c", _BOOTSTRAP, json.dumps(sys.path), *numbers]
    return subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(calls, replies, control),
        process_group=0,
        env={**os.environ, **environment},
    )


def _interpreter_flags() -> list[str]:
    """Start workers as this interpreter was started, where that changes what code means."""
    flags = sys.flags
    given = ["-O"] * flags.optimize
    given += ["-I"] if flags.isolated else ["-E"] if flags.ignore_environment else []
    given += ["-X", "dev"] if flags.dev_mode else []
    return [*given, "-X", f"utf8={flags.utf8_mode}"]


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended, without reaping it. False where the system cannot tell (macOS)."""
    if process.returncode is not None or not hasattr(os, "waitid"):
        return False
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return False


def _describe(code: int | None) -> str:
    if code is None:
        return "does not end, although it was killed"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a realtime signal
        name = f"signal {-code}"
    return f"killed by {name}"

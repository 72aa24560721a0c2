"""Attempts held at a checkpoint during a pause, with all the tasks and threads that a body may consist of.

Each of them that comes to a checkpoint waits at a gate of its own. The attempt counts as held, and its timeout stands
still, when nothing of it executes that is not held: its other tasks wait for their own children, or for runs that are
paused too; its threads sleep.
"""

from __future__ import annotations

import sys
import threading
from time import thread_time
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel

from scattersphere.errors import TaskCancelled
from scattersphere.model.states import RunState
from scattersphere.worker.body import CHECK_ON_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.machine import Command
    from scattersphere.engine.timers import Deadlines

GAP, GAP_MOST = 0.01, 1.0
"""Seconds until an attempt is looked at again of which something still executes; doubled each time."""
SHARE = 0.1
"""The part of the loop's time that looking may take: there may be ten thousand tasks to look through."""

RESTING = {
    ("threading.py", "wait"),
    ("threading.py", "join"),
    ("threading.py", "_wait_for_tstate_lock"),
    ("queue.py", "get"),
    ("_base.py", "result"),
    ("_base.py", "wait"),
    ("thread.py", "_worker"),
}
"""Where in Python's library a thread waits for another, or for work: names of files and functions."""


class Timeouts(Protocol):
    """What looks after the timeouts of attempts."""

    def stand_still(self, attempt: Attempt, commands: Sequence[Command]) -> None:
        """All of an attempt waits: its timeout stands still, and what the machine asked for then is carried out."""

    def go_on(self, attempt: Attempt) -> None:
        """Some of it goes on: its timeout does too."""


class HoldsHost(Protocol):
    """What holding attempts needs of the executor."""

    deadlines: Deadlines

    @property
    def loop(self) -> Loop:
        """The loop that bodies live on."""
        ...

    @property
    def canceller(self) -> Timeouts:
        """Cancels attempts."""
        ...

    def on_loop(self) -> bool:
        """Whether this is the loop's own thread."""
        ...

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back in a turn of the loop to come."""

    def guard(self, execution: Execution, action: Callable[..., object], *args: Any) -> None:
        """Do something on behalf of a run."""


class Holds:
    """The attempts of one executor that wait at checkpoints. For the loop's thread."""

    def __init__(self, host: HoldsHost) -> None:
        self._host = host
        self._new: dict[Attempt, None] = {}
        """Attempts that have come to a checkpoint and were not looked at since."""
        self._due = False
        self._took = 0.0
        """Seconds of processor that the last look has taken."""

    async def checkpoint(self, attempt: Attempt) -> None:
        """Wait in a task of a body as long as the run is paused."""
        await anyio.lowlevel.checkpoint()
        while attempt.execution.machine.holds(attempt.unit):
            gate = anyio.Event()
            self.hold(attempt, gate, self._host.loop.current())
            try:
                await gate.wait()
            finally:
                self.leave(attempt, gate)

    def check(self, attempt: Attempt) -> None:
        """Wait in a thread of a body while its run is paused. Raises `TaskCancelled`; on the loop `RuntimeError`."""
        host, ident = self._host, threading.get_ident()
        if host.on_loop():
            raise RuntimeError(CHECK_ON_LOOP)
        attempt.threads = attempt.threads | {ident} if ident not in attempt.threads else attempt.threads
        while attempt.cancel_reason is None and attempt.execution.pausing:
            gate = threading.Event()
            host.soon(host.guard, attempt.execution, self._hold_thread, attempt, gate, ident)
            gate.wait()
        if attempt.cancel_reason is not None:
            raise TaskCancelled(f"{attempt.label}: {attempt.cancel_reason}")

    def _hold_thread(self, attempt: Attempt, gate: threading.Event, ident: int) -> None:
        """On the loop's thread: let the machine decide whether the thread must wait."""
        if attempt.execution.machine.holds(attempt.unit):
            self.hold(attempt, gate, ident)
        else:
            gate.set()

    def hold(self, attempt: Attempt, gate: Any, part: Any) -> None:
        """Note that `part` of a body, a task or a thread, waits at `gate`."""
        attempt.gates = {**attempt.gates, gate: part}
        self._look_soon(attempt)

    def leave(self, attempt: Attempt, gate: Any) -> None:
        """Note that a part goes on that was not released: its own task group has cancelled it."""
        if gate not in attempt.gates:
            return
        attempt.gates = {each: part for each, part in attempt.gates.items() if each is not gate}
        if attempt.unit in attempt.execution.machine.record.held:
            attempt.execution.machine.record.held.discard(attempt.unit)
            self._host.canceller.go_on(attempt)
            self._look_soon(attempt)

    def release(self, attempt: Attempt) -> None:
        """Let all parts of a body go on."""
        gates, attempt.gates = attempt.gates, {}
        for gate in gates:
            gate.set()

    def waits_for_runs(self, attempt: Attempt) -> None:
        """Note that a body waits for runs that it has started, or that one of these is paused by now."""
        if _waits(attempt):
            self._look_soon(attempt)

    def _look_soon(self, attempt: Attempt) -> None:
        self._new[attempt] = None
        if not self._due:
            self._due = True
            wait = self._took * (1 - SHARE) / SHARE
            if wait < GAP:
                self._host.soon(self._look)
            else:
                self._host.deadlines.call_later(attempt.execution, wait, self._look)

    def _look(self) -> None:
        begun = thread_time()  # what others make it wait for is no reason to look more rarely
        self._due = False
        new, self._new = self._new, {}
        waiting = [attempt for attempt in new if _waits(attempt)]
        busy = self._host.loop.at_work({attempt: set(attempt.gates.values()) for attempt in waiting})
        for attempt in waiting:
            self._host.guard(attempt.execution, self._decide, attempt, attempt in busy, GAP)
        self._took = thread_time() - begun

    def _decide(self, attempt: Attempt, busy: bool, gap: float) -> None:  # noqa: FBT001 - said once, above
        """Count the attempt as held, or look at it again."""
        machine = attempt.execution.machine
        if not _waits(attempt) or attempt.unit in machine.record.held:
            return
        if not busy and not threads_at_work(attempt):
            commands = machine.checkpoint(attempt.unit)
            if commands is None:
                self.release(attempt)
            else:
                self._host.canceller.stand_still(attempt, commands)
            return

        def again() -> None:
            held = {attempt: set(attempt.gates.values())}
            self._decide(attempt, bool(self._host.loop.at_work(held)), min(gap * 2, GAP_MOST))

        self._host.deadlines.call_later(attempt.execution, gap, again)


def _waits(attempt: Attempt) -> bool:
    """Whether part of a body waits for a resume: at a checkpoint, or during a pause for runs that are all paused."""
    if attempt.gates:
        return True
    runs = attempt.waits_for
    return bool(runs) and attempt.execution.pausing and all(_is_paused(run) for run in runs)


def _is_paused(execution: Execution) -> bool:
    return execution.state is RunState.PAUSED or execution.state.ended


def threads_at_work(attempt: Attempt) -> bool:
    """Whether a thread of the body executes: the one that it was given, or one that has called `check()`."""
    threads = attempt.threads
    if not threads:
        return False
    alive = {thread.ident for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    for ident in threads & alive:
        code = None if (frame := frames.get(ident)) is None else frame.f_code
        if code is not None and (code.co_filename.rpartition("/")[2], code.co_name) not in RESTING:
            return True
    return False

"""Attempts held at a checkpoint during a pause, with all the tasks and threads that a body may consist of.

Each of them that comes to a checkpoint waits at a gate of its own. The attempt counts as held, and its timeout stands
still, when nothing of it executes that is not held: its other tasks wait for their own children, or for runs that are
paused too; its threads sleep.
"""

from __future__ import annotations

import sys
import threading
from time import thread_time
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.lowlevel

from scattersphere.engine.execution import BODYS_OWN
from scattersphere.errors import TaskCancelled
from scattersphere.model.states import RunState
from scattersphere.worker.body import CHECK_ON_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.machine import Command
    from scattersphere.engine.timers import WorkBudget

    Gate = anyio.Event | threading.Event
    from scattersphere.errors import EngineError

GAP, GAP_MOST = 0.01, 1.0
"""Seconds until attempts are looked at again of which something still executes; doubled each time."""
DECIDED_AT_ONCE = 32
"""Attempts about which is decided between two looks at the clock."""
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

    budget: WorkBudget
    clock: Callable[[], float]

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

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back in a turn of the loop to come."""

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        """Have `callback` called at `when`."""
        ...

    def wake(self) -> None:
        """Have the pump called soon, which does what waits in `budget`."""

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def crash_run(self, execution: Execution, exc: BaseException) -> None:
        """End a run because of a defect of ours that came up while it was served."""

    def defect(self, execution: Execution, exc: BaseException) -> EngineError:
        """End a run because of a defect of ours; return what is raised where that is called from."""
        ...


class Holds:
    """The attempts of one executor that wait at checkpoints. For the loop's thread."""

    def __init__(self, host: HoldsHost) -> None:
        self._host = host
        self._new: dict[Attempt, None] = {}
        """Attempts that have come to a checkpoint and were not looked at since."""
        self._busy: dict[Attempt, None] = {}
        """Attempts of which something still executed when they were looked at."""
        self._due = False
        """Whether a look is to come, or under way."""
        self._gap = GAP
        """Seconds until the next look at those that were busy."""
        self._took = 0.0
        """Seconds of processor that the last look has taken."""

    async def checkpoint(self, attempt: Attempt) -> None:
        """Wait in a task of a body as long as the run is paused."""
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                gate = self._hold_task(attempt)
            except BODYS_OWN:
                raise
            except Exception as exc:
                raise self._host.defect(attempt.execution, exc) from exc
            if gate is None:
                return
            try:
                await gate.wait()
            finally:
                self._host.guard(attempt.execution, self.leave, attempt, gate)

    def _hold_task(self, attempt: Attempt) -> anyio.Event | None:
        """Return the gate at which a task of a body has to wait, if it has to."""
        if not attempt.execution.machine.holds(attempt.unit):
            return None
        gate = anyio.Event()
        self.hold(attempt, gate, self._host.loop.current())
        return gate

    def check(self, attempt: Attempt) -> None:
        """Wait in a thread of a body while its run is paused. Raises `TaskCancelled`; on the loop `RuntimeError`."""
        host, ident = self._host, threading.get_ident()
        if host.on_loop():
            raise RuntimeError(CHECK_ON_LOOP)
        attempt.threads = attempt.threads | {ident} if ident not in attempt.threads else attempt.threads
        while attempt.cancel_reason is None and attempt.execution.pausing:
            gate = threading.Event()
            host.soon(self._hold_thread, attempt, gate, ident)
            gate.wait()
        if attempt.cancel_reason is not None:
            raise TaskCancelled(f"{attempt.label}: {attempt.cancel_reason}")

    def _hold_thread(self, attempt: Attempt, gate: threading.Event, ident: int) -> None:
        """On the loop's thread: let the machine decide whether the thread must wait. In no case it waits in vain."""
        self._host.guard(attempt.execution, self._hold_if_paused, attempt, gate, ident)
        if gate not in attempt.gates:
            gate.set()

    def _hold_if_paused(self, attempt: Attempt, gate: threading.Event, ident: int) -> None:
        if attempt.execution.machine.holds(attempt.unit):
            self.hold(attempt, gate, ident)

    def hold(self, attempt: Attempt, gate: Gate, part: object) -> None:
        """Note that `part` of a body, a task or a thread, waits at `gate`."""
        attempt.gates = {**attempt.gates, gate: part}
        self._look_soon(attempt)

    def leave(self, attempt: Attempt, gate: Gate) -> None:
        """Note that a part goes on that was not released: its own task group has cancelled it."""
        if gate not in attempt.gates:
            return
        attempt.gates = {each: part for each, part in attempt.gates.items() if each is not gate}
        if attempt.unit in attempt.execution.machine.record.held:
            attempt.execution.machine.record.held.discard(attempt.unit)
            self._host.canceller.go_on(attempt)
        self._look_soon(attempt)  # a look that is under way counts on the gates that it found

    def release(self, attempt: Attempt) -> None:
        """Let all parts of a body go on."""
        if attempt.gates:
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
            self._due, self._gap = True, GAP
            self._look_in(0.0)

    def _look_in(self, gap: float) -> None:
        """Look in so many seconds, or when looking has not taken more than its share of the time."""
        wait = max(gap, self._took * (1 - SHARE) / SHARE)
        if wait < GAP:
            self._host.soon(self._look)
        else:
            self._host.call_at(self._host.clock() + wait, self._look)

    def _look(self) -> None:
        new, self._new = self._new, {}
        waiting: dict[Attempt, Mapping[Gate, object]] = {}
        for attempt in new:
            self._host.guard(attempt.execution, self._take_waiting, attempt, waiting)
        self._took = 0.0
        self._host.budget.in_pieces(self._timed(self._looking(waiting), waiting))
        self._host.wake()

    def _take_waiting(self, attempt: Attempt, waiting: dict[Attempt, Mapping[Gate, object]]) -> None:
        if _waits(attempt):
            waiting[attempt] = attempt.gates

    def _timed(self, pieces: Iterator[None], waiting: Iterable[Attempt]) -> Iterator[None]:
        """Look, and note how much of the processor's time it takes; then look again, if there is a reason."""
        while True:
            begun = thread_time()  # what others make it wait for is no reason to look more rarely
            try:
                next(pieces)
            except StopIteration:
                break
            except BaseException as exc:  # noqa: BLE001 - a defect of ours
                for execution in dict.fromkeys(attempt.execution for attempt in waiting):
                    self._host.crash_run(execution, exc)
                break
            finally:
                self._took += thread_time() - begun
            yield
        self._due = bool(self._new or self._busy)
        if self._due:
            gap, self._gap = (GAP if self._new else self._gap), min(self._gap * 2, GAP_MOST)
            busy, self._busy = self._busy, {}
            self._new.update(busy)
            self._look_in(gap)

    def _looking(self, waiting: Mapping[Attempt, Mapping[Gate, object]]) -> Iterator[None]:
        """Decide about attempts, in pieces of less than a millisecond; one whose gates change meanwhile is new again.

        What was seen of the others stays true: nothing of them executes that could change it.
        """
        is_at_work = yield from self._host.loop.survey(
            {attempt: set(gates.values()) for attempt, gates in waiting.items()}
        )
        for number, (attempt, gates) in enumerate(waiting.items(), 1):
            if attempt.gates is gates:
                self._host.guard(attempt.execution, self._decide, attempt, is_at_work)
            if not number % DECIDED_AT_ONCE:
                yield

    def _decide(self, attempt: Attempt, is_at_work: Callable[[Attempt], bool]) -> None:
        """Count the attempt as held, or have it looked at again."""
        machine = attempt.execution.machine
        if attempt.unit in machine.record.held or not _waits(attempt):
            return
        if is_at_work(attempt) or threads_at_work(attempt):
            self._busy[attempt] = None
            return
        commands = machine.checkpoint(attempt.unit)
        if commands is None:
            self.release(attempt)
        else:
            self._host.canceller.stand_still(attempt, commands)


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

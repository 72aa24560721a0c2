"""One execution of a task in a run; also what its body gets as its `TaskContext`."""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from scattersphere.errors import TaskCancelled
from scattersphere.logs.hostlog import TASKS, pass_on
from scattersphere.logs.runlog import task_logger
from scattersphere.model.frozen import plain_copy
from scattersphere.runnable import TaskContext
from scattersphere.worker.body import CHECK_ON_LOOP

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from scattersphere.engine.execution import Execution
    from scattersphere.engine.invocation import Invocation
    from scattersphere.engine.plan import PlannedTask
    from scattersphere.engine.timers import Timer
    from scattersphere.logs.runlog import RunLog
    from scattersphere.model.definition import RetryPolicy
    from scattersphere.runnable import RunnableTask
    from scattersphere.worker.callbacks import Callbacks


class Attempt(TaskContext):
    """Few slots: one of these is made for each no-op task of a large job. What most never have stands in the class."""

    __slots__ = ("__dict__", "attempt_number", "execution", "handle", "planned", "unit")

    index: int | None = None  # pyright: ignore[reportIncompatibleMethodOverride] - read for each line and look
    awaiting: Invocation | None = None
    """What has the loop await something for a body that is no coroutine."""
    began_at: float | None = None
    """When its backend has begun it; None on the loop, where the machine knows at once."""
    asked: str | None = None
    """None, or why it was asked to end: "cancel", "timeout", or "suspend" when the Server is closed with a journal."""
    killed: bool = False
    is_committed: bool = False
    """Whether its outcome is durable, so that the machine may be told."""
    left_at: float | None = None
    """When it ended, where its outcome was held back until it was durable."""
    grace: Timer | None = None
    remaining: float | None = None
    """Seconds left of the timeout while it stands still."""
    late: Timer | None = None
    """The timeout of an attempt that was held: it left the order in which attempts expire."""
    waits_for: tuple[Execution, ...] = ()
    """The child runs for whose end it waits at this moment; its places are lent meanwhile."""
    place: anyio.Event | None = None
    """Set when it has its places again."""
    gates: Mapping[Any, Any] = MappingProxyType({})
    """Where its tasks and threads wait during a pause, and which of them."""
    threads: frozenset[int] = frozenset()
    """The threads that have called `check()`."""
    own_params: dict[str, Any] | None = None
    """The parameters of the run as its body sees them: what it changes in them is nobody else's."""
    callbacks: Callbacks | None = None
    """What its body has registered with `on_cancel` and `on_pause`."""
    children_started: int = 0
    """How many runs its body has started."""
    noted_place: str = ""
    """Where its backend says that it executes: a machine, a worker."""
    own_log: logging.LoggerAdapter[logging.Logger] | None = None
    """The logger that was made for it. It knows the attempt: dropped at the end, no work for the collector."""

    def __init__(self, execution: Execution, unit: int, planned: PlannedTask, number: int) -> None:
        self.execution: Execution = execution
        self.unit: int = unit
        self.planned: PlannedTask = planned
        self.attempt_number: int = number
        self.handle: Any = None

    def __repr__(self) -> str:
        return f"<Attempt {self.attempt} of {self.label}>"

    @property
    def label(self) -> str:
        """For people: `wordcount#3/count[7]`."""
        index = self.index
        suffix = "" if index is None else f"[{index}]"
        return f"{self.job}#{self.run_id}/{self.task}{suffix}"

    def is_of(self, execution: Execution, unit: int) -> bool:
        """Whether this is the live attempt of that unit."""
        return self.execution is execution and self.unit == unit

    @property
    def run_id(self) -> int:
        return self.execution.id

    @property
    def job(self) -> str:
        return self.execution.plan.job

    @property
    def task(self) -> str:
        return self.planned.name

    @property
    def bundle(self) -> str:
        """The name of the bundle that its class comes from."""
        return self.planned.task_class.bundle

    @property
    def attempt(self) -> int:
        return self.attempt_number

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self.own_log is None:
            name = f"{TASKS}.{self.execution.plan.job}.{self.planned.name}"
            self.own_log = task_logger(self, self.execution.log, pass_on, name)
        return self.own_log

    @property
    def run_log(self) -> RunLog:
        """The log that this attempt's lines go to."""
        return self.execution.log

    @property
    def hooks(self) -> frozenset[str]:
        """Which hooks its class has."""
        return self.planned.task_class.hooks

    @property
    def retry(self) -> RetryPolicy:
        """What happens after a failure."""
        return self.planned.definition.retry

    def make(self) -> RunnableTask:
        """Make its instance. Raises what filling in, structuring or the constructor raise."""
        planned, execution = self.planned, self.execution
        if planned.same_for_all:
            return planned.cls(**planned.fixed)
        element = {} if self.index is None else execution.element_of(self, self.index)
        return planned.cls(**planned.arguments(execution.params, execution.result, element))

    @property
    def params(self) -> Mapping[str, Any]:
        params = self.own_params
        if params is None:
            params = self.own_params = plain_copy(self.execution.params)
        return MappingProxyType(params)

    @property
    def results(self) -> Mapping[str, Any]:
        return MappingProxyType(self.execution.upstream_results(self.planned))

    @property
    def idempotency_key(self) -> str:
        index = self.index
        suffix = "" if index is None else f"/{index}"
        return f"{self.execution.engine.identity}/{self.run_id}/{self.task}{suffix}"

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self.execution.engine.progress(self, done, total, message)

    @property
    def may_begin(self) -> bool:
        """Whether nothing has come that keeps it from its first step; may be read from any thread."""
        return self.asked is None and self.execution.machine.may_still_begin(self.unit)

    def begins(self) -> bool:
        """Take the first step, in the thread in which the body is to run: False if it may not be taken any more.

        A pause holds it here. What has begun may be asked again.
        """
        if self.began_at is not None:
            return True
        try:
            if self.execution.pausing:
                self.check()
        except TaskCancelled:
            return False
        if not self.may_begin:
            return False
        self.began_at = self.execution.engine.clock()
        return True

    async def checkpoint(self) -> None:
        await anyio.lowlevel.checkpoint()
        engine, machine = self.execution.engine, self.execution.machine
        while machine.holds(self.unit):
            gate = anyio.Event()
            engine.holds.hold(self, gate, engine.loop.current())
            try:
                await gate.wait()
            finally:
                engine.holds.leave(self, gate)

    def check(self) -> None:
        engine, ident = self.execution.engine, threading.get_ident()
        if engine.on_loop():
            raise RuntimeError(CHECK_ON_LOOP)
        self.threads = self.threads | {ident} if ident not in self.threads else self.threads
        while self.asked is None and self.execution.pausing:
            gate = threading.Event()
            engine.soon(engine.guard, self.execution, self._hold, gate, ident)
            gate.wait()
        if self.asked is not None:
            raise TaskCancelled(f"{self.label}: {self.asked}")

    def _hold(self, gate: threading.Event, ident: int) -> None:
        """On the loop's thread: let the machine decide whether the thread must wait."""
        if self.execution.machine.holds(self.unit):
            self.execution.engine.holds.hold(self, gate, ident)
        else:
            gate.set()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self.execution.engine.callbacks.of(self).on_cancel(callback)

    def on_pause(self, hold: Callable[[], object], resume: Callable[[], object]) -> None:
        self.execution.engine.callbacks.of(self).on_pause(hold, resume)

    @property
    def grace_left(self) -> float | None:
        timer = self.grace
        return None if timer is None else max(0.0, timer.when - self.execution.engine.clock())

    async def start(self, job: str, params: Mapping[str, Any] | None = None) -> Any:
        return await self.execution.engine.start_child(self, job, params)

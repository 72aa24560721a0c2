"""Contract tests for a `Backend`: checks that any backend can be put through.

In a test suite of one's own::

    import pytest
    from scattersphere.testing.backends import CHECKS

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS)
    async def test_contract(check):
        await check(MyBackend)

Each check is given what makes a backend, opens one in the event loop that runs, and raises AssertionError with words
where a promise is broken.
"""

from __future__ import annotations

import contextvars
import secrets
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import anyio

from scattersphere.abc.backend import NO_RETRY, BackendTraits, Call, Outcome, OutcomeKind
from scattersphere.engine.invocation import Invocation
from scattersphere.engine.loops import current_loop
from scattersphere.errors import TaskCancelled
from scattersphere.logs.runlog import RunLog, current_attempt, task_logger
from scattersphere.model.taskclass import TaskClass
from scattersphere.runnable import TaskContext, is_async, overridden_hooks
from scattersphere.testing import bodies
from scattersphere.worker.callbacks import Callbacks, Steps, call_in_thread

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from scattersphere.abc.backend import Backend, Handle
    from scattersphere.model.definition import RetryPolicy
    from scattersphere.runnable import RunnableTask

PATIENCE = 30.0
"""Seconds after which a check no longer waits: much more than any backend needs, even to start a process."""

VALUE = "what the body returned"
MANY = 300
"""Calls of the checks that start many."""


class CheckContext(TaskContext):
    """A `TaskContext` that records what its body says, and is cancelled by a flag."""

    def __init__(self, stage: Stage, task: str, number: int) -> None:
        self.log_of_run: RunLog = RunLog(number, takes_prints=stage.takes_prints)
        self.cancelled = False
        self.begun: anyio.Event = anyio.Event()
        self.progress_made: list[tuple[float, float | None, str]] = []
        self.hooks: frozenset[str] = frozenset()
        self.make: Callable[[], RunnableTask]
        self.retry: RetryPolicy = NO_RETRY
        self.awaiting: Any = None
        self.held: anyio.Event = anyio.Event()
        self.callbacks: Callbacks = Callbacks(self._start_calls, self.count_as_held)
        self._stage = stage
        self._task = task
        self._number = number

    @property
    def cancel_reason(self) -> str | None:
        """Why it should end, for `body`."""
        return "cancel" if self.cancelled else None

    @property
    def label(self) -> str:
        """The name of its call, for `body`."""
        return f"check#{self._number}/{self._task}"

    def begins(self) -> bool:
        """Take the first step, for `body`: nothing keeps it."""
        return True

    @property
    def run_id(self) -> int:
        return self._number

    @property
    def job(self) -> str:
        return "check"

    @property
    def task(self) -> str:
        return self._task

    @property
    def index(self) -> int | None:
        return self._number % 7

    @property
    def attempt(self) -> int:
        return 1

    @property
    def run_log(self) -> RunLog:
        """Where its lines go."""
        return self.log_of_run

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        return task_logger(self, self.run_log)

    @property
    def params(self) -> Mapping[str, object]:
        return {}

    @property
    def results(self) -> Mapping[str, object]:
        return {"upstream": self._number}

    @property
    def idempotency_key(self) -> str:
        return f"check/{self._number}"

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self.progress_made.append((done, total, message))
        self._stage.soon(self.begun.set)

    def check(self) -> None:
        if self.cancelled:
            raise TaskCancelled("cancelled by the check")

    async def checkpoint(self) -> None:
        await anyio.lowlevel.checkpoint()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self.callbacks.on_cancel(callback)

    def on_pause(self, hold: Callable[[], object], resume: Callable[[], object]) -> None:
        self.callbacks.on_pause(hold, resume)

    def _start_calls(self, steps: Steps) -> None:
        call_in_thread(steps, contextvars.copy_context(), self.log, "check-callbacks")

    def count_as_held(self) -> None:
        """Take note that all of it is held (`Call.held`); for any thread."""
        self._stage.soon(self.held.set)

    async def start(self, job: str, params: Mapping[str, object] | None = None) -> object:
        raise RuntimeError(f"a check has no child runs, and was asked to start {job!r} with {params}")


class Started:
    """A call that a check has started."""

    def __init__(self, context: CheckContext) -> None:
        self.context = context
        self.outcomes: list[Outcome] = []
        self.threads: list[int] = []
        self.ended: anyio.Event = anyio.Event()
        self.handle: Handle

    def done(self, outcome: Outcome) -> None:
        """Be told the outcome."""
        self.outcomes.append(outcome)
        self.threads.append(threading.get_ident())
        self.ended.set()
        self.context.begun.set()  # so that nobody waits for what can no longer come

    def cancel(self) -> None:
        """Cancel it as the executor does: first the flag, then the handle."""
        self.context.cancelled = True
        self.context.callbacks.cancel()
        self.handle.cancel()

    def pause(self) -> None:
        """Pause it as the executor does."""
        self.context.callbacks.pause()
        self.handle.pause()

    def resume(self) -> None:
        """Resume it as the executor does."""
        self.context.callbacks.resume()
        self.handle.resume()

    async def begun(self) -> None:
        """Wait until the body has reported progress. Raises AssertionError if it ends before."""
        await _soon(self.context.begun, "the body to begin")
        _expect(not self.outcomes, f"it ended before it began: {self.outcomes}")

    async def outcome(self) -> Outcome:
        """Wait for the outcome."""
        await _soon(self.ended, "the call to end")
        return self.outcomes[0]


class Stage:
    """Opens a backend, lends it this event loop, starts calls in it, and closes it."""

    def __init__(self, make: Callable[[], Backend]) -> None:
        self.backend: Backend = make()
        self.takes_prints: bool = False
        """Whether what bodies print belongs into their logs."""
        self.limits: list[tuple[Backend, int | None]] = []
        """What the backend has said of its limit."""
        self.places: dict[str, str] = {}
        """Where calls were said to execute, by their names."""
        self.instance: str = secrets.token_hex(4)
        self.journal: str = ""
        """No journal: what a check has begun ends with it."""
        self._loop = current_loop()
        self._count = 0

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread (`BackendHost`)."""
        self._loop.soon(callback, *args)

    def limit_changed(self, backend: Backend, limit: int | None) -> None:
        """Take note of a new limit."""
        self.limits.append((backend, limit))

    def note_where(self, call: Call, place: str) -> None:
        """Take note of where a call executes."""
        self.places[call.name] = place

    async def __aenter__(self) -> Self:
        await self._loop.open(lambda _: False, lambda: None, lambda _: None)
        await self.backend.open(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.backend.aclose()
            await self._loop.aclose()

    def start(self, cls: type[RunnableTask], **arguments: object) -> Started:
        """Start a call."""
        context = self.make_context(cls, arguments)
        started = Started(context)
        call = Call(
            invoke=Invocation(context, self._loop),
            context=_context_of(context),
            task_class=task_class_of(cls),
            arguments=arguments,
            task_context=context,
            name=f"check#{self._count}/{cls.__name__}",
            held=context.count_as_held,
        )
        started.handle = self.backend.start(call, started.done)
        return started

    def make_context(self, cls: type[RunnableTask], arguments: Mapping[str, object]) -> CheckContext:
        """Make the context of one more call."""
        self._count += 1
        context = CheckContext(self, cls.__name__, self._count)
        context.hooks = overridden_hooks(cls)
        context.make = lambda: cls(**arguments)
        return context

    async def run(self, cls: type[RunnableTask], **arguments: object) -> Outcome:
        """Start a call and wait for its outcome."""
        return await self.start(cls, **arguments).outcome()


def _context_of(context: CheckContext) -> contextvars.Context:
    made = contextvars.copy_context()
    made.run(current_attempt.set, context)
    return made


def task_class_of(cls: type[RunnableTask]) -> TaskClass:
    """Describe a class that is in no registry."""
    return TaskClass(
        path=cls.__qualname__,
        bundle="check",
        cls=cls,
        parameters={},
        summary="",
        is_async=is_async(cls),
        hooks=overridden_hooks(cls),
        digest="",
    )


async def _soon(event: anyio.Event, what: str) -> None:
    """Wait for something that other threads do; in real time, also where the loop's clock is virtual."""
    end = time.monotonic() + PATIENCE
    while not event.is_set():
        with anyio.move_on_after(PATIENCE):
            await event.wait()
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE:g} s in vain for {what}")


def _expect(condition: object, words: str) -> None:
    if not condition:
        raise AssertionError(words)


async def check_an_outcome_comes_once_later_and_on_the_loop(make: Callable[[], Backend]) -> None:
    """`done` is called exactly once, not from inside `start`, in the loop's thread."""
    async with Stage(make) as stage:
        calls = []
        for number in range(MANY):
            call = stage.start(bodies.Echo, value=number)
            _expect(not call.outcomes, "`done` was called from inside `start`")
            calls.append(call)
        for number, call in enumerate(calls):
            outcome = await call.outcome()
            _expect(outcome.kind is OutcomeKind.VALUE, f"it ended with {outcome}")
            _expect(outcome.value == number, f"call {number} got the value of another: {outcome.value}")
    for call in calls:
        _expect(len(call.outcomes) == 1, f"`done` was called {len(call.outcomes)} times")
        _expect(
            call.threads == [threading.get_ident()], "`done` was called in another thread than the loop's"
        )


async def check_an_exception_keeps_type_message_and_source(make: Callable[[], Backend]) -> None:
    """Whatever a body raises ends its own call, and only that (promises 7 and 8)."""
    async with Stage(make) as stage:
        for kind, cls in bodies.EXCEPTIONS.items():
            outcome = await stage.run(bodies.Fail, kind=kind, message="no such day")
            _expect(outcome.kind is OutcomeKind.EXCEPTION, f"{kind}: it ended with {outcome}")
            _expect(isinstance(outcome.error, cls), f"{kind}: {outcome.error!r} is no {kind}")
            _expect(type(outcome.error).__qualname__ == kind, f"{kind} came back as {type(outcome.error)}")
            _expect(str(outcome.error) == "no such day", f"{kind}: the message came back as {outcome.error}")
            source = "raise EXCEPTIONS[self.kind](self.message)"
            _expect(source in outcome.traceback, f"{kind}: no source in the traceback:\n{outcome.traceback}")
        outcome = await stage.run(bodies.Echo, value="unharmed")
        _expect(outcome.value == "unharmed", f"after that, a sound call ended with {outcome}")


async def check_a_cancel_ends_a_body_at_its_next_check(make: Callable[[], Backend]) -> None:
    """`cancel` makes the next `check()` raise; before the body began, and when repeated, too."""
    async with Stage(make) as stage:
        early = stage.start(bodies.Obey)
        early.cancel()
        running = stage.start(bodies.Obey)
        await running.begun()
        for _ in range(3):
            running.cancel()
        for call in (early, running):
            _expect((await call.outcome()).kind is OutcomeKind.CANCELLED, f"it ended with {call.outcomes}")


async def check_an_async_body_is_awaited_where_it_may_be_named(make: Callable[[], Backend]) -> None:
    """It is awaited where the backend says that it `runs_async`; no other is ever given one."""
    async with Stage(make) as stage:
        if BackendTraits.of(stage.backend).runs_async:
            outcome = await stage.run(bodies.AsyncEcho, value=VALUE)
            _expect(outcome.kind is OutcomeKind.VALUE, f"it ended as {outcome.kind}: {outcome.traceback}")
            _expect(outcome.value == VALUE, f"it came to {outcome.value!r} and not to what its body returned")


async def check_what_a_plain_body_returns_to_be_awaited_is_awaited(make: Callable[[], Backend]) -> None:
    """A function that returns a coroutine is a body too."""
    async with Stage(make) as stage:
        outcome = await stage.run(bodies.ReturnsCoroutine, value=VALUE)
        _expect(outcome.value == VALUE, f"it came to {outcome!r} and not to what its coroutine returned")


async def check_late_requests_reach_nobody(make: Callable[[], Backend]) -> None:
    """`cancel` and `kill` of a call that has ended do nothing, to later calls either."""
    async with Stage(make) as stage:
        old = stage.start(bodies.Echo)
        await old.outcome()
        with tempfile.TemporaryDirectory() as folder:
            flag = anyio.Path(folder, "go")
            fresh = stage.start(bodies.Refuse, until=str(flag))
            await fresh.begun()
            old.handle.cancel()
            old.handle.kill()
            _expect(not old.handle.where(), "a call that has ended is still said to execute a line")
            await flag.touch()
            _expect((await fresh.outcome()).kind is OutcomeKind.VALUE, f"it ended with {fresh.outcomes}")
    _expect(len(old.outcomes) == 1, "`done` was called again")


async def check_where_names_the_line(make: Callable[[], Backend]) -> None:
    """`where` names the user's line that executes, or says nothing; never the backend's own line."""
    async with Stage(make) as stage:
        with tempfile.TemporaryDirectory() as folder:
            flag = anyio.Path(folder, "go")
            call = stage.start(bodies.Refuse, until=str(flag))
            await call.begun()
            place = call.handle.where()
            await flag.touch()
            await call.outcome()
    _expect(not place or ("bodies.py:" in place and "in run" in place), f"it says {place!r}")


async def check_what_a_body_says_reaches_its_own_context(make: Callable[[], Backend]) -> None:
    """Log lines and progress of many calls at once: all arrive before the outcome, none at another's."""
    async with Stage(make) as stage:
        calls = [stage.start(bodies.Talk, word=f"w{number}") for number in range(MANY // 3)]
        for number, call in enumerate(calls):
            outcome = await call.outcome()
            context = call.context
            said = [line.message for line in context.run_log.lines()]
            _expect(said == [f"w{number} {n}" for n in range(3)], f"the log of w{number} holds {said}")
            progress = [(n + 1, 3, f"w{number}") for n in range(3)]
            _expect(
                context.progress_made == progress, f"the progress of w{number} is {context.progress_made}"
            )
            itself = (context.run_id, context.job, context.task, context.index, context.attempt)
            _expect(outcome.value == itself, f"it thinks that it is {outcome.value}, but is {itself}")


async def check_context_variables_stay_in_their_call(make: Callable[[], Backend]) -> None:
    """What one body sets in a context variable, no other body sees."""
    async with Stage(make) as stage:
        for number in range(20):
            outcome = await stage.run(bodies.Mark, value=f"left by {number}")
            _expect(not outcome.value, f"a body saw what another had set: {outcome.value!r}")


async def check_a_pause_and_a_cancel_reach_what_the_body_has_registered(make: Callable[[], Backend]) -> None:
    """`on_pause` holds and resumes, also where it comes late or twice; `on_cancel` is called once."""
    async with Stage(make) as stage:
        call = stage.start(bodies.Registers)
        await call.begun()
        call.pause()
        call.pause()
        await _soon(call.context.held, "`Call.held` after a pause")
        call.resume()
        call.resume()
        call.cancel()
        call.cancel()
        outcome = await call.outcome()
        _expect(outcome.kind is OutcomeKind.CANCELLED, f"it ended with {outcome}")
        said = [line.message for line in call.context.run_log.lines()]
        _expect(said == ["hold", "resume", "on_cancel"], f"what it had registered was called as {said}")


async def check_closing_waits_for_nobody(make: Callable[[], Backend]) -> None:
    """`aclose` leaves or kills a body that refuses, may be repeated, and afterwards nothing starts."""
    with tempfile.TemporaryDirectory() as folder:
        flag = anyio.Path(folder, "go")
        async with Stage(make) as stage:
            call = stage.start(bodies.Refuse, until=str(flag))
            await call.begun()
            begun = time.monotonic()
            await stage.backend.aclose()
            await stage.backend.aclose()
            _expect(time.monotonic() - begun < PATIENCE / 3, "closing waited for a body that refuses")
            await flag.touch()
            await call.outcome()
            try:
                stage.start(bodies.Echo)
            except RuntimeError:
                pass
            else:
                raise AssertionError("a closed backend has accepted a call")
    _expect(len(call.outcomes) == 1, f"`done` was called {len(call.outcomes)} times")


async def check_closing_ends_what_waits(make: Callable[[], Backend]) -> None:
    """A call that had not begun when the backend is closed is reported too."""
    with tempfile.TemporaryDirectory() as folder:
        flag = anyio.Path(folder, "go")
        async with Stage(make) as stage:
            places = stage.backend.limit or 0
            refusing = [stage.start(bodies.Refuse, until=str(flag)) for _ in range(places)]
            for call in refusing:
                await call.begun()
            waiting = stage.start(bodies.Echo) if places else None
            await stage.backend.aclose()
            await flag.touch()
            for call in refusing:
                await call.outcome()
            if waiting is not None:
                _expect((await waiting.outcome()).kind is OutcomeKind.CANCELLED, f"it got {waiting.outcomes}")


CHECKS: tuple[Callable[[Callable[[], Backend]], Awaitable[None]], ...] = (
    check_an_outcome_comes_once_later_and_on_the_loop,
    check_an_exception_keeps_type_message_and_source,
    check_a_cancel_ends_a_body_at_its_next_check,
    check_an_async_body_is_awaited_where_it_may_be_named,
    check_what_a_plain_body_returns_to_be_awaited_is_awaited,
    check_late_requests_reach_nobody,
    check_where_names_the_line,
    check_what_a_body_says_reaches_its_own_context,
    check_context_variables_stay_in_their_call,
    check_a_pause_and_a_cancel_reach_what_the_body_has_registered,
    check_closing_waits_for_nobody,
    check_closing_ends_what_waits,
)
"""All checks."""

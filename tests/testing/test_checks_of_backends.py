"""The checks of the contract find the faults that they are made for."""

from __future__ import annotations

import threading

import anyio
import pytest

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.testing import backends
from scattersphere.testing.backends import (
    check_a_cancel_ends_a_body_at_its_next_check,
    check_an_exception_keeps_type_message_and_source,
    check_an_outcome_comes_once_later_and_on_the_loop,
    check_closing_ends_what_waits,
    check_closing_waits_for_nobody,
    check_context_variables_stay_in_their_call,
    check_late_requests_reach_nobody,
    check_what_a_body_says_reaches_its_own_context,
    check_where_names_the_line,
)

pytestmark = pytest.mark.anyio


class Nobody:
    def cancel(self):
        pass

    def kill(self):
        pass

    def where(self):
        return ""


class Inline:
    """Runs the body inside `start`."""

    limit = None

    async def open(self, host):
        self.host = host

    def start(self, call, done):
        done(call.context.run(call.invoke))
        return Nobody()

    async def aclose(self):
        pass


class Threaded(Inline):
    """A thread for each call; tells the outcome from there."""

    def tell(self, call, done):
        done(call.context.run(call.invoke))

    def start(self, call, done):
        self.thread = threading.Thread(target=self.tell, args=(call, done))
        self.thread.start()
        return Nobody()

    async def aclose(self):
        pass


class Soon(Threaded):
    """Right, but for what the subclasses get wrong."""

    def tell(self, call, done):
        self.host.soon(done, call.context.run(call.invoke))


class Twice(Soon):
    def tell(self, call, done):
        outcome = call.context.run(call.invoke)
        self.host.soon(done, outcome)
        self.host.soon(done, outcome)


class Mixed(Soon):
    """Gives each call the value of the one before."""

    last = None

    def tell(self, call, done):
        outcome = call.context.run(call.invoke)
        outcome, self.last = self.last or outcome, outcome
        self.host.soon(done, outcome)


class Flat(Soon):
    """Loses what an exception was."""

    def tell(self, call, done):
        outcome = call.context.run(call.invoke)
        if outcome.error is not None:
            outcome = Outcome(OutcomeKind.EXCEPTION, error=RuntimeError(str(outcome.error)))
        self.host.soon(done, outcome)


class Sharing(Soon):
    """Runs all calls in the context of the first."""

    context = None

    def tell(self, call, done):
        self.context = self.context or call.context
        self.host.soon(done, self.context.run(call.invoke))


class Waiting(Soon):
    """Waits for its calls when it is closed."""

    async def aclose(self):
        await anyio.to_thread.run_sync(self.thread.join, 0.5)


class Lying(Soon):
    def start(self, call, done):
        super().start(call, done)
        handle = Nobody()
        handle.where = lambda: "threading.py:1 in run"
        return handle


class Deaf(ThreadBackend):
    """Drops what waits when it is closed."""

    async def aclose(self):
        self._lanes._take_waiting()
        await super().aclose()


@pytest.mark.parametrize(
    ("check", "make", "words"),
    [
        (check_an_outcome_comes_once_later_and_on_the_loop, Inline, "from inside `start`"),
        (check_an_outcome_comes_once_later_and_on_the_loop, Twice, "was called 2 times"),
        (check_an_outcome_comes_once_later_and_on_the_loop, Mixed, "got the value of another"),
        (check_an_exception_keeps_type_message_and_source, Flat, "is no ValueError"),
        (check_context_variables_stay_in_their_call, Sharing, "saw what another had set"),
        (check_closing_waits_for_nobody, Waiting, "closing waited for a body"),
        (check_closing_waits_for_nobody, Soon, "has accepted a call"),
        (check_where_names_the_line, Lying, "it says 'threading.py:1 in run'"),
        (check_late_requests_reach_nobody, Lying, "still said to execute a line"),
        (check_closing_ends_what_waits, lambda: Deaf(1), "in vain for the call to end"),
    ],
)
async def test_a_faulty_backend_is_found(check, make, words, monkeypatch):
    monkeypatch.setattr(backends, "PATIENCE", 0.5)
    with pytest.raises(AssertionError, match="(?s)" + words.replace("'", ".")):
        await check(make)


async def test_an_outcome_told_from_another_thread_is_found():
    """The check counts on the loop's thread; an Event set from another thread may wake nobody."""
    stage = backends.Stage(Threaded)
    async with stage:
        call = stage.start(backends.bodies.Echo)
        stage.backend.thread.join()
    assert call.threads != [threading.get_ident()]


@pytest.mark.parametrize(
    "check",
    [check_a_cancel_ends_a_body_at_its_next_check, check_what_a_body_says_reaches_its_own_context],
)
async def test_a_sound_backend_passes(check):
    await check(Soon)


async def test_a_call_that_ends_before_it_has_begun_is_reported_as_that():
    async with backends.Stage(ThreadBackend) as stage:
        call = stage.start(backends.bodies.Echo)
        await call.outcome()
        with pytest.raises(AssertionError, match="it ended before it began"):
            await call.begun()


async def test_the_context_of_a_check_fulfils_the_contract_of_contexts():
    async with backends.Stage(ThreadBackend) as stage:
        context = stage.make_context(backends.bodies.Echo, {})
        await context.checkpoint()
        assert context.params == {}
        assert context.idempotency_key == "check/1"
        with pytest.raises(RuntimeError, match="no child runs"):
            await context.start("other")

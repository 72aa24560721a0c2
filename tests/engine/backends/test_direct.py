"""Which calls the loop speaks with its workers about by itself, and when a lane goes on."""

import os
from types import MappingProxyType

import anyio
import process_bodies as bodies
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.abc.backend import OutcomeKind
from scattersphere.engine.backends import workerlane
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.engine.backends.workerlane import FEW, SHORT, is_small
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Echo, Obey, Talk
from scattersphere.worker.messages import dumps


@pytest.fixture
def anyio_backend():
    return "asyncio"  # on trio all calls go through lanes


class Counting(Stage):
    """A stage over one warm worker, that counts what goes to a lane."""

    def __init__(self, limit=1):
        super().__init__(lambda: ProcessBackend(limit))
        self.to_lane = 0

    async def __aenter__(self):
        await super().__aenter__()
        put = self.backend._direct.to_lane

        def counted(handle):
            self.to_lane += 1
            put(handle)

        self.backend._direct.to_lane = counted
        self.backend._lanes.put, self._put = counted, put
        self.pid = (await self.run(bodies.Who)).value
        self.to_lane = 0
        return self


@pytest.mark.anyio
async def test_a_small_call_to_a_warm_worker_needs_no_lane():
    async with Counting() as stage:
        for number in range(20):
            assert (await stage.run(Echo, value=number)).value == number
        talk = stage.start(Talk, word="w")
        assert (await talk.outcome()).kind is OutcomeKind.VALUE
        assert len(talk.context.run_log.lines()) == 3
        assert stage.to_lane == 0
        assert (await stage.run(bodies.Who)).value == stage.pid


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cls", "arguments", "ending"),
    [
        (Echo, {"value": b"x" * 100_000}, OutcomeKind.VALUE),
        (Echo, {"value": list(range(1_000))}, OutcomeKind.VALUE),
        (bodies.Return, {"what": "big"}, OutcomeKind.VALUE),
        (bodies.Results, {}, OutcomeKind.VALUE),
        (bodies.Checks, {}, OutcomeKind.VALUE),
        (bodies.Die, {"how": "kill"}, OutcomeKind.DIED),
        (bodies.Die, {"how": "exit"}, OutcomeKind.DIED),
        (bodies.Die, {"how": "garbage"}, OutcomeKind.DIED),
    ],
)
async def test_what_could_keep_the_loop_waiting_is_a_lanes_business(cls, arguments, ending):
    async with Counting() as stage:
        assert (await stage.run(cls, **arguments)).kind is ending
        assert stage.to_lane == 1
        assert (await stage.run(Echo, value=1)).value == 1


@pytest.mark.anyio
async def test_a_kill_and_a_cancel_reach_a_direct_call():
    async with Counting() as stage:
        obeying = stage.start(Obey)
        await obeying.begun()
        obeying.cancel()
        assert (await obeying.outcome()).kind is OutcomeKind.CANCELLED
        assert (await stage.run(Echo, value=1)).value == 1
        waiting = stage.start(bodies.AsyncWait)
        await waiting.begun()
        waiting.handle.kill()
        assert (await waiting.outcome()).kind is OutcomeKind.DIED


@pytest.mark.anyio
async def test_the_line_of_a_direct_call_is_known(monkeypatch):
    monkeypatch.setattr(workerlane, "_WHERE_WAIT", 30)  # the answer may be late on a busy machine
    async with Counting() as stage:
        call = stage.start(bodies.AsyncWait)
        await call.begun()
        assert stage.to_lane == 0
        assert "in run" in call.handle.where()
        assert stage.to_lane == 1
        call.cancel()
        assert (await call.outcome()).kind is OutcomeKind.CANCELLED


@pytest.mark.anyio
async def test_calls_above_the_limit_wait_and_no_further_process_is_made():
    async with Counting(2) as stage:
        calls = [stage.start(bodies.Who) for _ in range(50)]
        pids = {(await call.outcome()).value for call in calls}
        assert stage.pid in pids
        assert len(pids) <= 2


@pytest.mark.anyio
async def test_a_worker_that_died_while_it_was_idle_is_left_to_a_lane():
    async with Counting() as stage:
        os.kill(stage.pid, 9)
        await anyio.sleep(0.05)
        fresh = (await stage.run(bodies.Who)).value
        assert fresh != stage.pid
        assert stage.to_lane == 1


@pytest.mark.anyio
async def test_closing_ends_direct_calls_and_their_processes():
    async with Counting() as stage:
        call = stage.start(bodies.AsyncWait)
        await call.begun()
        assert stage.to_lane == 0
    assert (await call.outcome()).kind is OutcomeKind.DIED
    with pytest.raises(ProcessLookupError):
        os.kill(stage.pid, 0)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_what_is_called_small_is_small_indeed(value):
    if is_small(value):
        assert len(dumps(value)) <= FEW * (4 * SHORT + 100)


class Sly(dict):
    def keys(self):
        raise SystemExit


@pytest.mark.parametrize(
    "value",
    [
        "x" * (SHORT + 1),
        1 << SHORT + 1,
        [0] * FEW,
        [[[0] * 20] * 20],
        Sly(),
        object(),
        {1: lambda: 1},
        {"a": {2, 3}},
    ],
)
def test_what_is_large_or_runs_code_when_pickled_is_not_small(value):
    assert not is_small(value)


def test_arguments_of_everyday_are_small():
    assert is_small({"day": "2026-11-23", "count": 5, "names": ["a", "b"], "deep": {"x": [1.5, None, True]}})
    assert is_small(MappingProxyType({}))

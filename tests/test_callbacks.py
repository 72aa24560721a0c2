"""`context.on_cancel` and `context.on_pause`: what a body waits for and no cancellation, no checkpoint reaches."""

import callback_bodies
import pytest
from callback_bodies import GATE, GATE_2
from patience import PATIENCE

from scattersphere import JobDefinition, RunState, Server

pytestmark = pytest.mark.anyio

CLASSES = [
    callback_bodies.Registers,
    callback_bodies.RegistersAsync,
    callback_bodies.Late,
    callback_bodies.LateAsync,
    callback_bodies.SlowHold,
    callback_bodies.Hangs,
]
EVERYWHERE = [
    ("Registers", "thread", "beside it"),
    ("Registers", "process", "beside it"),
    ("RegistersAsync", "loop", "on the loop"),
    ("RegistersAsync", "process", "on the loop"),
]


@pytest.fixture(autouse=True)
def gates():
    GATE.clear()
    GATE_2.clear()
    callback_bodies.GATES.clear()
    yield
    GATE.set()
    GATE_2.set()


@pytest.fixture
async def server():
    async with Server(grace=PATIENCE) as server:
        server.register_tasks("app", CLASSES)
        yield server


async def started(server, name, backend=None, **fields):
    """Start it, and wait until its body says that it is there."""
    task = {} if backend is None else {"backend": backend}
    run = await server.start(JobDefinition.build("job").task("t", name, **task, **fields).done())
    async for event in run.events():
        if event.done is not None:
            return run
    raise AssertionError(run.explain())


async def until(run, state):
    async for event in run.events():
        if event.kind == f"run-{state}":
            return
    raise AssertionError(run.explain())


async def until_said(run, words):
    async for event in run.events():
        if event.message == words:
            return
    raise AssertionError(run.explain())


def open_gate(number):
    (GATE, GATE_2)[number].set()
    for gate in callback_bodies.GATES[number : number + 1]:
        gate.set()


def said(run):
    return [line.message for line in run.logs()]


@pytest.mark.parametrize(("name", "backend", "where"), EVERYWHERE)
async def test_what_is_registered_is_called_in_its_order_and_once(server, name, backend, where):
    run = await started(server, name, backend)
    run.pause()
    await until(run, "paused")  # it counts as held, though its body is at no checkpoint
    run.resume()
    run.cancel()
    assert (await run.wait(PATIENCE)).state is RunState.CANCELLED
    assert said(run) == [f"{word} {where}" for word in ("hold", "resume", "first", "second")]


@pytest.mark.parametrize(("name", "backend", "where"), EVERYWHERE)
async def test_a_cancel_resumes_what_is_held_before_it_is_told(server, name, backend, where):
    run = await started(server, name, backend)
    run.pause()
    await until(run, "paused")
    run.cancel()
    await run.wait(PATIENCE)
    assert [line.split()[0] for line in said(run)] == ["hold", "resume", "first", "second"]


@pytest.mark.parametrize(("name", "backend", "where"), EVERYWHERE)
async def test_a_timeout_calls_on_cancel_too(server, name, backend, where):
    run = await started(server, name, backend, timeout=0.01)
    await run.wait(PATIENCE)
    assert [line.split()[0] for line in said(run)[:2]] == ["first", "second"]


@pytest.mark.parametrize(("name", "backend", "where"), EVERYWHERE)
async def test_an_error_is_logged_and_the_others_are_called(server, name, backend, where):
    run = await started(server, name, backend, args={"fails": "hold first"})
    run.pause()
    await until_said(run, f"hold {where}")
    assert run.state is RunState.PAUSING  # what could not hold is not held
    run.cancel()
    await run.wait(PATIENCE)
    text = "\n".join(said(run))
    assert "error in hold" in text
    assert "error in on_cancel" in text
    assert "hold is broken" in text
    assert f"second {where}" in text
    assert "resume" not in text


@pytest.mark.parametrize("name", ["Late", "LateAsync"])
@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_what_is_registered_late_is_called_at_once(server, name, verb):
    run = await started(server, name)
    getattr(run, verb)()
    open_gate(0)
    await until_said(run, "called: True")
    if verb == "pause":
        if run.state is not RunState.PAUSED:
            await until(run, "paused")
        run.resume()
    open_gate(1)
    await run.wait(PATIENCE)
    assert run.state is (RunState.SUCCEEDED if verb == "pause" else RunState.CANCELLED)


async def test_it_is_held_only_when_hold_has_returned_and_a_resume_in_between_is_heeded(server):
    run = await started(server, "SlowHold")
    run.pause()
    assert run.state is RunState.PAUSING
    run.resume()
    run.pause()
    assert run.state is RunState.PAUSING
    GATE.set()
    await until(run, "paused")
    run.resume()
    GATE_2.set()
    assert (await run.wait(PATIENCE)).succeeded


async def test_an_async_callback_of_a_body_in_a_thread_is_an_error_with_words(server):
    run = await started(server, "SlowHold", args={"asyncly": True})
    run.pause()
    async for event in run.events():
        if "error in hold" in (event.message or ""):
            break
    assert "nothing can await it in its thread" in "\n".join(said(run))
    run.resume()
    GATE_2.set()
    assert (await run.wait(PATIENCE)).succeeded


async def test_closing_waits_for_no_callback_that_hangs(server):
    run = await started(server, "Hangs")
    run.cancel()
    await run.wait(PATIENCE)
    await server.aclose()
    assert run.state is RunState.CANCELLED

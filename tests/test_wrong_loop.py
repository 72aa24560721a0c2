"""A Server belongs to the thread and loop that entered it: anywhere else each door says so, at once, and names both."""

import asyncio
import inspect
import threading

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, WrongLoopError


class Wait(RunnableTask):
    """Wait until cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


async def use(door):
    answer = door()
    if inspect.isawaitable(answer):
        return await answer
    if hasattr(answer, "__anext__"):
        return await anext(answer)
    return answer


def doors(server, run):
    job = JobDefinition.build("j").task("wait", "Wait").done()
    return {
        "start": lambda: server.start("j"),
        "start_task": lambda: server.start_task("Wait"),
        "rerun": lambda: server.rerun(run.id),
        "register": lambda: server.register("nothing.py"),
        "register_tasks": lambda: server.register_tasks("more", [Wait]),
        "reload": lambda: server.reload("app"),
        "deregister": lambda: server.deregister("app"),
        "define": lambda: server.define(job),
        "undefine": lambda: server.undefine("j"),
        "save": lambda: server.save("j"),
        "load": lambda: server.load("nothing.json"),
        "load_all": server.load_all,
        "listen": lambda: server.listen(tcp="127.0.0.1:0"),
        "events": server.events,
        "drain": server.drain,
        "aclose": server.aclose,
        "run.wait": run.wait,
        "run.events": run.events,
        "run.follow_logs": run.follow_logs,
        "run.pause": run.pause,
        "run.resume": run.resume,
        "run.stop": run.stop,
        "run.cancel": run.cancel,
        "run.kill": run.kill,
    }


async def try_all(found):
    server, run = found["server"], found["run"]
    for name, door in doors(server, run).items():
        with pytest.raises(WrongLoopError) as refused:
            await use(door)
        found[name] = str(refused.value)


async def enter(found):
    server = found["server"] = await Server(grace=1).__aenter__()
    server.register_tasks("app", [Wait])
    server.define(JobDefinition.build("j").task("wait", "Wait").done())
    found["run"] = await server.start("j")


def test_in_another_loop_of_the_thread_every_door_names_both_loops():
    found = {}
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(enter(found))
        second.run(try_all(found))
        assert f"{id(first.get_loop()):#x}" in found["start"]
        assert f"{id(second.get_loop()):#x}" in found["start"]
        assert "loop_scope" in found["start"]
        assert not found["run"].state.ended
        first.run(found["server"].aclose())
    assert found["run"].state.ended


@pytest.mark.anyio
async def test_in_another_thread_every_door_names_both_threads(anyio_backend):
    found = {}
    await enter(found)
    thread = threading.Thread(
        target=lambda: anyio.run(try_all, found, backend=anyio_backend), name="elsewhere"
    )
    thread.start()
    await anyio.to_thread.run_sync(thread.join, PATIENCE)
    assert threading.current_thread().name in found["aclose"]
    assert "elsewhere" in found["aclose"]
    await found["server"].aclose()


@pytest.mark.anyio
async def test_in_a_plain_thread_it_is_said_that_there_is_no_loop():
    async with Server() as server:
        server.register_tasks("app", [Wait])
        run = await server.start_task("Wait")

        def cancel():
            with pytest.raises(WrongLoopError, match="in no event loop"):
                run.cancel()

        await anyio.to_thread.run_sync(cancel)
        run.cancel()
        await run.wait(PATIENCE)


@pytest.mark.anyio
async def test_after_the_end_everything_can_be_read_anywhere(anyio_backend):
    async with Server(grace=1) as server:
        server.register_tasks("app", [Wait])
        run = await server.start_task("Wait")
    told = []

    async def read():
        told.extend([(await run.wait()).state, [event.kind async for event in run.events()][-1]])
        await server.aclose()

    await anyio.to_thread.run_sync(lambda: anyio.run(read, backend=anyio_backend))
    assert told == ["cancelled", "run-ended"]

"""Context variables of who calls `start` reach the tasks of the run: on the loop, in threads, in children, in retries."""

import contextvars
import gc
import weakref

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, SyncServer, result

pytestmark = pytest.mark.anyio

REQUEST = contextvars.ContextVar("request", default="none")


class Read(RunnableTask):
    """Tell which request it is."""

    after: str = ""

    async def run(self, context):
        found = REQUEST.get()
        REQUEST.set("changed by a task")
        await anyio.lowlevel.checkpoint()
        return found


class ReadInThread(RunnableTask):
    """Tell it from a thread."""

    def run(self, context):
        found = REQUEST.get()
        REQUEST.set("changed by a thread")
        return found


class Flaky(RunnableTask):
    """Fail at first."""

    async def run(self, context):
        found = REQUEST.get()
        REQUEST.set("changed by an attempt")
        if context.attempt == 1:
            raise ValueError("try again")
        return found


class Parent(RunnableTask):
    """Start a child from a context of its own."""

    async def run(self, context):
        REQUEST.set("the parent's")
        child = await context.start(JobDefinition.build("child").task("read", "Read").done())
        return (await child).result


CLASSES = [Read, ReadInThread, Flaky, Parent]
JOB = (
    JobDefinition.build("job")
    .task("loop", "Read")
    .task("thread", "ReadInThread")
    .task("later", "Read", args={"after": result("loop")})
    .task("flaky", "Flaky", retry={"max_attempts": 2, "delay": 0})
    .task("child", "Parent")
    .done()
)


async def test_each_attempt_has_a_copy_of_the_context_in_which_start_was_called():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        server.define(JOB)
        REQUEST.set("the Server's")
        runs = []
        for name in ("a", "b"):
            REQUEST.set(name)
            runs.append(await server.start("job"))
        REQUEST.set("afterwards")
        for run, name in zip(runs, ("a", "b"), strict=True):
            assert dict((await run).results) == {
                "loop": name,
                "thread": name,
                "later": name,
                "flaky": name,
                "child": "the parent's",
            }
        assert REQUEST.get() == "afterwards"


async def test_a_rerun_has_the_context_of_who_asked_for_it():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        REQUEST.set("first")
        run = await server.run_task("Read")
        REQUEST.set("second")
        again = await server.rerun(run.id, from_failed=False)
        assert (run.result, (await again).result) == ("first", "second")


async def test_without_variables_of_its_own_a_run_has_those_of_the_server():
    REQUEST.set("the Server's")
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Read")
        assert run.execution.context is None, "nothing is copied for each attempt"
        assert (await run).result == "the Server's"


class Held:
    """Something that a variable holds."""

    def __eq__(self, other):
        raise RuntimeError("a user's == is not asked")

    __hash__ = None


async def test_what_the_variables_hold_is_let_go_when_the_run_has_ended():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        held = Held()
        gone = weakref.ref(held)

        async def start(held):
            REQUEST.set(held)
            return await server.start_task("ReadInThread")

        async with anyio.create_task_group() as group:
            runs = []

            async def start_there(held):
                runs.append(await start(held))

            group.start_soon(start_there, held)
        same = (await runs[0]).result is held
        runs[0].execution.machine.record.results.clear()
        del held
        assert same
        with anyio.fail_after(PATIENCE):  # the thread that executed it may be on its way back to its queue
            while gone() is not None:
                gc.collect()
                await anyio.sleep(0.001)


def test_a_blocking_server_hands_on_the_context_of_the_calling_thread():
    with SyncServer() as server:
        server.register_tasks("app", CLASSES)
        REQUEST.set("a script's")
        try:
            assert server.run_task("Read").result == "a script's"
            assert server.run_task("ReadInThread").result == "a script's"
        finally:
            REQUEST.set("none")

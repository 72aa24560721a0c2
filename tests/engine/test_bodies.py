"""What counts as a body: the callable that is called decides, and what comes back of it is not mistaken for a result."""

import asyncio
import functools
import threading

import anyio
import anyio.lowlevel
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskState, UnresolvedError
from scattersphere.abc.backend import Outcome, OutcomeKind

pytestmark = pytest.mark.anyio


def async_over_plain(function):
    """What asyncer's or tenacity's decorators do."""

    @functools.wraps(function)
    async def wrapper(*args):
        await anyio.lowlevel.checkpoint()
        return function(*args)

    return wrapper


def plain_over_async(function):
    """A decorator that knows nothing of async."""

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def run_to_its_end(function):
    """What asgiref's `async_to_sync` does."""

    @functools.wraps(function)
    def wrapper(*args):
        return asyncio.run(function(*args))

    return wrapper


ON_LOOP = {}
"""Whether bodies ran in the loop's thread, by name."""


def note(name):
    ON_LOOP[name] = threading.current_thread() is threading.main_thread()


class AsyncOverPlain(RunnableTask):
    @async_over_plain
    def run(self, context):
        note("AsyncOverPlain")
        return 7


class PlainOverAsync(RunnableTask):
    @plain_over_async
    async def run(self, context):
        await context.checkpoint()
        note("PlainOverAsync")
        return 7


class RunToItsEnd(RunnableTask):
    @run_to_its_end
    async def run(self, context):
        note("RunToItsEnd")
        return 7


class ForgotAsync(RunnableTask):
    def run(self, context):
        return anyio.lowlevel.checkpoint()


class ForgotAwait(RunnableTask):
    """A coroutine in a coroutine."""

    async def inner(self):
        return 7

    async def run(self, context):
        return self.inner()


class CallableObject(RunnableTask):
    class Body:
        async def __call__(self, context):
            note("CallableObject")
            return 7

    run = Body()


@pytest.mark.parametrize("print_captured", [False, True])
@pytest.mark.parametrize(
    ("task", "on_loop"),
    [
        (AsyncOverPlain, True),
        (PlainOverAsync, True),
        (RunToItsEnd, False),
        (ForgotAwait, None),
        (CallableObject, True),
    ],
)
async def test_the_callable_that_is_called_decides_and_an_awaitable_is_awaited(task, on_loop, print_captured):
    async with Server(capture_print=print_captured) as server:
        server.register_tasks("app", [task])
        run = await (await server.start_task(task.__name__)).wait()
        assert run.succeeded, run.explain()
        assert run.results[task.__name__] == 7
        assert on_loop in {None, ON_LOOP.get(task.__name__)}


async def test_a_body_without_async_that_returns_a_coroutine_has_its_result():
    async with Server() as server:
        server.register_tasks("app", [ForgotAsync])
        run = await (await server.start_task("ForgotAsync")).wait()
        assert run.succeeded
        assert run.results["ForgotAsync"] is None


class Yields(RunnableTask):
    def run(self, context):
        yield 7


class YieldsAsync(RunnableTask):
    async def run(self, context):
        yield 7


class ReturnsGenerator(RunnableTask):
    async def run(self, context):
        return (number for number in range(3))


@pytest.mark.parametrize("task", [Yields, YieldsAsync, ReturnsGenerator])
async def test_a_generator_is_an_error_in_words(task):
    async with Server() as server:
        server.register_tasks("app", [task])
        run = await (await server.start_task(task.__name__)).wait()
        assert run.state is RunState.FAILED
        message = run.tasks[task.__name__].failure.message
        assert "generator" in message
        assert "Return a list of what it yields" in message


HOOKS = []


class AsyncHooksOfAThread(RunnableTask):
    def run(self, context):
        return 7

    async def on_finished(self):
        await anyio.lowlevel.checkpoint()
        HOOKS.append("on_finished")

    async def clean_up(self):
        await anyio.lowlevel.checkpoint()
        HOOKS.append("clean_up")


async def test_async_hooks_of_a_body_in_a_thread_are_awaited_too():
    HOOKS.clear()
    async with Server() as server:
        server.register_tasks("app", [AsyncHooksOfAThread])
        run = await (await server.start_task("AsyncHooksOfAThread")).wait()
        assert run.results["AsyncHooksOfAThread"] == 7
    assert HOOKS == ["on_finished", "clean_up"]


AWAITING = threading.Event()


class AwaitsForever(RunnableTask):
    def run(self, context):
        async def for_ever():
            AWAITING.set()
            await anyio.sleep_forever()

        return for_ever()


@pytest.mark.parametrize("how", ["cancel", "kill", "timeout"])
async def test_what_a_thread_has_awaited_ends_with_its_attempt_and_is_named(how):
    AWAITING.clear()
    async with Server(grace=30) as server:
        server.register_tasks("app", [AwaitsForever])
        job = JobDefinition.build("j").task("t", "AwaitsForever", timeout=0.2 if how == "timeout" else None)
        server.define(job.done())
        run = await server.start("j")
        assert await anyio.to_thread.run_sync(AWAITING.wait, PATIENCE)
        if how != "timeout":
            assert "test_bodies.py" in run.explain()
            getattr(run, how)()
        await run.wait()
        assert run.state is (RunState.FAILED if how == "timeout" else RunState.CANCELLED)
        assert not run.stuck


class ThreadHandle:
    def cancel(self):
        pass

    def kill(self):
        pass

    def where(self):
        return ""


class OwnBackend:
    """As the how-to writes one: it says nothing of async bodies."""

    limit = 1

    async def open(self, host):
        self.host = host

    def start(self, call, done):
        def work():
            self.host.soon(done, call.context.run(call.invoke))

        threading.Thread(target=work, daemon=True).start()
        return ThreadHandle()

    async def aclose(self):
        pass


class AwaitingBackend(OwnBackend):
    runs_async = True


class Async(RunnableTask):
    async def run(self, context):
        await context.checkpoint()
        return 42


async def test_an_async_task_is_refused_where_it_names_a_backend_that_does_not_say_it_runs_such():
    async with Server(backends={"gpu": OwnBackend()}) as server:
        server.register_tasks("app", [Async])
        job = JobDefinition.build("j").task("a", "Async", backend="gpu").done()
        (problem,) = server.validate(job)
        assert problem.path == "tasks.a.backend"
        assert problem.message == 'Async.run is async, which backend "gpu" does not run; use loop or process'
        server.define(job)
        with pytest.raises(UnresolvedError, match="does not run"):
            await server.start("j")


async def test_an_async_task_is_awaited_where_its_backend_says_that_it_runs_such():
    async with Server(backends={"gpu": AwaitingBackend()}) as server:
        server.register_tasks("app", [Async])
        server.define(JobDefinition.build("j").task("a", "Async", backend="gpu").done())
        run = await (await server.start("j")).wait()
        assert run.results["a"] == 42


class Reporting(OwnBackend):
    """Says how each call has ended, and runs none."""

    def __init__(self, kind):
        self.kind = kind

    def start(self, call, done):
        self.host.soon(done, Outcome(self.kind))
        return ThreadHandle()


@pytest.mark.parametrize("kind", OutcomeKind)
async def test_every_kind_of_outcome_ends_the_task(kind):
    async with Server(backends={"gpu": Reporting(kind)}) as server:
        server.register_tasks("app", [ForgotAsync])
        server.define(JobDefinition.build("j").task("a", "ForgotAsync", backend="gpu").done())
        run = await (await server.start("j")).wait(PATIENCE)
        expected = {
            OutcomeKind.VALUE: TaskState.SUCCEEDED,
            OutcomeKind.EXCEPTION: TaskState.FAILED,
            OutcomeKind.CANCELLED: TaskState.FAILED,  # nobody has asked for it
            OutcomeKind.DIED: TaskState.CRASHED,
            OutcomeKind.LOST: TaskState.CRASHED,  # the third in a row
        }
        assert run.tasks["a"].state is expected[kind], run.explain()

"""Tasks and factories for the tests of `around`; worker processes import this module."""

import contextlib
import contextvars
import os
import threading

import anyio

from scattersphere import RunnableTask

REQUEST = contextvars.ContextVar("request", default="none")
LIFE = contextvars.ContextVar("life", default="outside")
SEEN: list[tuple] = []
"""What was noted in this process."""


@contextlib.contextmanager
def noting(info):
    """Note how attempts come and go."""
    SEEN.append(("enter", info.task, info.index, info.attempt, LIFE.get()))
    token = LIFE.set(f"inside {info.task} {info.attempt}")
    try:
        yield
    except BaseException as exc:
        SEEN.append(("leave", info.task, info.attempt, type(exc).__name__))
        raise
    else:
        SEEN.append(("leave", info.task, info.attempt, None))
    finally:
        with contextlib.suppress(ValueError):  # closed by the loop, in a context of its own
            LIFE.reset(token)
        LEFT.set()


class Carrier:
    """Sends the request's number along."""

    def __call__(self, info):
        return carried(info)

    def carry(self, carrier):
        carrier["x-request"] = REQUEST.get()


@contextlib.contextmanager
def carried(info):
    if info.carrier:
        REQUEST.set(info.carrier["x-request"])
    yield


class Whole(RunnableTask):
    """Say in which life instance, hooks, body and clean-up are."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)

    def on_status_change(self, old, new):
        self.lives = [*getattr(self, "lives", []), LIFE.get()]

    def run(self, context):
        return [*self.lives, LIFE.get()]

    def clean_up(self):
        SEEN.append(("clean_up", LIFE.get()))


class WholeAsync(RunnableTask):
    """The same on the loop."""

    async def run(self, context):
        await context.checkpoint()
        return [LIFE.get(), LIFE.get()]

    async def clean_up(self):
        SEEN.append(("clean_up", LIFE.get()))


class Plain(RunnableTask):
    """Have no hooks."""

    async def run(self, context):
        return LIFE.get()


class Flaky(RunnableTask):
    """Fail at first."""

    def run(self, context):
        if context.attempt == 1:
            raise ValueError("not yet")
        return LIFE.get()


class FlakyAsync(RunnableTask):
    """Fail at first, on the loop."""

    async def run(self, context):
        if context.attempt == 1:
            raise ValueError("not yet")
        return LIFE.get()


class Parent(RunnableTask):
    """Start a child."""

    async def run(self, context):
        child = await context.start("child")
        return (await child).result


class Await(RunnableTask):
    """Wait to be cancelled; `swallow` the first cancellation."""

    async def run(self, context):
        context.progress(1)
        await anyio.sleep_forever()


class Swallow(RunnableTask):
    """Swallow every cancellation, so that it must be closed."""

    async def run(self, context):
        context.progress(1)
        while True:
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()


class Refuse(RunnableTask):
    """Go on in a thread whatever is asked, until told to end."""

    gate: str = ""

    def run(self, context):
        context.progress(1)
        GATE.wait(60)


GATE, LEFT = threading.Event(), threading.Event()


class Request(RunnableTask):
    """Say which request this is, and in which process."""

    def run(self, context):
        return [REQUEST.get(), LIFE.get(), os.getpid(), [seen[0] for seen in SEEN]]


class RequestAsync(RunnableTask):
    """The same, on a loop."""

    async def run(self, context):
        await context.checkpoint()
        return [REQUEST.get(), LIFE.get(), os.getpid(), [seen[0] for seen in SEEN]]

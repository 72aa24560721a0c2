"""Tasks for the tests of `on_cancel` and `on_pause`; worker processes import this module."""

import asyncio
import contextlib
import threading
from queue import SimpleQueue

import anyio

from scattersphere import RunnableTask


class Registers(RunnableTask):
    """Register callbacks that log where they are called, and wait in a thread until cancelled."""

    fails: str = ""

    def run(self, context):
        self.body = threading.get_ident()
        self.calls = SimpleQueue()
        context.on_pause(self.note(context, "hold"), self.note(context, "resume"))
        context.on_cancel(self.note(context, "first"))
        context.on_cancel(self.note(context, "second"))
        context.progress(0)
        while self.calls.get() != "second":
            pass
        context.check()

    def note(self, context, word):
        def callback():
            here = "in the body" if threading.get_ident() == self.body else "beside it"
            context.log.info("%s %s", word, here)
            self.calls.put(word)
            if word in self.fails.split():
                raise OSError(f"{word} is broken")

        return callback


async def shielded(event):
    """Wait for it, whoever cancels."""
    while not event.is_set():
        with contextlib.suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
            await event.wait()


class RegistersAsync(RunnableTask):
    """Do so on a loop, with callbacks that are async."""

    fails: str = ""

    async def run(self, context):
        self.body = threading.get_ident()
        context.on_pause(self.note(context, "hold"), self.note(context, "resume"))
        context.on_cancel(self.note(context, "first"))
        context.on_cancel(self.note(context, "second"))
        context.progress(0)
        self.second = anyio.Event()
        await shielded(self.second)

    def note(self, context, word):
        async def callback():
            await anyio.lowlevel.checkpoint()
            here = "on the loop" if threading.get_ident() == self.body else "elsewhere"
            context.log.info("%s %s", word, here)
            if word == "second":
                self.second.set()
            if word in self.fails.split():
                raise OSError(f"{word} is broken")

        return callback


class Late(RunnableTask):
    """Register when a cancel, or a pause, has come already."""

    def run(self, context):
        context.progress(0)
        GATE.wait(60)
        called = threading.Event()
        context.on_pause(called.set, called.clear)
        context.on_cancel(called.set)
        context.log.info("called: %s", called.wait(60))
        GATE_2.wait(60)


class LateAsync(RunnableTask):
    """Do so on the loop."""

    async def run(self, context):
        self.gate, self.gate_2 = GATES[:] = anyio.Event(), anyio.Event()
        context.progress(0)
        called = anyio.Event()
        await shielded(self.gate)
        context.on_pause(called.set, bool)
        context.on_cancel(called.set)
        await shielded(called)
        context.log.info("called: True")
        await shielded(self.gate_2)


GATES: list[anyio.Event] = []
"""Those of the body on the loop."""
GATE, GATE_2 = threading.Event(), threading.Event()


class SlowHold(RunnableTask):
    """Hold slowly, and take an async callback for one that a thread can call."""

    asyncly: bool = False

    def run(self, context):
        context.on_pause(self.hold_async if self.asyncly else self.hold, bool)
        context.progress(0)
        GATE_2.wait(60)

    def hold(self):
        GATE.wait(60)

    async def hold_async(self):
        """Nobody can await it."""


class Hangs(RunnableTask):
    """Have a callback that never ends."""

    async def run(self, context):
        context.on_cancel(anyio.sleep_forever)
        context.progress(0)
        await anyio.sleep_forever()

"""Task classes for the tests of what stays of ended runs; worker processes import this module."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from scattersphere.runnable import RunnableTask


class Large:
    """A result of which it is known when it goes."""


class OwnError(Exception):
    """A failure of which the same is known."""


class PlainValue(RunnableTask):
    def run(self, context):
        context.log.info("a line")
        context.progress(1, 2)
        return Large()


class AsyncValue(RunnableTask):
    async def run(self, context):
        context.log.info("a line")
        context.progress(1, 2)
        return Large()


class SuspendedValue(RunnableTask):
    async def run(self, context):
        await anyio.sleep(0.001)
        return Large()


class PlainFailure(RunnableTask):
    def run(self, context):
        fail(context)


class AsyncFailure(RunnableTask):
    async def run(self, context):
        await anyio.sleep(0.001)
        await failing(context)


class CausedFailure(RunnableTask):
    def run(self, context):
        try:
            fail(context)
        except OwnError as exc:
            raise OwnError("caused") from exc


class Cancelled(RunnableTask):
    async def run(self, context):
        await anyio.Event().wait()


class CancelledPlain(RunnableTask):
    def run(self, context):
        while True:
            context.check()


def fail(context):
    raise OwnError(context.task)


async def failing(context):
    await anyio.lowlevel.checkpoint()
    raise OwnError(context.task)


CLASSES = [
    PlainValue, AsyncValue, SuspendedValue, PlainFailure, AsyncFailure, CausedFailure, Cancelled, CancelledPlain,
]  # fmt: skip

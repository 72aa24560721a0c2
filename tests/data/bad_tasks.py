"""A bundle of tasks that misbehave in every way that promise 7 names; it is loaded by test_server_bad_tasks.py."""

import ctypes
import os
import resource
import signal
from pathlib import Path

import anyio
import attrs

from scattersphere import RunnableTask


class Own(BaseException):
    """Derives from BaseException directly."""


class Unprintable(Exception):  # noqa: N818 - named for what it is
    """Cannot be shown."""

    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class Evil(BaseException):
    """Every part of it misbehaves."""

    def __str__(self):
        raise SystemExit(9)

    @property
    def __class__(self):
        raise KeyboardInterrupt

    def __getattr__(self, name):
        raise SystemExit(8)


class EvilGroup(ExceptionGroup):
    """A group that cannot be split, nor shown."""

    def __str__(self):
        raise RuntimeError("no text")

    def derive(self, excs):
        raise SystemExit(7)


def recurse(depth=0):
    return recurse(depth + 1)


def ring():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def chain():
    try:
        {}["day"]
    except KeyError as exc:
        raise RuntimeError("no such day") from exc


def throw(error):
    raise error


KINDS = {
    "SystemExit": lambda: throw(SystemExit(3)),
    "KeyboardInterrupt": lambda: throw(KeyboardInterrupt()),
    "GeneratorExit": lambda: throw(GeneratorExit()),
    "StopIteration": lambda: throw(StopIteration(1)),
    "StopAsyncIteration": lambda: throw(StopAsyncIteration()),
    "Own": lambda: throw(Own("own")),
    "group": lambda: throw(ExceptionGroup("g", [ValueError("v"), TypeError("t")])),
    "base group": lambda: throw(
        BaseExceptionGroup("g", [SystemExit(1), KeyboardInterrupt(), ValueError("v")])
    ),
    "deep group": lambda: throw(
        ExceptionGroup("g", [ExceptionGroup("h", [EvilGroup("e", [Unprintable()])])])
    ),
    "RecursionError": recurse,
    "MemoryError": lambda: bytearray(1 << 62),
    "Unprintable": lambda: throw(Unprintable()),
    "Evil": lambda: throw(Evil()),
    "huge": lambda: throw(ValueError("x" * 10_000_000)),
    "surrogate": lambda: throw(ValueError("\ud800\x1b[2J")),
    "ring": ring,
    "chain": chain,
    "argument": lambda: int("no number"),
}


class RaiseAsync(RunnableTask):
    """Raise, on the loop."""

    kind: str

    async def run(self, context):
        KINDS[self.kind]()


class RaiseAfterStep(RaiseAsync):
    """The same, after a suspension, in a task group of its own."""

    async def run(self, context):
        async with anyio.create_task_group():
            await anyio.lowlevel.checkpoint()
            KINDS[self.kind]()


class Raise(RunnableTask):
    """Raise, in a thread or a process."""

    kind: str

    def run(self, context):
        KINDS[self.kind]()


class BadHooks(RunnableTask):
    """Every hook raises SystemExit, or an error that cannot be shown."""

    fail: bool

    def run(self, context):
        if self.fail:
            raise ValueError("as was asked")
        return "value"

    def on_finished(self):
        raise SystemExit(1)

    def on_exception(self, exc):
        raise Evil

    def on_status_change(self, old, new):
        raise KeyboardInterrupt


class BadHooksAsync(BadHooks):
    """The same, on the loop."""

    async def run(self, context):
        return BadHooks.run(self, context)

    async def on_finished(self):
        raise SystemExit(1)


class BadTidying(RunnableTask):
    """`clean_up` raises SystemExit."""

    def run(self, context):
        return "value"

    def clean_up(self):
        raise SystemExit(4)


class BadTidyingAsync(BadTidying):
    """The same, on the loop."""

    async def run(self, context):
        return "value"


@attrs.define
class BadValue:
    """Cannot be made."""

    number: int

    def __attrs_post_init__(self):
        raise SystemExit(6)


class TakeBadValue(RunnableTask):
    """Never begins."""

    value: BadValue

    def run(self, context):
        return None


class BadInit(RunnableTask):
    """Cannot even be made."""

    def __attrs_post_init__(self):
        raise SystemExit(5)

    def run(self, context):
        return None


class BadInitAsync(BadInit):
    """The same, on the loop."""

    async def run(self, context):
        return None


def exhaust():
    """Take the last 64 MiB that this process may have, and keep them."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    while True:
        kept.append(bytearray(1 << 20))


kept = []

DEATHS = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "memory": exhaust,
}


class Die(RunnableTask):
    """End the process."""

    how: str

    def run(self, context):
        DEATHS[self.how]()


class DieAsync(RunnableTask):
    """The same, on the loop of the process."""

    how: str

    async def run(self, context):
        await anyio.lowlevel.checkpoint()
        DEATHS[self.how]()


class Tick(RunnableTask):
    """The neighbour: go on until told to stop, and count."""

    async def run(self, context):
        count = 0
        with anyio.CancelScope() as scope:
            while not scope.cancel_called:
                await context.checkpoint()
                await anyio.sleep(0.005)
                count += 1
                context.progress(count)

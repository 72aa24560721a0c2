"""Task classes for the tests of processes; worker processes import this module."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio

from scattersphere.errors import NonRetryableError
from scattersphere.runnable import RunnableTask


class DataError(LookupError):
    """An exception that cannot be unpickled: its constructor wants more than its arguments tell."""

    def __init__(self, day, *, reason):
        super().__init__(f"{day}: {reason}")
        self.day = day


class NightError(DataError):
    pass


class Die(RunnableTask):
    how: str

    def run(self, context):
        context.progress(0)
        match self.how:
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "abort":
                os.abort()
            case "close":
                os.closerange(3, 256)
            case "garbage":
                for descriptor in range(3, 256):
                    try:
                        os.write(descriptor, b"\xff" * 100)
                    except OSError:
                        continue
            case "exec":
                os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(7)"])


class RaiseStrange(RunnableTask):
    kind: str

    def run(self, context):
        match self.kind:
            case "night":
                raise NightError("Monday", reason="no data")
            case "final":
                raise NonRetryableError("never again")
            case "unicode":
                b"\xff".decode()
            case "group":
                raise ExceptionGroup("several", [ValueError("one")])
            case "oserror":
                Path("/nonexistent/x").read_text()
            case "key":
                raise KeyError("k")
            case "cancelled":
                raise anyio.get_cancelled_exc_class()


class Who(RunnableTask):
    def run(self, context):
        return os.getpid()


class Results(RunnableTask):
    def run(self, context):
        return dict(context.results), dict(context.params), context.idempotency_key


class Return(RunnableTask):
    what: str

    def run(self, context):
        return {"lambda": lambda: 1, "lock": threading.Lock(), "trap": Trap(), "big": b"x" * 5_000_000}[
            self.what
        ]


class Trap:
    """Can be pickled, but not unpickled."""

    def __reduce__(self):
        return (_spring, ())


def _spring():
    if "pytest" in sys.modules:
        raise RuntimeError("snapped")
    return Trap()


class Write(RunnableTask):
    """Log by the standard logging and by print, in a thread too."""

    def run(self, context):
        logging.getLogger("scattersphere.bundles.b_g1.b.mod").info("from the bundle's logger")
        print("printed")  # noqa: T201 - it is what is tested
        thread = threading.Thread(target=lambda: context.log.warning("from a thread"))
        thread.start()
        thread.join()
        try:
            {}["inner"]
        except KeyError:
            context.log.exception("handled")


class Straggle(RunnableTask):
    """Leave a thread behind that goes on to log when the call has ended."""

    until: str

    def run(self, context):
        def later():
            while not Path(self.until).exists():
                time.sleep(0.002)
            context.log.info("from a call that has ended")
            Path(self.until + ".said").touch()

        threading.Thread(target=later, daemon=True).start()


class StartOther(RunnableTask):
    """Start a process that outlives this call, unless somebody ends it."""

    fork: bool = False

    def run(self, context):
        if self.fork:
            child = os.fork()
            if not child:
                time.sleep(3600)
                os._exit(0)
        else:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid
        context.progress(child)
        time.sleep(3600)


class ForkAndDie(RunnableTask):
    def run(self, context):
        child = os.fork()
        if not child:
            time.sleep(3600)
            os._exit(0)
        context.progress(child)
        os._exit(3)


class Hooked(RunnableTask):
    fail: bool = False

    def run(self, context):
        self._log = context.log
        if self.fail:
            raise ValueError("x")
        return "value"

    def on_finished(self):
        self._log.info("finished")

    def on_exception(self, exc):
        self._log.info("exception %s", exc)

    def on_status_change(self, old, new):
        if new != "running":
            self._log.info("%s -> %s", old, new)

    def clean_up(self):
        self._log.info("clean")


class AsyncEcho(RunnableTask):
    value: int

    async def run(self, context):
        await context.checkpoint()
        return self.value, context.attempt


class AsyncWait(RunnableTask):
    async def run(self, context):
        context.progress(0)
        try:
            await anyio.sleep(3600)
        finally:
            context.log.info("tidied")


class AsyncCheckpoints(RunnableTask):
    async def run(self, context):
        context.progress(0)
        while True:
            await context.checkpoint()


class AsyncStart(RunnableTask):
    async def run(self, context):
        await context.start("other")


class Checks(RunnableTask):
    """Check once when told to, and return."""

    def run(self, context):
        context.progress(0)
        context.check()
        return "went on"


class Environment(RunnableTask):
    name: str

    def run(self, context):
        return os.environ.get(self.name)

"""The one thread in which code of bundles is loaded, and how a load that hangs is given up.

Loads run one at a time: the caches of `typing` are process-wide, and two loads at once would only take turns
at the interpreter lock. The thread is a daemon, so a load that never ends does not keep the process alive.
"""

from __future__ import annotations

import ctypes
import gc
import queue
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio
import anyio.to_thread
import attrs

from scattersphere.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


QUIET = 1.0
"""Seconds without a release before a collection: replacing ten bundles costs one collection."""

LATEST = 10.0
"""Seconds after which a collection comes although releases go on."""

SHARE = 100.0
"""A collection that took t seconds is followed by a pause of at least SHARE * t: one percent of the time."""


@attrs.define
class GarbageSchedule:
    """When to collect the garbage that released versions are. Times are seconds of one monotonic clock.

    A version is cyclic garbage: its modules and functions hold each other. Python would come to it in the
    end, but it collects the oldest generation rarely.
    """

    enabled: bool = True
    _first: float | None = None
    _last: float = 0.0
    _earliest: float = 0.0

    def released(self, now: float) -> None:
        """Note that a version was released."""
        if self._first is None:
            self._first = now
        self._last = now

    def due_in(self, now: float) -> float | None:
        """Return the seconds until the next collection, at least 0; None if there is nothing to collect."""
        if self._first is None or not self.enabled:
            return None
        return max(min(self._last + QUIET, self._first + LATEST) - now, self._earliest - now, 0.0)

    def collected(self, now: float, took: float) -> None:
        """Note that a collection ended at `now` after `took` seconds. What was released meanwhile is still to come."""
        self._first = self._last if self._last > now - took else None
        self._earliest = now + SHARE * took


T = TypeVar("T")

IDLE = 0.02
"""Seconds without a load after which what was put off is done: a load never waits for files to be deleted."""

PUT_OFF = 64
"""Pieces of work that may wait for that; more are done although loads go on."""

CLOSE_PATIENCE = 10.0
"""Seconds that closing waits for the thread: it calls the hooks of released versions, and deletes files."""

INTERRUPTED_PATIENCE = 1.0
"""Seconds that closing waits for interrupted loads: they end at their next bytecode, unless they wait inside C code."""

INTERRUPT_AGAIN = 0.05
"""Seconds after which a load that was given up is interrupted again: it may have caught the first. Doubled then."""

INTERRUPT_SELDOM = 2.0
"""The longest of these pauses: code that catches everything for ever cannot be ended, only named (`Loader.stuck`)."""


IMPORT_SYSTEM = "<frozen importlib"
"""How the files of the import system are called."""


class LoadAbandonedError(SystemExit):
    """Raised inside the code of a load that was given up. `threading` ends the thread in silence for it."""


class _Job(Generic[T]):
    """One piece of work for the thread. It is settled once: finished, or abandoned."""

    def __init__(self, name: str, work: Callable[[], T], discard: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.discard = discard
        self.started = threading.Event()
        self.settled = threading.Event()
        self.abandoned = False
        self.closed = False
        self.interrupted = False
        self.thread: threading.Thread | None = None
        self.given_up: threading.Thread | None = None
        self.value: T | None = None
        self.error: BaseException | None = None
        self.on_settled: Callable[[], object] = _nothing
        """Wakes whoever waits for it; for any thread."""
        self._sheltered = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do the work in this thread; undo it if nobody waits for it any more."""
        with self._lock:
            if self.abandoned:
                return
            self.thread = threading.current_thread()
        done = False
        while self.thread is not None:
            try:
                if not done:
                    done = True
                    self.started.set()
                    self._do()
                self._settle()
            except LoadAbandonedError:  # it came too late to end the work, perhaps again and again
                pass
        if self.abandoned:
            self.value = self.error = None
            self.discard()

    def _do(self) -> None:
        """Do the work. No frame of this thread holds what came of it: whoever waits may look at once who holds it."""
        HERE.job = self
        try:
            self.value = self.work()
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it belongs to the one who waits
            self.error = caught
        finally:
            HERE.job = None

    def _settle(self) -> None:
        """End the work; what was raised in this thread and has not arrived is taken back: it has other work to do."""
        with self._lock:
            if self.interrupted:
                _take_back_interrupt()
            self.thread = None
            if not self.abandoned:
                self.settled.set()
                self.on_settled()

    def abandon(self) -> bool:
        """Give it up, and with it the thread that is at it. False if it is settled already."""
        with self._lock:
            if self.settled.is_set():
                return False
            self.abandoned = True
            self.given_up = self.thread
            self.settled.set()
            self.started.set()
            self.on_settled()
        self.interrupt()
        return True

    def interrupt(self) -> bool | None:
        """Raise LoadAbandonedError in the work; False if it is sheltered or importing now, None if it has ended.

        The import system is Python code, and not made for that: cut behind `acquire_lock()`, it would keep the one lock
        of all imports for ever, and every thread would wait. What is raised arrives where its thread stands now.
        Code that imports without end stands there whenever another thread can look, for there it reads files:
        it is ended by `end_if_given_up`, at the next module that is looked for.
        """
        with self._lock:
            if self.thread is None:
                return None
            frame = self.frame()
            importing = frame is not None and frame.f_code.co_filename.startswith(IMPORT_SYSTEM)
            if self._sheltered or importing:
                return False
            self.interrupted = True
            _interrupt(self.thread)
            return True

    def end_if_given_up(self) -> None:
        """Raise LoadAbandonedError, in the thread of the work, if it was given up and is not sheltered.

        For the finder, which each search for a module asks: what a finder raises, the import system is made for, and
        lets go of its locks.
        """
        if self.abandoned and not self._sheltered:
            raise LoadAbandonedError

    @contextmanager
    def sheltered(self) -> Iterator[None]:
        """Let nothing be raised inside the block; what came meanwhile is raised behind it.

        Of work that was given up before, the block does not run: what was raised and has not arrived could come inside.
        """
        with self._lock:
            abandoned = self.abandoned
            self._sheltered = not abandoned
        if abandoned:
            raise LoadAbandonedError
        try:
            yield
        finally:
            with self._lock:
                self._sheltered = False
                abandoned = self.abandoned
            if abandoned:
                raise LoadAbandonedError

    def wait(self, limit: float) -> bool:
        """Wait, in a thread, until it is settled; False if it is not `limit` seconds after its start."""
        self.started.wait()
        return self.settled.wait(limit)

    def outcome(self) -> T:
        """Return or raise what the work came to; ClosedError if it was abandoned by closing."""
        if self.closed:
            raise ClosedError("the registry was closed while a bundle was loading")
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle of frame and exception
        # The thread that minds the limit may hold this job for a while yet; it shall not hold what came of it.
        value, self.value = self.value, None
        self.work, self.discard = cast("Callable[[], T]", _nothing), _nothing
        return cast("T", value)

    def frame(self) -> FrameType | None:
        """Return the frame that the work stands in."""
        thread = self.thread
        return sys._current_frames().get(thread.ident or 0) if thread else None  # noqa: SLF001 - the only way


HERE = threading.local()
"""`job` is the work that this thread does."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Guard a part of a load that is our own code, which ends by itself, and holds open files.

    An exception raised from another thread could come between the opening of a file and the statement that
    sees to its closing, or when one half of something is undone.
    """
    job: _Job[object] | None = getattr(HERE, "job", None)
    with job.sheltered() if job is not None else nullcontext():
        yield


def _nothing() -> None:
    """Stand for the work of a job that only wakes the thread, and for the undoing of one that need not be."""


def _interrupt_until_ended(job: _Job[object], thread: threading.Thread) -> None:
    """Interrupt a load that was given up again and again, in a thread: its code may catch what is raised in it.

    Only then the pause grows: a load that could not be interrupted now is looked at again as soon.
    """
    pause = INTERRUPT_AGAIN
    thread.join(pause)
    while thread.is_alive() and (interrupted := job.interrupt()) is not None:
        if interrupted:
            pause = min(2 * pause, INTERRUPT_SELDOM)
        thread.join(pause)


def _interrupt(thread: threading.Thread) -> None:
    """Raise LoadAbandonedError in `thread` at its next bytecode: ends loops, not waits inside C code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(LoadAbandonedError)
    )


def _take_back_interrupt() -> None:
    """Let what was raised in this thread from another, and may not have arrived, arrive here. There is one at most.

    To take it back by raising nothing would leave the interpreter, before 3.13, with the mark that something is to be
    raised: all threads look for it at each call and each turn of a loop, and under a tracer do nothing else.
    """
    try:
        _interrupt(threading.current_thread())
        while True:
            pass
    except LoadAbandonedError:
        pass


class _Limits:
    """A thread that minds how long loads take, one after the other, by the clock on the wall.

    Not the loop does that: its clock may be a virtual one, which jumps while a load is under way.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[_Job[object], float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="scattersphere-limit", daemon=True)
        self._thread.start()

    def mind(self, job: _Job[object], limit: float) -> None:
        """Wake whoever waits for the job if it takes longer than `limit` seconds."""
        self._jobs.put((job, limit))

    def end(self) -> None:
        """End the thread, and wait for that, when all loads have ended or were given up."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (minded := self._jobs.get()) is not None:
            job, limit = minded
            if not job.wait(limit):
                job.on_settled()
            del minded, job  # while it waits for the next one it holds nothing of the last


class Loader:
    """Runs work in a thread of its own, one piece after the other; collects garbage when idle."""

    def __init__(self, limit: float, garbage: GarbageSchedule, on_collected: Callable[[float], None]) -> None:
        self.limit = limit
        self.garbage = garbage
        self._on_collected = on_collected
        self._queue: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._later: deque[_Job[object]] = deque()
        self._thread: threading.Thread | None = None
        self._given_up: dict[threading.Thread, str] = {}
        self._waiting: set[_Job[object]] = set()
        self._limits: _Limits | None = None
        self._closed = False

    @property
    def stuck(self) -> tuple[str, ...]:
        """The names of the bundles whose load, or whose release, was given up and has not ended."""
        for thread in [thread for thread in list(self._given_up) if not thread.is_alive()]:
            self._given_up.pop(thread, None)  # the loader's thread may add one meanwhile
        return tuple(self._given_up.values())

    def note_stuck(self, thread: threading.Thread, name: str) -> None:
        """Count a thread of others, in which code of the bundle `name` does not return, among the stuck."""
        self._given_up[thread] = name

    async def call(
        self,
        name: str,
        work: Callable[[], T],
        *,
        discard: Callable[[], None],
        stuck: Callable[[FrameType | None, float], BaseException],
    ) -> T:
        """Return `work()`. What comes too late, or after a cancellation, is undone by `discard`.

        Past the time limit raises what `stuck(frame, limit)` returns.
        """
        if self._closed:
            raise ClosedError("the registry is closed")
        job = _Job(name, work, discard)
        self._waiting.add(cast("_Job[object]", job))
        try:
            await self._settled(job, stuck)
        except BaseException:
            if not self._abandon(job) and job.value is not None:
                discard()  # it had finished at that very moment
            raise
        finally:
            self._waiting.discard(cast("_Job[object]", job))
        if job.closed and job.value is not None:
            discard()  # likewise, when closing had begun and nobody is to have it any more
        return job.outcome()

    async def _settled(self, job: _Job[T], stuck: Callable[[FrameType | None, float], BaseException]) -> None:
        from scattersphere._owntask import thread_door  # noqa: PLC0415 - asyncio, of which a worker needs nothing here

        settled = anyio.Event()
        job.on_settled = partial(thread_door(), settled.set)
        if self._limits is None:
            self._limits = _Limits()
        self._limits.mind(cast("_Job[object]", job), self.limit)
        self._post(job)
        await settled.wait()
        if not job.settled.is_set():
            failure = stuck(job.frame(), self.limit)
            if self._abandon(job):
                raise failure

    def post(self, name: str, work: Callable[[], None]) -> None:
        """Do `work` when there is nothing to load; nobody waits for it. After closing, never."""
        if not self._closed:
            self._later.append(_Job(name, work, _nothing))
            self._post(_Job("", _nothing, _nothing))  # for the thread to look

    def note_garbage(self) -> None:
        """Have a collection made, some time after a version was released or a load has failed."""
        self.garbage.released(time.monotonic())
        if not self._closed:
            self._post(_Job("", _nothing, _nothing))  # the thread may be waiting without a limit

    def _post(self, job: _Job[T]) -> None:
        self._queue.put(cast("_Job[object]", job))
        if self._thread is None:
            self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="scattersphere-loader", daemon=True)
        self._thread.start()

    def _abandon(self, job: _Job[T]) -> bool:
        if not job.abandon():
            return False
        thread = job.given_up
        if thread is not None:
            threading.Thread(
                target=_interrupt_until_ended, args=[job, thread], name="scattersphere-interrupt", daemon=True
            ).start()
        # One that reads is not cut short: it ends soon, by itself, and closing waits for it.
        if thread is not None and (job.interrupted or not self._closed):
            self._given_up[thread] = job.name
            if not self._closed:
                self._start_thread()  # the new one takes over the queue
        return True

    def _run(self) -> None:
        while threading.current_thread() is self._thread:
            try:
                job = self._queue.get(timeout=self._patience())
            except queue.Empty:
                if self._later:
                    self._do_what_was_put_off()
                else:
                    self._collect()
                continue
            if job is None:
                self._do_what_was_put_off()
                return
            job.run()
            if job.given_up is not None and not self._closed:
                return  # another has taken its place, or is about to
            del job  # while this thread waits for the next one it holds nothing of the last
            if len(self._later) >= PUT_OFF:
                self._do_what_was_put_off()

    def _patience(self) -> float | None:
        if not self._later:
            return self.garbage.due_in(time.monotonic())
        return IDLE

    def _do_what_was_put_off(self) -> None:
        while self._later and (self._closed or self._queue.empty() or len(self._later) >= PUT_OFF):
            self._later.popleft().run()

    def _collect(self) -> None:
        began = time.monotonic()
        gc.collect()
        ended = time.monotonic()
        self.garbage.collected(ended, ended - began)
        self._on_collected(began)

    async def aclose(self) -> None:
        """Give up what is under way, do what was posted, end the thread."""
        self._closed = True
        for job in list(self._waiting):
            job.closed = True
            self._abandon(job)
        thread = self._thread
        self._queue.put(
            None
        )  # for whichever thread comes to look: also one whose load is interrupted ends by it
        if self._limits is not None:  # every load has been given up, so it has nothing to wait for
            self._limits.end()
        if thread is not None and thread not in self._given_up:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, CLOSE_PATIENCE, limiter=anyio.CapacityLimiter(1))
        if self._given_up:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._join_given_up, limiter=anyio.CapacityLimiter(1))
        self._thread = None

    def _join_given_up(self) -> None:
        end = time.monotonic() + INTERRUPTED_PATIENCE
        for thread in list(self._given_up):
            thread.join(max(0.0, end - time.monotonic()))

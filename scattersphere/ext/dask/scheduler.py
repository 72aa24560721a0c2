"""What is ours in the Dask scheduler: it passes on what engines and workers say about calls, and judges who begins.

Dask executes a task again where it sees fit: when the worker is gone that had it, when its result was lost. A call is
executed by one worker, once. So a call that comes to a worker for the second time is banned there, before the worker
hears of the task, and its engine is told that the first place was lost; what to do then is the engine's business.
"""

from __future__ import annotations

import asyncio
import math
import pickle
import uuid
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import dask.config
from dask.utils import parse_timedelta
from distributed import SchedulerPlugin

from scattersphere.ext.dask import lease
from scattersphere.ext.dask.messages import ASK, HEAR, NAME, NEWS, SAY, Fence, Frame, Signal, Terms, client_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

REMEMBERED = 10_000
"""Journals whose engine is known, and engines that come too late: one that was cut off may come back after days."""


class SchedulerSide(SchedulerPlugin):
    """Registered once in each scheduler, by the first engine that comes."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._scheduler: Any = None
        self._workers: set[str] = set()
        """The workers that have said hello: only they understand what is said to them."""
        self._placed: dict[str, str] = {}
        """The calls that a worker was given, and which one."""
        self._leased: dict[str, float] = {}
        """By worker: until when it may go on with its calls without a word from here."""
        self._longest = 0.0
        """The longest lease that a worker has told."""
        self._ends: dict[str, asyncio.Task[None]] = {}
        """Workers that Dask has let go of, and what waits until nothing executes there any more."""
        self._losing: set[str] = set()
        """Calls of such workers."""
        self._leaving: defaultdict[str, dict[str, asyncio.Event]] = defaultdict(dict)
        """By engine that has gone: the workers where something of it may still execute."""
        self._notes: dict[str, Signal] = {}
        """BAN or HOLD, for calls that come to a worker."""
        self._sizes: dict[str, int] = {}
        """Of results that stay, until Dask takes note of them."""
        self._watching: dict[str, asyncio.Event] = {}
        """By client: set when it leaves."""
        self._owners: dict[str, tuple[str, set[str]]] = {}
        """By journal: the engine that goes on with its runs, and the clients through which it does."""
        self._superseded: dict[str, None] = {}
        """Engines whose journal another one has taken over, the last one at the end."""
        self._expelled: set[str] = set()
        """Their clients, while they are connected: what they still send begins nowhere."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, scheduler: Any) -> None:
        """Get to know the scheduler."""
        self._scheduler = scheduler
        scheduler.handlers["scattersphere_greet"] = self.greet
        scheduler.handlers["scattersphere_watch"] = self.watch
        scheduler.handlers["scattersphere_take_over"] = self.take_over
        scheduler.stream_handlers[ASK] = self.ask
        scheduler.stream_handlers[SAY] = self.say

    # ---- from engines

    async def greet(
        self, client: str, formerly: str = ""
    ) -> tuple[tuple[int, tuple[int, int], str], int, Fence]:
        """Tell an engine on which terms one deals here, how many threads there are, and what fences off its calls.

        By then nothing executes any more of engines that have gone, nor of what this one was `formerly`, before its
        connection broke: what they had begun begins again now, perhaps.
        """
        if formerly:
            self._part_from(formerly)
        self._watching.setdefault(client, asyncio.Event())
        await self._until_all_left()
        here = Terms.here()
        # So long it may take until it is noticed here that nothing comes from an engine any more.
        silence = parse_timedelta(dask.config.get("distributed.comm.timeouts.tcp"))
        longest = max(lease.seconds(), self._longest) + lease.MARGIN
        fence = Fence(self._id, silence + longest, longest)
        return (here.wire, here.python, here.library), self._scheduler.total_nthreads, fence

    async def take_over(self, client: str, journal: str, engine: str) -> bool:
        """Let an engine go on with the runs of a journal, when nothing executes any more that another one had begun.

        That one may be there still: its machine has stopped, or only the line to it is cut, and nobody was told. It
        comes too late from now on. False for one that does.
        """
        if engine in self._superseded:
            return False
        owner, clients = self._owners.get(journal, (engine, set()))
        if owner != engine:
            self._superseded[owner] = None
            for other in clients - {client}:
                if other in self._scheduler.clients:
                    self._expelled.add(other)
                self._part_from(other)
            clients = set()
        self._owners.pop(journal, None)
        self._owners[journal] = engine, clients | {client}
        for known in (self._superseded, self._owners):
            if len(known) > REMEMBERED:
                del known[next(iter(known))]
        await self._until_all_left()
        return True

    async def watch(self, client: str) -> None:
        """Return when the engine leaves: until then the connection tells it that the scheduler is there."""
        await self._watching.setdefault(client, asyncio.Event()).wait()

    def ask(self, client: str, key: str, word: int, payload: bytes = b"") -> None:
        """Take to the right worker what an engine says about a call."""
        if word == Signal.LEAVE:
            self._part_from(client)
            self._owners = {
                journal: (engine, left)
                for journal, (engine, clients) in self._owners.items()
                if (left := clients - {client})  # one that leaves in order keeps its journal for nobody
            }
            return
        if key in self._losing:  # what is to be said is that it was lost, and when
            return
        task = self._scheduler.tasks.get(key)
        worker = None if task is None or task.state != "processing" else task.processing_on.address
        if worker in self._workers:
            self._hear(worker, [(key, word, payload)])
        elif word in (Signal.CANCEL, Signal.KILL):
            self._withdraw(key)
        elif task is not None and word == Signal.HOLD:
            self._notes.setdefault(key, Signal.HOLD)
        elif self._notes.get(key) == Signal.HOLD and word == Signal.GO:
            del self._notes[key]

    def remove_client(self, scheduler: object, client: str) -> None:  # noqa: ARG002 - Dask's signature
        """Dask has let go of an engine, and of its tasks: nothing comes from it any more."""
        self._part_from(client)
        self._expelled.discard(client)

    def _part_from(self, client: str) -> None:
        """An engine has gone: what it has in the workers ends."""
        leaves = self._watching.pop(client, None)
        if leaves is not None:
            leaves.set()
            for worker in self._workers & self._scheduler.workers.keys():
                self._leaving[client][worker] = asyncio.Event()
                self._hear(worker, [(client, Signal.LEAVE, b"")])
            for worker in self._ends:
                self._leaving[client][worker] = asyncio.Event()
            for key, task in self._scheduler.tasks.items():  # Dask may not know yet that it has gone
                if client_of(key) == client:
                    self._ban(key, task)

    def _ban(self, key: str, task: Any) -> None:
        """Have a call that has not begun begin nowhere."""
        self._notes[key] = Signal.BAN
        worker = task.processing_on.address if task.state == "processing" else ""
        if worker in self._workers:
            self._hear(worker, [(key, Signal.BAN, b"")])

    async def _until_all_left(self) -> None:
        """Wait until nothing executes any more of engines that have gone."""
        for workers in list(self._leaving.values()):
            for worker, left in list(workers.items()):
                await self._until_left(worker, left)

    async def _until_left(self, worker: str, left: asyncio.Event) -> None:
        """Wait until a worker has said so, or its lease is up: one that says nothing keeps nobody out for ever."""
        while not left.is_set() and lease.clock() < self._leased.get(worker, math.inf):
            with suppress(TimeoutError):
                async with asyncio.timeout(lease.LOOK):
                    await left.wait()

    def _has_left(self, client: str, worker: str) -> None:
        workers = self._leaving.get(client, {})
        if (event := workers.pop(worker, None)) is not None:
            event.set()
            if not workers:
                del self._leaving[client]

    # ---- from workers

    def say(self, worker: str, frames: Iterable[Frame]) -> None:
        """Take to their engines what a worker says about calls."""
        news: defaultdict[str, list[Frame]] = defaultdict(list)
        for key, word, payload in frames:
            if word == Signal.HELLO:
                self._welcome(worker)
            elif word == Signal.PULSE:
                granted = pickle.loads(payload)[0]  # noqa: S301 - from a worker of ours
                self._longest = max(self._longest, granted)
                self._leased[worker] = lease.clock() + granted + lease.MARGIN
                self._hear(worker, [("", Signal.PULSE, payload)])
            elif word == Signal.LEFT:
                self._has_left(key, worker)
            elif word == Signal.UNBEGUN:
                self._not_begun(worker, key)
            else:
                if word == Signal.STAYS:
                    self._sizes[key] = pickle.loads(payload)[1]  # noqa: S301 - as above
                news[client_of(key)].append((key, word, payload))
        for client, told in news.items():
            self._tell(client, told)

    def _welcome(self, worker: str) -> None:
        """Get to know a worker.

        It begins no call before it has this answer. That comes after all that Dask has told it so far, so it knows
        by then which of the tasks that it had been given were taken away again.
        """
        self._workers.add(worker)
        given = self._scheduler.workers[worker].processing if worker in self._scheduler.workers else ()
        notes = {task.key: int(self._notes[task.key]) for task in given if task.key in self._notes}
        self._hear(worker, [("", Signal.WELCOME, pickle.dumps(notes))])

    def _not_begun(self, worker: str, key: str) -> None:
        task = self._scheduler.tasks.get(key)
        if task is not None and task.state == "processing" and task.processing_on.address != worker:
            self.ask(client_of(key), key, Signal.CANCEL)  # it was stolen from it meanwhile
        else:
            self._withdraw(key)

    def _withdraw(self, key: str) -> None:
        """End a call that has not begun."""
        client = client_of(key)
        if key in self._scheduler.tasks and client in self._scheduler.clients:
            self._scheduler.client_releases_keys([key], client)
        self._tell(client, [(key, Signal.WITHDRAWN, b"")])

    # ---- from Dask

    def transition(self, key: Any, start: str, finish: str, *args: object, **kwargs: object) -> None:  # noqa: ARG002 - Dask's signature
        """Watch where calls are executed. What is said to a worker here it hears before it is given the task."""
        client = client_of(key)
        if not client:
            return
        if finish == "processing":
            if key in self._placed or client in self._expelled:
                self._notes[key] = Signal.BAN
            note, worker = self._notes.get(key), self._scheduler.tasks[key].processing_on.address
            self._placed.setdefault(key, worker)
            if note is not None and worker in self._workers:
                self._hear(worker, [(key, note, b"")])
        elif finish == "forgotten":
            self._placed.pop(key, None)
            self._notes.pop(key, None)
            self._sizes.pop(key, None)
        elif finish == "memory" and key in self._sizes:
            # Where the file is, there Dask has those executed that take it; in the worker's memory it is not.
            self._scheduler.tasks[key].set_nbytes(self._sizes.pop(key))
        elif not self._scheduler.tasks[key].who_wants:  # the engine has let go of it
            return
        elif finish == "erred":
            self._tell_when_over(key, Signal.ERRED, b"")
        elif finish == "released" and start in ("processing", "memory"):
            words = "the Dask worker that had it is gone, or gave it back"
            self._tell_when_over(key, Signal.LOST, words.encode())

    def add_worker(self, scheduler: object, worker: str) -> None:  # noqa: ARG002 - Dask's signature
        """Tell the engines that the cluster has grown."""
        self._tell_threads()

    def remove_worker(self, scheduler: object, worker: str, **kwargs: object) -> None:  # noqa: ARG002 - Dask's signature
        """Tell the engines that the cluster has shrunk."""
        self._workers.discard(worker)
        self._end_of(worker)
        self._tell_threads()

    # ---- workers that are gone, or only cut off

    def _tell_when_over(self, key: str, word: Signal, payload: bytes) -> None:
        """Tell an engine that a call was lost, when it certainly executes no more."""
        # Any worker that is gone may have it: Dask moves a task to another one ("stealing") without a transition.
        gone = self._leased.keys() - self._scheduler.workers.keys()
        ends = {end for end in map(self._end_of, gone) if end is not None}
        if not ends:
            self._tell(client_of(key), [(key, word, payload)])
        elif key not in self._losing:
            self._losing.add(key)
            self._aside(self._tell_later(key, ends, (key, word, payload)))

    async def _tell_later(self, key: str, ends: set[asyncio.Task[None]], frame: Frame) -> None:
        await asyncio.wait(ends)
        self._losing.discard(key)
        self._tell(client_of(key), [frame])

    def _end_of(self, worker: str) -> asyncio.Task[None] | None:
        """Return what waits for the end of a worker; None if it had never a lease, or it has ended."""
        if worker in self._leased and worker not in self._ends:
            self._ends[worker] = self._aside(self._see_off(worker))
        return self._ends.get(worker)

    async def _see_off(self, worker: str) -> None:
        """Wait until a worker's port is closed, for then it has ended, or until its lease is up."""
        while (left := self._leased[worker] - lease.clock()) > 0:
            if await lease.refuses(worker):
                break
            await asyncio.sleep(min(lease.LOOK, left))
        await asyncio.sleep(lease.LOOK)  # its processes end when they notice
        del self._leased[worker], self._ends[worker]
        for client in list(self._leaving):
            self._has_left(client, worker)

    def _aside(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell_threads(self) -> None:
        told = ("", int(Signal.THREADS), str(self._scheduler.total_nthreads).encode())
        for client in self._watching:
            self._tell(client, [told])

    # ---- to both

    def _hear(self, worker: str, frames: list[tuple[str, int, bytes]]) -> None:
        frames = [(key, int(word), payload) for key, word, payload in frames]
        self._scheduler.worker_send(worker, {"op": HEAR, "frames": frames})

    def _tell(self, client: str, frames: list[tuple[str, int, bytes]]) -> None:
        frames = [(key, int(word), payload) for key, word, payload in frames]
        # An event like those of `log_event`, but for one client alone, and not kept.
        self._scheduler.client_send(client, {"op": "event", "topic": NEWS, "event": (0.0, frames)})

"""What is ours in the Dask scheduler: it passes on what engines and workers say about calls, and judges who begins.

Dask executes a task again where it sees fit: when the worker is gone that had it, when its result was lost. A call is
executed by one worker, once. So a call that comes to a worker for the second time is banned there, before the worker
hears of the task, and its engine is told that the first place was lost; what to do then is the engine's business.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from distributed import SchedulerPlugin

from scattersphere.ext.dask.messages import ASK, HEAR, NAME, NEWS, SAY, Frame, Terms, Word, client_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class SchedulerSide(SchedulerPlugin):
    """Registered once in each scheduler, by the first engine that comes."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._workers: set[str] = set()
        """The workers that have said hello: only they understand what is said to them."""
        self._placed: set[str] = set()
        """The calls that a worker was given."""
        self._notes: dict[str, Word] = {}
        """BAN or HOLD, for calls that come to a worker."""
        self._watching: dict[str, asyncio.Event] = {}
        """By client: set when it leaves."""

    async def start(self, scheduler: Any) -> None:
        """Get to know the scheduler."""
        self._scheduler = scheduler
        scheduler.handlers["scattersphere_greet"] = self.greet
        scheduler.handlers["scattersphere_watch"] = self.watch
        scheduler.stream_handlers[ASK] = self.ask
        scheduler.stream_handlers[SAY] = self.say

    # ---- from engines

    async def greet(self, client: str) -> tuple[tuple[int, tuple[int, int], str], int]:
        """Tell an engine on which terms one deals here, and how many threads there are."""
        self._watching.setdefault(client, asyncio.Event())
        here = Terms.here()
        return (here.wire, here.python, here.library), self._scheduler.total_nthreads

    async def watch(self, client: str) -> None:
        """Return when the engine leaves: until then the connection tells it that the scheduler is there."""
        await self._watching.setdefault(client, asyncio.Event()).wait()

    def ask(self, client: str, key: str, word: int, payload: bytes = b"") -> None:
        """Take to the right worker what an engine says about a call."""
        if word == Word.LEAVE:
            self.remove_client(self._scheduler, client)
            return
        task = self._scheduler.tasks.get(key)
        worker = None if task is None or task.state != "processing" else task.processing_on.address
        if worker in self._workers:
            self._hear(worker, [(key, word, payload)])
        elif word in (Word.CANCEL, Word.KILL):
            self._withdraw(key)
        elif task is not None and word == Word.HOLD:
            self._notes.setdefault(key, Word.HOLD)
        elif self._notes.get(key) == Word.HOLD and word == Word.GO:
            del self._notes[key]

    def remove_client(self, scheduler: Any, client: str) -> None:
        """An engine has gone: what it has in the workers ends."""
        leaves = self._watching.pop(client, None)
        if leaves is not None:
            leaves.set()
            for worker in self._workers & scheduler.workers.keys():
                self._hear(worker, [(client, Word.LEAVE, b"")])

    # ---- from workers

    def say(self, worker: str, frames: Iterable[Frame]) -> None:
        """Take to their engines what a worker says about calls."""
        news: defaultdict[str, list[Frame]] = defaultdict(list)
        for key, word, payload in frames:
            if word == Word.HELLO:
                self._welcome(worker)
            elif word == Word.UNBEGUN:
                self._not_begun(worker, key)
            else:
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
        self._hear(worker, [("", Word.WELCOME, pickle.dumps(notes))])

    def _not_begun(self, worker: str, key: str) -> None:
        task = self._scheduler.tasks.get(key)
        if task is not None and task.state == "processing" and task.processing_on.address != worker:
            self.ask(client_of(key), key, Word.CANCEL)  # it was stolen from it meanwhile
        else:
            self._withdraw(key)

    def _withdraw(self, key: str) -> None:
        """End a call that has not begun."""
        client = client_of(key)
        if key in self._scheduler.tasks and client in self._scheduler.clients:
            self._scheduler.client_releases_keys([key], client)
        self._tell(client, [(key, Word.WITHDRAWN, b"")])

    # ---- from Dask

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's signature
        """Watch where calls are executed. What is said to a worker here it hears before it is given the task."""
        client = client_of(key)
        if not client:
            return
        if finish == "processing":
            if key in self._placed:
                self._notes[key] = Word.BAN
            self._placed.add(key)
            note, worker = self._notes.get(key), self._scheduler.tasks[key].processing_on.address
            if note is not None and worker in self._workers:
                self._hear(worker, [(key, note, b"")])
        elif finish == "forgotten":
            self._placed.discard(key)
            self._notes.pop(key, None)
        elif not self._scheduler.tasks[key].who_wants:  # the engine has let go of it
            return
        elif finish == "erred":
            self._tell(client, [(key, Word.ERRED, b"")])
        elif finish == "released" and start in ("processing", "memory"):
            words = "the Dask worker that had it is gone, or gave it back"
            self._tell(client, [(key, Word.LOST, words.encode())])

    def add_worker(self, scheduler: Any, worker: str) -> None:  # noqa: ARG002 - Dask's signature
        """Tell the engines that the cluster has grown."""
        self._tell_threads()

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's signature
        """Tell the engines that the cluster has shrunk."""
        self._workers.discard(worker)
        self._tell_threads()

    def _tell_threads(self) -> None:
        told = ("", int(Word.THREADS), str(self._scheduler.total_nthreads).encode())
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

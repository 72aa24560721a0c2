"""What is ours in a Dask worker: the calls that it carries out, and for each engine its code and its processes.

A body never executes in the Dask worker itself. It executes in a process of ours below it, the same as that of the
backend `process`; the thread that Dask gives to a task listens to that process and passes on what it says.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from scattersphere.ext.dask import lease
from scattersphere.ext.dask.call import SiteCall
from scattersphere.ext.dask.guest import Guest
from scattersphere.ext.dask.messages import HEAR, NAME, SAY, CallOrder, Signal, Terms, client_of

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterable

    from scattersphere.ext.dask.messages import Frame
    from scattersphere.ext.dask.values import Stored

WELCOME_SECONDS = 60.0
"""How long the scheduler may take to answer the hello of a worker."""


class RefusedByWorkerError(RuntimeError):
    """A Dask worker that cannot carry out calls of this engine."""


def packed(order: CallOrder) -> bytes:
    """Return a pickle which is read by carrying out the call.

    So Dask executes nothing of ours before that: a worker where scattersphere is not installed says so of this task,
    while a function of ours as the task would break the stream between it and the scheduler.
    """
    return pickle.dumps(_Pickled(_carry_out, order), pickle.HIGHEST_PROTOCOL)


def packed_to_call(order: CallOrder) -> bytes:
    """Return a pickle of what carries out the call when it is given what comes beside the order."""
    return pickle.dumps(_Pickled(partial, _carry_out, order), pickle.HIGHEST_PROTOCOL)


class _Pickled:
    """Stands for what a function returns; the order is plain values, so that its terms are looked at first."""

    def __init__(self, made_by: Callable[..., object], *args: Any) -> None:
        *first, order = args
        self._reduced = made_by, (*first, (tuple(order.terms), *order[1:]))

    def __reduce__(self) -> Any:
        return self._reduced


def _carry_out(order: tuple[Any, ...], beside: tuple[Any, ...] = (None,)) -> Stored | None:
    """Carry out a call; in a thread that Dask gives to its task in one of its workers.

    `beside` are the message, if it did not come with the order, and the results of earlier calls that have stayed with
    Dask. All that is to be said is said through the streams; what is returned is the pickled result, if that is long.
    """
    terms, *rest = order
    worker = get_worker()
    unlike = Terms(*terms).unlike(Terms.here(), f"the Dask worker {worker.address}")
    if unlike:
        raise RefusedByWorkerError(unlike)
    message, *values = beside
    call = CallOrder(Terms(*terms), *rest)
    return site_of(worker).carry_out(
        call if message is None else call._replace(message=message), tuple(values)
    )


_sites: weakref.WeakKeyDictionary[object, concurrent.futures.Future[Site]] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def site_of(worker: Any) -> Site:
    """Return what is ours in a Dask worker; made by the first call that comes. Not for the worker's loop."""
    with _guard:
        made = _sites.get(worker)
        if made is None or (made.done() and (made.exception() is not None or made.result().closed)):
            made = asyncio.run_coroutine_threadsafe(_make_site(worker), worker.loop.asyncio_loop)
            _sites[worker] = made
    return made.result()


async def _make_site(worker: Any) -> Site:
    site = Site(worker)
    await worker.plugin_add(site, name=NAME, catch_errors=False)
    site.say("", Signal.HELLO)
    site.renew()
    async with asyncio.timeout(WELCOME_SECONDS):
        await site.welcomed.wait()
    threading.Thread(target=site.keep_lease, name="scattersphere-lease", daemon=True).start()
    return site


class Site(WorkerPlugin):
    """The calls of all engines in one Dask worker. For any thread, but for what says otherwise."""

    name = NAME

    def __init__(self, worker: Any) -> None:
        self.closed: bool = False
        self.welcomed: asyncio.Event = asyncio.Event()
        """Set when the scheduler knows of it."""
        self._worker = worker
        self._guard = threading.Lock()
        self._changed = threading.Condition(self._guard)
        """Notified when the lease was renewed, all is closed, or a call of an engine that has left has ended."""
        self._over = threading.Event()
        self._lease: float = lease.seconds()
        self._leased_until = float("-inf")
        self._calls: dict[str, SiteCall] = {}
        self._notes: dict[str, Signal] = {}
        self._guests: dict[str, Guest] = {}
        self._outbox: deque[Frame] = deque()
        self._due = False
        """Whether the loop was asked to send it."""

    def __repr__(self) -> str:
        return f"<Site in {self.place}: {len(self._calls)} calls of {len(self._guests)} engines>"

    @property
    def place(self) -> str:
        """The Dask worker, for people."""
        return str(self._worker.address)

    # ---- calls

    def carry_out(self, order: CallOrder, values: tuple[Stored | None, ...]) -> Stored | None:
        """Carry out a call in the present thread, unless it may not begin any more."""
        guest = self._guest(client_of(order.key))
        with self._guard:
            while not self.closed and lease.clock() >= self._leased_until:
                self._changed.wait(self._lease)
            note = self._notes.pop(order.key, None)
            if note is Signal.BAN or self.closed or guest.left or self._was_taken_away(order.key):
                return None
            held = order.held or note is Signal.HOLD
            call = self._calls[order.key] = SiteCall(self, guest, order, values, held=held)
        try:
            return call.run()
        finally:
            with self._guard:
                del self._calls[order.key]
                if guest.left:
                    self._changed.notify_all()

    def _was_taken_away(self, key: str) -> bool:
        """Whether Dask has let go of a task whose thread has begun already."""
        task = self._worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    def _guest(self, client: str) -> Guest:
        with self._guard:
            guest = self._guests.get(client)
            if guest is None:
                folder = Path(self._worker.local_directory)
                guest = self._guests[client] = Guest(folder, self._worker.state.nthreads, self.place)
            return guest

    def say(self, key: str, word: Signal, payload: bytes = b"", *, at_once: bool = True) -> None:
        """Tell the engine something about a call, `at_once` or with what is said next, or `flush`."""
        with self._guard:
            self._outbox.append((key, int(word), payload))
        if at_once:
            self.flush()

    def flush(self) -> None:
        """Send what is to be said."""
        with self._guard:
            if self._due or not self._outbox:
                return
            self._due = True
        with suppress(RuntimeError):  # the worker's loop has ended
            self._worker.loop.asyncio_loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        with self._guard:
            frames = list(self._outbox)
            self._outbox.clear()
            self._due = False
        if frames:
            self._worker.batched_send({"op": SAY, "frames": frames})

    # ---- the lease

    def renew(self) -> None:
        """Ask the scheduler to go on counting on this worker."""
        self.say("", Signal.PULSE, pickle.dumps((self._lease, lease.clock())))

    def keep_lease(self) -> None:
        """Renew the lease, and end all calls when it is up; in a thread of its own."""
        due = wake = lease.clock()
        # A wait stands still while the machine is suspended, and the lease does not: it is looked at often.
        while not self._over.wait(min(lease.LOOK, max(0.0, wake - lease.clock()))):
            if (now := lease.clock()) >= self._leased_until:
                with self._guard:
                    calls = list(self._calls.values())
                for call in calls:
                    call.lose(f"had no word from the scheduler for {self._lease:g} s")
            if now >= due:
                self.renew()
                due = now + self._lease / lease.PULSES
            wake = due if now >= self._leased_until else min(due, self._leased_until)

    # ---- from the scheduler, on the worker's loop

    def hear(self, frames: Iterable[Frame]) -> None:
        """Take what is said about calls."""
        for key, number, payload in frames:
            word = Signal(number)
            if word is Signal.PULSE:
                granted, asked = pickle.loads(payload)  # noqa: S301 - our own, from the scheduler
                with self._guard:
                    self._leased_until = asked + granted
                    self._changed.notify_all()
                continue
            if word is Signal.WELCOME:
                for noted, note in pickle.loads(payload).items():  # noqa: S301 - from the scheduler
                    self.note(noted, Signal(note))
                self.welcomed.set()
                continue
            if word is Signal.LEAVE:
                self._leave(key)
                continue
            with self._guard:
                call = self._calls.get(key)
                if call is None:
                    self._hear_unbegun(key, word)
            if call is not None:
                call.hear(word, payload)
            elif word in (Signal.CANCEL, Signal.KILL):
                self.say(key, Signal.UNBEGUN)

    def _hear_unbegun(self, key: str, word: Signal) -> None:
        if word in (Signal.CANCEL, Signal.KILL):
            self._notes[key] = Signal.BAN
        elif word is Signal.GO:
            if self._notes.get(key) is Signal.HOLD:
                del self._notes[key]
        elif word in (Signal.BAN, Signal.HOLD):
            self._notes.setdefault(key, word)

    def note(self, key: str, word: Signal) -> None:
        """Take a note about a call that has not begun."""
        with self._guard:
            self._hear_unbegun(key, word)

    def _leave(self, client: str) -> None:
        with self._guard:
            guest = self._guests.pop(client, None)
            calls = [call for key, call in self._calls.items() if client_of(key) == client]
            if guest is not None:
                guest.left = True
        for call in calls:
            call.lose("was left by its engine")
        # What does not end by itself takes a second.
        threading.Thread(
            target=self._take_leave, args=(client, guest), name="scattersphere-leave", daemon=True
        ).start()

    def _take_leave(self, client: str, guest: Guest | None) -> None:
        """Wait until nothing of an engine executes any more, and say so."""
        with self._guard:
            while any(client_of(key) == client for key in self._calls):
                self._changed.wait()
        self.say(client, Signal.LEFT)
        if guest is not None:
            guest.close()

    # ---- as a plugin

    def setup(self, worker: Any) -> None:
        """Listen to the scheduler."""
        worker.stream_handlers[HEAR] = self.hear

    async def teardown(self, worker: object) -> None:  # noqa: ARG002 - Dask's signature
        """The Dask worker ends: so do the processes below it."""
        self._over.set()
        with self._guard:
            self.closed = True
            self._changed.notify_all()
            calls, guests = list(self._calls.values()), list(self._guests.values())
            self._guests.clear()
        for call in calls:
            call.lose("was closed")
        for guest in guests:
            guest.left = True
            await asyncio.to_thread(guest.close)

    def transition(self, key: Any, start: str, finish: str, **kwargs: object) -> None:  # noqa: ARG002 - Dask's signature
        """Send what a call said at its end; forget a note when Dask takes a task away that had not begun."""
        if self._outbox and client_of(key):
            self._send()  # with what Dask says of it: the loop is woken once for both
        if finish in ("released", "forgotten") and key in self._notes:
            with self._guard:
                self._notes.pop(key, None)

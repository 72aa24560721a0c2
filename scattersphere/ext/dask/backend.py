"""The engine's side: calls become tasks of a Dask cluster, and what comes back about them finds its call.

All that touches Dask happens on one event loop: that of the `Client` that was given, else one of our own in a thread
of its own, so that the host's loop, be it asyncio or trio, has no part in it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import operator
import pickle
import threading
import weakref
from collections import deque
from contextlib import suppress
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from distributed import Client

from scattersphere.abc import Outcome, OutcomeKind
from scattersphere.engine.backends.workerlane import is_small
from scattersphere.engine.loops import TrioLoop, current_loop
from scattersphere.ext.dask import lease
from scattersphere.ext.dask.handle import DaskHandle, Grip, died, lost
from scattersphere.ext.dask.messages import ASK, NEWS, Fence, Signal, Terms, client_of, key_of
from scattersphere.ext.dask.scheduler import SchedulerSide
from scattersphere.ext.dask.site import packed, packed_to_call
from scattersphere.ext.dask.values import DaskValue
from scattersphere.logs.failures import text_of
from scattersphere.worker.messages import CallMessage, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from scattersphere.abc import BackendHost, Call
    from scattersphere.worker.channel import CallChannel

_log = logging.getLogger("scattersphere.dask")

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""
RETRY = 0.25, 10.0
"""Seconds between looks for a scheduler that is gone: at first, and at most."""
CLOSE_SECONDS = 5.0
"""How long closing waits for the processes that it kills."""
LARGE = 1024 * 1024
"""Bytes of arguments that are sent ahead of the task, to a worker, and not through the scheduler with it."""
REMEMBERED = 256
"""Calls that have ended whose late lines still find their run."""


class DaskBackend:
    """Runs calls on a Dask cluster, each in a process of ours below a Dask worker.

    `cluster` is the address of a scheduler, a `distributed.Client`, or a cluster (`LocalCluster`, `SLURMCluster`,
    `KubeCluster`): what is given stays open. `limit` is how many calls are handed to Dask at once; None follows the
    number of threads in the cluster, as workers come and go. Give a number where the cluster itself grows with what
    waits in it (`cluster.adapt`). `security` is Dask's, for an address. `keep_from` are the bytes from which on a
    result stays on the cluster, where all that wait for it run there too and take it whole: it is passed on by
    reference, and `run.results` has a `RemoteValue` in its place. None: all come here.
    """

    runs_async: bool = True
    takes_needs: bool = True
    kill_grace: float = 5.0

    def __init__(
        self,
        cluster: object,
        *,
        limit: int | None = None,
        keep_from: int | None = None,
        security: object = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(
                f"DaskBackend: limit is at least 1, not {limit}; leave it out to follow the workers"
            )
        self.limit: int | None = limit or 0
        self._fixed = limit
        self._keep_from = None if keep_from is None else max(1, keep_from)
        self._given = _Given.of(cluster, security)
        self._host: BackendHost | None = None
        self._library = "asyncio"
        self._numbers = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._io: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._client: Any = None
        """None while there is no scheduler."""
        self._met = ""
        """The id of the client that met the scheduler last."""
        self._fence = Fence("", 0.0, 0.0)
        self._owns = False
        """Whether the scheduler knows that the runs of the journal are ours, and nothing else of them executes."""
        self._asks = False
        """Whether it is being asked."""
        self._comes_too_late = False
        """Whether it has answered that the journal is another Server's by now."""
        self._again: asyncio.Event | None = None
        """Set when a scheduler that was lost is there again, the same one."""
        self._watch: asyncio.Task[None] | None = None
        self._outbox: deque[DaskHandle] = deque()
        """Calls that Dask was not given yet."""
        self._handles: dict[str, DaskHandle] = {}
        self._idle: asyncio.Event | None = None
        """Set when no call is left, while closing."""
        self._late: dict[int, tuple[weakref.ref[Any], dict[str, Any]]] = {}
        """The logs of calls that have ended, and where in them their lines belong; keeps no run alive."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._closing = False

    def __repr__(self) -> str:
        state = "" if self._client is not None else ", no scheduler"
        return f"<DaskBackend {self._given.address}: {len(self._handles)} calls, {self.limit} places{state}>"

    # ---- opening and closing, for the Server

    async def open(self, host: BackendHost) -> None:
        """Connect to the cluster. Raises ConnectionError if there is none, or one that lacks what it needs."""
        self._host = host
        self._library = "trio" if isinstance(current_loop(), TrioLoop) else "asyncio"
        if self._given.client is None:
            await anyio.to_thread.run_sync(self._start_thread)
        else:
            self._io = self._given.client.loop.asyncio_loop
        try:
            await self._there(self._connect())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise

    async def aclose(self) -> None:
        """Kill what executes, end what waits, and let go of the cluster."""
        if self._closing:
            return
        self._closing = True
        if self._io is not None:
            await self._there(self._shut())
        if self._thread is not None and self._stop is not None and self._io is not None:
            self._io.call_soon_threadsafe(self._stop.set)
            await anyio.to_thread.run_sync(self._thread.join, CLOSE_SECONDS)

    def start(self, call: Call, done: Callable[[Outcome], None]) -> Grip:
        """Hand `call` to Dask.

        Raises TypeError if no other process could find its class, RuntimeError if the backend is not open.
        """
        if self._io is None or self._closing:
            raise RuntimeError("the Dask backend is not open: its Server opens and closes it")
        message = CallMessage.of(call, next(self._numbers), self._library)
        handle = DaskHandle(self, call, done, message)
        self._outbox.append(handle)
        if len(self._outbox) == 1:
            # After this turn of the loop: what starts in it is handed over at once. Dask's thread, which runs beside
            # this one, would take one after the other, and each is a message and a graph of its own to its scheduler.
            self.soon(self.post, self._submit)
        return handle.grip

    # ---- the loop on which Dask lives

    def _start_thread(self) -> None:
        ready = threading.Event()
        serve = partial(asyncio.run, self._serve(ready))
        self._thread = threading.Thread(target=serve, name="scattersphere-dask", daemon=True)
        self._thread.start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        self._io, self._stop = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await self._stop.wait()

    async def _there(self, coroutine: Coroutine[object, object, None]) -> None:
        """Await something on that loop."""
        assert self._io is not None  # noqa: S101 - for type checkers
        if self.is_here():
            await coroutine
            return
        future = asyncio.run_coroutine_threadsafe(coroutine, self._io)
        await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Do something on that loop; for any thread."""
        with suppress(RuntimeError):  # it has ended
            if self._io is not None:
                self._io.call_soon_threadsafe(callback, *args)

    def is_here(self) -> bool:
        """Whether this is the thread of that loop."""
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is self._io
        return False

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Do something on the host's loop; for any thread."""
        if self._host is not None:
            self._host.soon(callback, *args)

    def spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        """Have something awaited on Dask's loop; from there."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- the connection

    async def _connect(self) -> None:
        client = self._given.client
        if client is None:
            client = await self._given.connect()
        try:
            threads, fence = await self._introduce(client)
        except BaseException:
            if self._given.client is None:
                await _close(client)
            raise
        if self._closing:  # meanwhile
            if self._given.client is None:
                await _close(client)
            return
        if self._again is not None and fence.scheduler == self._fence.scheduler:
            self._again.set()
        self._client, self._met, self._fence, self._owns = client, client.id, fence, False
        self._take_threads(threads)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._keep_watch())
        self._submit()

    async def _introduce(self, client: Any) -> tuple[int, Fence]:
        """Get to know the scheduler, and return how many threads its workers have, and how calls are fenced off."""
        who = f"the Dask scheduler {self._given.address}"
        try:
            await client.register_plugin(SchedulerSide())
            client.subscribe_topic(NEWS, self._news)
            there, threads, fence = await client.scheduler.scattersphere_greet(
                client=client.id, formerly=self._met
            )
        except OSError as exc:
            raise ConnectionError(f"{who} cannot be reached: {text_of(exc)}") from exc
        except Exception as exc:
            raise ConnectionError(
                f"{who} cannot work for this engine: {text_of(exc)}; it needs the same scattersphere as here "
                "(with the extra dask)"
            ) from exc
        if unlike := Terms.here().unlike(there, who):
            raise ConnectionError(unlike)
        return int(threads), Fence(*fence)

    async def _take_over(self, client: Any) -> None:
        """Before the first call: fence off what another Server has begun with the same journal, and is gone."""
        assert self._host is not None  # noqa: S101 - for type checkers
        owns = None
        try:
            owns = not self._host.journal or await client.scheduler.scattersphere_take_over(
                client=client.id, journal=self._host.journal, engine=self._host.instance
            )
        except Exception as exc:  # noqa: BLE001 - whatever Dask says: perhaps the scheduler is gone
            _log.warning(
                "the Dask scheduler %s did not say whether the runs of the journal are this Server's: %s; "
                "it is asked again, and no task begins there before it has answered",
                self._given.address,
                text_of(exc),
            )
            await asyncio.sleep(RETRY[0])
        self._asks = False
        self._owns = bool(owns) and client is self._client
        if owns is False:
            self._comes_too_late = True
            _log.error(
                "another Server has taken over the journal of this one, and its runs on the Dask scheduler %s; "
                "they begin no more tasks here: close this Server",
                self._given.address,
            )
            self._set_limit(0)
        else:  # where it was not said: to ask again
            self._submit()

    async def _keep_watch(self) -> None:
        """Notice when the scheduler has gone, and look for it until it is there again."""
        while not self._closing:
            client = self._client
            with suppress(Exception):  # whatever Dask says: it is gone
                await client.scheduler.scattersphere_watch(client=client.id)
            if self._closing:
                return
            self._lose_scheduler()
            if self._given.client is None:
                await _close(client)
            await self._find_again()

    def _lose_scheduler(self) -> None:
        """All that Dask was given is lost, once it has certainly ended; what comes now waits."""
        _log.warning("lost the Dask scheduler %s; tasks wait until it is there again", self._given.address)
        self._client = None
        self._set_limit(0)
        again = self._again = asyncio.Event()
        # Calls of an earlier scheduler, if there are any yet, wait for a fence of their own.
        lost_now = [call for key, call in self._handles.items() if client_of(key) == self._met]
        self.spawn(self._end_lost(lost_now, again, self._fence))

    async def _end_lost(self, calls: list[DaskHandle], again: asyncio.Event, fence: Fence) -> None:
        """End calls when the scheduler is there again, for it knows that they have ended, or when that is certain."""
        ended = await lease.refuses(self._given.address)  # then its workers notice, or their lease is up
        with suppress(TimeoutError):
            async with asyncio.timeout(fence.lease if ended else fence.seconds):
                await again.wait()
        for call in calls:
            call.end(lost(f"the Dask scheduler {self._given.address} is gone"))

    async def _find_again(self) -> None:
        pause, longest = RETRY
        while not self._closing:
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)
            given = self._given.client
            if given is not None and given.status != "running":  # it looks for itself, for a time
                continue
            with suppress(Exception):
                await self._connect()
                _log.warning("found the Dask scheduler %s again", self._given.address)
                return

    def _take_threads(self, threads: int) -> None:
        if not self._comes_too_late:
            self._set_limit(threads if self._fixed is None else self._fixed)

    def _set_limit(self, limit: int) -> None:
        if limit != self.limit:
            self.limit = limit
            if self._host is not None:
                self._host.limit_changed(self, limit)

    async def _end_watch(self) -> None:
        """End what looks for the scheduler; a cancel may be lost inside Dask, so it is repeated, and not for ever."""
        watch, end = self._watch, asyncio.get_running_loop().time() + CLOSE_SECONDS
        while watch is not None and not watch.done() and asyncio.get_running_loop().time() < end:
            watch.cancel()
            await asyncio.wait({watch}, timeout=CLOSE_SECONDS / 10)

    async def _shut(self) -> None:
        await self._end_watch()
        while self._outbox:
            self._outbox.popleft().end(Outcome(OutcomeKind.CANCELLED))
        self._idle = asyncio.Event()
        for handle in list(self._handles.values()):
            handle.kill()
        if self._handles and self._client is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._idle.wait()
        for handle in list(self._handles.values()):
            handle.end(died("killed when its Server was closed"))
        client, self._client = self._client, None
        if client is not None and self._given.client is None:
            await _close(client)
        elif client is not None and client.status == "running":
            self._send(client, "", Signal.LEAVE)
            client.unsubscribe_topic(NEWS)

    # ---- calls on their way

    def _submit(self) -> None:
        """Hand to Dask what waits; those with equal needs at once, which costs it less."""
        if self._client is None or self._closing or self._comes_too_late or not self._outbox:
            return
        if not self._owns:
            if not self._asks:
                self._asks = True
                self.spawn(self._take_over(self._client))
            return
        ready: list[DaskHandle] = []
        while self._outbox:
            handle = self._outbox.popleft()
            if handle.ended or handle.to_end:
                handle.end(Outcome(OutcomeKind.CANCELLED))
                continue
            handle.key = key_of(f"{handle.message.job}/{handle.message.task}", self._client.id, handle.number)
            self._handles[handle.key] = handle
            if is_small(handle.call.arguments) and is_small(handle.call.task_context.params):
                if self._pack(handle):
                    ready.append(handle)
            else:
                self.spawn(self._submit_large(handle))
        while ready:
            needs = ready[0].needs
            self._give(self._client, [each for each in ready if each.needs == needs])
            ready = [each for each in ready if each.needs != needs]

    def _pack(self, handle: DaskHandle) -> bool:
        """Make the order of a call. False if its arguments cannot be sent; then it has ended."""
        try:
            handle.pack()
        except Exception as exc:  # noqa: BLE001 - the classes of arguments may do anything
            handle.end(refused(exc))
            return False
        return True

    async def _submit_large(self, handle: DaskHandle) -> None:
        loop, client = asyncio.get_running_loop(), self._client
        if not await loop.run_in_executor(None, self._pack, handle):
            return
        try:
            ahead = None
            if len(handle.order.message) > LARGE:
                ahead = await client.scatter(handle.order.message, hash=False)
            if any(value.future.client is not client for value in handle.values):
                handle.end(
                    refused(
                        LookupError(f"{handle.call.name}: a result that it takes was lost with the cluster")
                    )
                )
            if not handle.ended:
                self._give(client, [handle], ahead)
        except Exception as exc:  # noqa: BLE001 - no worker, no scheduler
            handle.end(lost(f"its arguments did not come to the Dask cluster: {text_of(exc)}"))

    def _give(self, client: Any, handles: list[DaskHandle], ahead: object = None) -> None:
        """Have Dask carry out calls that have the same needs."""
        options = {"pure": False, "retries": 0, "resources": dict(handles[0].needs) or None}
        if ahead is not None or handles[0].values:
            (handle,) = handles
            order = handle.order if ahead is None else handle.order._replace(message=b"")
            beside = ahead, *(value.future for value in handle.values)
            # pickle.loads(order)(beside), of nothing but the standard library's functions
            steps = [pickle.loads, packed_to_call(order), beside]
            handle.future = client.submit(reduce, operator.call, steps, key=handle.key, **options)
        elif len(handles) == 1:
            (handle,) = handles
            handle.future = client.submit(pickle.loads, packed(handle.order), key=handle.key, **options)
        else:
            orders = [packed(handle.order) for handle in handles]
            futures = client.map(pickle.loads, orders, key=[handle.key for handle in handles], **options)
            for handle, future in zip(handles, futures, strict=True):
                handle.future = future
        needs = ", ".join(f"{name}: {amount}" for name, amount in handles[0].needs.items())
        where = f"the Dask cluster, where it waits for a worker{needs and f' with {needs}'}"
        for handle in handles:
            self.note_where(handle.call, where)
            if handle.to_end is not None:  # asked while it was on its way
                self.tell(handle, handle.to_end)
            elif handle.paused:
                self.tell(handle, Signal.HOLD)

    def tell(self, handle: DaskHandle, word: Signal, payload: bytes = b"") -> None:
        """Say something to a call; on Dask's loop."""
        if self._client is not None and handle.future is not None and not handle.ended:
            self._send(self._client, handle.key, word, payload)

    @staticmethod
    def _send(client: Any, key: str, word: Signal, payload: bytes = b"") -> None:
        client._send_to_scheduler(  # noqa: SLF001 - Dask has no public way that keeps the order of what it sends itself
            {"op": ASK, "key": key, "word": int(word), "payload": payload}
        )

    # ---- values that stay

    def keep_for(self, call: Call) -> int:
        """Return from how many bytes on the result of a call may stay; 0 if it may not."""
        return self._keep_from if self._keep_from is not None and call.result_may_stay() else 0

    async def fetch(self, future: Any) -> object:
        """Return the bytes of a value; None if it was lost. For any loop and thread."""

        async def gather() -> object:
            with suppress(Exception):  # the worker is gone, or the scheduler
                return await future
            return None

        if self._io is None or not self._io.is_running():
            return None
        if self.is_here():
            return await gather()
        fetched = asyncio.run_coroutine_threadsafe(gather(), self._io)
        return await anyio.to_thread.run_sync(fetched.result, abandon_on_cancel=True)

    def brought(self, results: Mapping[str, object]) -> dict[str, object]:
        """Bring values among results here; in a thread of its own."""
        return {
            # That of a mapped task is the list of those of its instances.
            name: [_brought(each) for each in value] if type(value) is list else _brought(value)
            for name, value in results.items()
        }

    # ---- what comes back

    def _news(self, event: tuple[float, Iterable[tuple[str, int, bytes]]]) -> None:
        for key, number, payload in event[1]:
            word = Signal(number)
            handle = self._handles.get(key)
            if word is Signal.THREADS:
                self._take_threads(int(payload))
            elif handle is not None:
                handle.take(word, payload)
            elif word is Signal.LOG:
                self.take_line(0, None, *pickle.loads(payload))  # noqa: S301 - from a worker of ours

    def take_line(
        self,
        current: int,
        channel: CallChannel | None,
        number: int,
        level: int,
        message: str,
        logger: str,
        ago: float,
    ) -> None:
        """File a line of a call, or of a thread that an earlier one has left behind."""
        if channel is not None and number == current:
            channel.log(level, message, logger, ago)
            return
        reference, place = self._late.get(number, (lambda: None, {}))
        if (log := reference()) is not None:
            log.append(level, message, logger=logger, ago=ago, **place)
        else:  # a module's, while it is imported
            logging.getLogger(logger).log(level, "%s", message)

    def note_where(self, call: Call, place: str) -> None:
        """Tell the Server where a call executes."""
        if self._host is not None:
            self._host.note_where(call, place)

    def forget(self, handle: DaskHandle) -> None:
        """A call has ended."""
        self._handles.pop(handle.key, None)
        context = handle.call.task_context
        log = getattr(context, "run_log", None)
        if log is not None:
            place = {"task": context.task, "index": context.index, "attempt": context.attempt}
            self._late[handle.number] = weakref.ref(log), place
            if len(self._late) > REMEMBERED:
                del self._late[next(iter(self._late))]
        if self._idle is not None and not self._handles:
            self._idle.set()


def _brought(value: object) -> object:
    return anyio.run(value.fetch) if isinstance(value, DaskValue) else value


class _Given:
    """What the backend was given to find its cluster."""

    def __init__(self, address: str, client: Any, security: object) -> None:
        self.address = address
        self.client = client
        """A client of the host's, in whose loop we live; None where we make one."""
        self._security = security

    @classmethod
    def of(cls, cluster: object, security: object) -> _Given:
        if isinstance(cluster, str):
            return cls(cluster, None, security)
        if isinstance(cluster, Client):
            return cls(str(getattr(cluster.scheduler, "address", "of the client")), cluster, None)
        address = getattr(cluster, "scheduler_address", None)
        if not isinstance(address, str) or not address:
            raise TypeError(
                "DaskBackend: give the address of a Dask scheduler (tcp://HOST:8786), a distributed.Client, or a "
                f"cluster that is running, not {type(cluster).__name__}"
            )
        return cls(address, None, security or getattr(cluster, "security", None))

    async def connect(self) -> Any:
        """Return a client of ours. Raises ConnectionError."""
        client: Any = Client(  # type: ignore[no-untyped-call] # distributed types few things
            self.address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS,
            security=self._security, name="engine",
        )  # fmt: skip
        try:
            return await client
        except (
            BaseException
        ) as exc:  # cancelled, too: nobody else would close it, and Dask waits long for that
            await _close(client)
            if not isinstance(exc, OSError):
                raise
            raise ConnectionError(f"no Dask scheduler answers at {self.address}: {text_of(exc)}") from exc


async def _close(client: Any) -> None:
    """Close a client of ours; one that does not end in time is left."""

    async def close() -> None:
        with suppress(Exception):
            await client.close()

    closing = asyncio.get_running_loop().create_task(close())
    await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    closing.cancel()

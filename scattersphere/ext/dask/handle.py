"""One call on a Dask cluster, seen from the engine."""

from __future__ import annotations

import asyncio
import pickle
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from distributed import KilledWorker

from scattersphere.abc import Handle, Outcome, OutcomeKind
from scattersphere.ext.dask.messages import WINDOW, CallOrder, Signal, Terms
from scattersphere.ext.dask.site import RefusedByWorkerError
from scattersphere.ext.dask.values import DaskValue, packing, pickle_of
from scattersphere.logs.failures import text_of
from scattersphere.registry import parcels
from scattersphere.worker.channel import CallChannel
from scattersphere.worker.messages import Reply, dumps, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.abc import Call
    from scattersphere.ext.dask.backend import DaskBackend
    from scattersphere.worker.messages import CallMessage

WHERE_SECONDS = 0.05
"""How long `where` waits for the answer of another machine."""

_KINDS = {
    Signal.VALUE: OutcomeKind.VALUE,
    Signal.FAILURE: OutcomeKind.EXCEPTION,
    Signal.CANCELLED: OutcomeKind.CANCELLED,
}


class Grip(Handle):
    """What the Server has of a call: it reaches the call until that ends.

    An attempt has this, and a call has the attempt. If that were a circle, an engine that waits, and so collects no
    garbage, would hold all that a run has taken and come to, and the cluster could not let go of its values.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: DaskHandle) -> None:
        self._handle: DaskHandle | None = handle

    def let_go(self) -> None:
        """Reach nothing any more."""
        self._handle = None

    def cancel(self) -> None:
        """Ask it to end; one that waits in Dask does not begin."""
        if (handle := self._handle) is not None:
            handle.cancel()

    def kill(self) -> None:
        """Kill its process, and what that has started."""
        if (handle := self._handle) is not None:
            handle.kill()

    def pause(self) -> None:
        """Hold it at its first step, or at its next checkpoint."""
        if (handle := self._handle) is not None:
            handle.pause()

    def resume(self) -> None:
        """Hold it no longer."""
        if (handle := self._handle) is not None:
            handle.resume()

    def where(self) -> str:
        """Ask the process which line it executes."""
        handle = self._handle
        return "" if handle is None else handle.where()


class DaskHandle:
    """A call on a Dask cluster. What `Grip` calls is for the thread of the Server's loop, the rest for Dask's loop."""

    def __init__(
        self, backend: DaskBackend, call: Call, done: Callable[[Outcome], None], message: CallMessage
    ) -> None:
        self.grip: Grip = Grip(self)
        self.call: Call = call
        self.message: CallMessage = message._replace(file=str(message.number))
        self.number: int = message.number
        self.needs: Mapping[str, int] = call.needs
        self.channel: CallChannel = CallChannel(call)
        self.key: str = ""
        self.order: CallOrder
        self.future: Any = None
        self.values: list[DaskValue] = []
        """Results among its arguments that are on the cluster."""
        self.ended: bool = False
        self.to_end: Signal | None = None
        """CANCEL or KILL, once it was asked to end."""
        self.paused: bool = False
        self._backend = backend
        self._done = done
        self._begun = False
        self._taken = 0
        self._place = ""
        self._answered = threading.Event()

    def __repr__(self) -> str:
        return f"<DaskHandle {self.call.name}: {self.key or 'not submitted'}>"

    # ---- for the Server

    def cancel(self) -> None:
        """Ask it to end; one that waits in Dask does not begin."""
        if self.to_end is None:
            self.to_end = Signal.CANCEL
        self._backend.post(self._ask_to_end)

    def kill(self) -> None:
        """Kill its process, and what that has started."""
        self.to_end = Signal.KILL
        self._backend.post(self._ask_to_end)

    def pause(self) -> None:
        """Hold it at its first step, or at its next checkpoint."""
        self.paused = True
        self._backend.post(self._backend.tell, self, Signal.HOLD)

    def resume(self) -> None:
        """Hold it no longer."""
        self.paused = False
        self._backend.post(self._backend.tell, self, Signal.GO)

    def where(self) -> str:
        """Ask the process which line it executes. An old answer where it does not react in time."""
        if self.ended or not self._begun:
            return ""
        self._answered.clear()
        self._backend.post(self._backend.tell, self, Signal.WHERE)
        if not self._backend.is_here():
            self._answered.wait(WHERE_SECONDS)
        return "" if self.ended else self._place

    def _ask_to_end(self) -> None:
        if not self.key:  # Dask was not given it yet, and may not be for long: there is no scheduler
            self.end(Outcome(OutcomeKind.CANCELLED))
        elif self.to_end is not None:
            self._backend.tell(self, self.to_end)

    # ---- on Dask's loop

    def pack(self) -> None:
        """Make the order. Raises TypeError that names the argument that cannot be sent."""
        with packing(self.number) as self.values:
            message = self.message.pack(self.call)
        digests = {slug: parcels.digest_of(slug) for slug in sorted(parcels.versions_named(message))}
        code = tuple((slug, digest) for slug, digest in digests.items() if digest is not None)
        self.order = CallOrder(
            Terms.here(),
            self.key,
            self.number,
            self.call.name,
            code,
            self._backend.keep_for(self.call),
            self.paused,
            message,
        )

    def take(self, word: Signal, payload: bytes) -> None:
        """Take what is said about it."""
        match word:
            case Signal.LOG:
                self._count()
                self._backend.take_line(self.number, self.channel, *pickle.loads(payload))  # noqa: S301 - from a worker of ours
            case Signal.PROGRESS:
                self._count()
                number, *report = pickle.loads(payload)  # noqa: S301 - as above
                if number == self.number:
                    self.channel.progress(*report)
            case Signal.HELD:
                if pickle.loads(payload)[0] == self.number:  # noqa: S301 - as above
                    self.channel.held()
            case Signal.HERE:
                self._place = payload.decode()
                self._answered.set()
            case Signal.BEGUN:
                self._backend.soon(self._begin, payload.decode())
            case Signal.MAY_BEGIN | Signal.CHECK | Signal.RESULTS | Signal.LACKS:
                self._take_question(word, payload)
            case _:
                self._take_end(word, payload)

    def _count(self) -> None:
        """Take note of a line or a report; say so to the worker once there are many."""
        self._taken += 1
        if self._taken % (WINDOW // 2) == 0:
            self._backend.tell(self, Signal.TAKEN)

    def _take_question(self, word: Signal, payload: bytes) -> None:
        match word:
            case Signal.MAY_BEGIN:
                self._aside(self._may_begin, payload.decode())
            case Signal.CHECK:
                self._aside(self._check)
            case Signal.RESULTS:
                self._aside(self._results)
            case _:
                self._aside(self._pack_versions, pickle.loads(payload))  # noqa: S301 - from a worker of ours

    def _take_end(self, word: Signal, payload: bytes) -> None:
        match word:
            case Signal.VALUE | Signal.FAILURE | Signal.CANCELLED:
                self.end(Reply(_KINDS[word], payload).outcome(self.call.name))
            case Signal.STAYS:
                kind, size = pickle.loads(payload)  # noqa: S301 - from a worker of ours
                future, self.future = self.future, None  # released with the value
                value = DaskValue(future, self.call.name, kind, size, self._backend.fetch)
                self.end(Outcome(OutcomeKind.VALUE, value))
            case Signal.STORED:
                self._backend.spawn(self._fetch())
            case Signal.DIED:
                self.end(died(payload.decode()))
            case Signal.WITHDRAWN:
                self.end(Outcome(OutcomeKind.CANCELLED))
            case Signal.LOST:
                self.end(lost(payload.decode()))
            case Signal.ERRED:
                self._backend.spawn(self._find_out())
            case _:
                pass

    def end(self, outcome: Outcome) -> None:
        """Report the outcome, unless that was done."""
        if self.ended:
            return
        self.ended = True
        self._backend.forget(self)
        self.grip.let_go()
        if self.future is not None:
            with suppress(Exception):  # without a scheduler there is nothing to release
                self.future.release()
        self._backend.soon(self._done, outcome)

    async def _fetch(self) -> None:
        """Get a long result from where it is stored."""
        try:
            stored = await self.future
        except Exception as exc:  # noqa: BLE001 - the worker is gone, or the scheduler
            self.end(lost(f"its result was lost: {text_of(exc)}"))
            return
        if stored is None:
            self.end(lost("its result was lost with the Dask worker that had it"))
            return
        reply = Reply(OutcomeKind.VALUE, cast("bytes", pickle_of(stored)))  # a view serves as well
        self.end(await asyncio.get_running_loop().run_in_executor(None, reply.outcome, self.call.name))

    async def _find_out(self) -> None:
        """Say why Dask could not execute its task."""
        try:
            exc = await self.future.exception()
        except Exception as failure:  # noqa: BLE001 - the scheduler is gone
            exc = failure
        if isinstance(exc, KilledWorker):
            self.end(lost(f"the Dask worker {exc.last_worker.address} is gone"))
        elif isinstance(exc, RefusedByWorkerError):
            self.end(refused(RuntimeError(f"{self.call.name}: {text_of(exc)}")))
        else:
            words = (
                f"{self.call.name}: a Dask worker could not begin it: {type(exc).__name__}: {text_of(exc)}; "
                "it needs the same scattersphere as here (with the extra dask)"
            )
            self.end(refused(RuntimeError(words)))

    # ---- answers, in threads that may wait

    def _aside(self, work: Callable[..., None], *args: object) -> None:
        name = f"scattersphere-dask-{self.call.name}"
        threading.Thread(target=work, args=args, name=name, daemon=True).start()

    def _answer(self, payload: bytes) -> None:
        self._backend.post(self._backend.tell, self, Signal.ANSWER, payload)

    def _begin(self, where: str) -> None:
        """On the Server's loop: take note that it has begun."""
        if self.paused:
            self._aside(self._may_begin, where, False)
        else:
            self._note_begun(where)

    def _note_begun(self, where: str) -> bool:
        self._begun = True
        self._backend.note_where(self.call, where)
        begins = self.call.begins()
        if not begins:
            self.cancel()
        return begins

    def _may_begin(self, where: str, answer: bool = True) -> None:  # noqa: FBT001, FBT002 - a thread's arguments
        begins = self._note_begun(where)
        if answer:
            self._answer(dumps(("go on" if begins else "cancelled", "")))
            if not self.paused:
                self._backend.post(self._backend.tell, self, Signal.GO)

    def _check(self) -> None:
        reason = self.channel.check()
        self._answer(dumps(("go on", "") if reason is None else ("cancelled", reason)))

    def _results(self) -> None:
        try:
            answer = dumps(("results", self._backend.brought(self.channel.results())))
        except Exception as exc:  # noqa: BLE001 - the results' own __reduce__ may raise anything
            words = f"the results of the upstream tasks cannot be sent to a Dask worker: {text_of(exc)}"
            answer = dumps(("error", words))
        self._answer(answer)

    def _pack_versions(self, slugs: list[str]) -> None:
        try:
            answer = True, [tuple(parcels.pack(slug)) for slug in slugs]
        except Exception as exc:  # noqa: BLE001 - said there, by the call
            self._answer(dumps((False, f"{self.call.name}: its code cannot be sent: {text_of(exc)}")))
        else:
            self._answer(dumps(answer))


def lost(why: str) -> Outcome:
    """Return the outcome of a call whose place is gone."""
    return Outcome(OutcomeKind.LOST, error=ConnectionError(why))


def died(how: str) -> Outcome:
    """Return the outcome of a call whose process is gone."""
    return Outcome(OutcomeKind.DIED, error=ChildProcessError(how))

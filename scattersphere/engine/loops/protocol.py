"""What the executor needs of an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from scattersphere.logs.frames import DEEPEST_CHAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Mapping


class RunningBody(Protocol):
    """What a loop needs to know of an attempt to find its tasks."""

    handle: Any
    """What `start` has returned for it; None where the loop does not run it."""

    @property
    def on_loop(self) -> bool:
        """Whether its body runs on the event loop itself."""
        ...


BodyT = TypeVar("BodyT", bound=RunningBody)


class Loop(Protocol):
    """What the executor needs of an event loop. All methods are for the loop's own thread, but `soon`."""

    starts_a_turn: int
    """How many attempts whose first step is not their last may be started before the loop must have a turn."""
    is_virtual: bool
    """Whether its clock is a test's: it jumps, and knows nothing of the time on the wall."""
    can_abandon: bool
    """Whether a coroutine that refuses to end can be closed."""
    can_watch: bool
    """Whether `watch` works."""

    def clock(self) -> float:
        """Return monotonic seconds, virtual under trio's MockClock; for any thread."""
        ...

    async def open(
        self, pump: Callable[[bool], bool], alarm: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Begin to call `pump(False)` after `wake()`, as long as it returns True, and `alarm` when it is due.

        `failed` is called if a body has broken the place where bodies live; no attempt can run then.
        """

    async def aclose(self) -> None:
        """Stop calling back. Attempts must have ended before."""

    def wake(self) -> None:
        """Have `pump` called soon; many wakes make one call."""

    def pump_now(self, within_turn: bool) -> None:  # noqa: FBT001 - what `pump` is called with
        """Have `pump` called now where that is possible: in a body's last step (True), in a callback of `soon` (False).

        A chain of bodies that suspend, or wait for the journal, would else cost two turns of the loop for each.
        """

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread; for any thread, in silence after the end."""

    def watch(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call back each time that there is something to read, until `unwatch`."""

    def unwatch(self, descriptor: int) -> None:
        """Call back no more."""

    def set_alarm(self, when: float | None) -> None:
        """Have `alarm` called at `when` of `clock()`; replaces the last one."""

    def start(self, body: Coroutine[object, object, None], name: str) -> object:
        """Start `body` in a copy of the current context. Return its handle, or None if it ended."""

    def cancel(self, handle: Any) -> None:
        """Raise the loop's cancellation at the body's next suspension.

        A body that was started and has not had its first step begins all the same: it must look for
        itself whether it was asked to end.
        """

    def abandon(self, handle: Any) -> bool:
        """Close a body that swallows cancellation; False where the loop has no such way."""
        ...

    def where(self, handle: Any) -> str:
        """Say at which line a suspended body stands."""
        ...

    def current(self) -> object:
        """Return the task that executes now, of whatever library made it."""
        ...

    def survey(
        self, held: Mapping[BodyT, Collection[object]]
    ) -> Generator[None, None, Callable[[BodyT], bool]]:
        """Look, in pieces of less than a millisecond, at the tasks of these attempts.

        `held` says which of their tasks wait at a checkpoint. Returned is what says of one of them, as long as these do
        wait, whether it has a task besides that neither is held nor waits for its own children.
        """
        ...

    def pass_on(self, exc: BaseException) -> None:
        """Hand a KeyboardInterrupt that a body ended with on to the host, if it was a real Ctrl-C."""


_JOINS = (
    ("/asyncio/taskgroups.py", "aexit"),
    ("/asyncio/tasks.py", "_wait"),
    ("/asyncio/threads.py", "to_thread"),
    ("/anyio/_backends/_asyncio.py", "__aexit__"),
    ("/anyio/_backends/_asyncio.py", "run_sync_in_worker_thread"),
    ("/trio/_core/_run.py", "_nested_child_finished"),
    ("/trio/_threads.py", "to_thread_run_sync"),
    ("/engine/requests.py", "wait_in_body"),
)
"""Where a task waits for others of its body: files and functions of the libraries, and ours of child runs."""


def joins(coroutine: object) -> bool:
    """Whether a suspended task waits for other tasks or threads of its own."""
    links = 0
    while coroutine is not None and links < DEEPEST_CHAIN:
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
        if code is not None and any(
            code.co_filename.endswith(path) and name in code.co_name for path, name in _JOINS
        ):
            return True
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        links += 1
    return False

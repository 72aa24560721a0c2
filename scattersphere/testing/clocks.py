"""Virtual time: an asyncio loop whose clock jumps, and how the clocks of both loops are held.

A clock that jumps to the next timer whenever the loop has nothing to do is right as long as all work is done on the
loop. While a thread or a process works, the loop has nothing to do either, and a jump would let its
timeout expire. So whoever sends work away holds the clock until it is back: meanwhile time passes as on the wall.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


TICK = 2.0**-30
"""Seconds, a little less than asyncio's resolution of a nanosecond: what virtual time is a multiple of.

Sums of any floats would not do. `now + (when - now)` may be less than `when` by the last bit: asyncio calls a timer
that is so near, and who looks at the clock then finds that it is not due, and asks again, for ever, because this
clock does not move while anything is ready. Multiples of a power of two have room in a float up to 97 days, so
that their differences to any timer are exact, and a jump is rounded up. Beyond, the last bit of a float is more
than asyncio overlooks, and it calls no timer before the clock has gone past it.
"""


class _Clock:
    """Seconds that jump, or, while anybody holds it, pass."""

    def __init__(self) -> None:
        self._ticks = 0
        self._holders = 0
        self._held_since = 0.0

    @property
    def held(self) -> bool:
        return self._holders > 0

    def now(self) -> float:
        return self._ticks * TICK + (time.monotonic() - self._held_since if self.held else 0.0)

    def jump(self, seconds: float) -> None:
        self._ticks += math.ceil(seconds / TICK)
        if (now := self.now()) + TICK == now:
            self._ticks += math.ceil(math.ulp(now) / TICK)

    def hold(self) -> None:
        if not self.held:
            self._held_since = time.monotonic()
        self._holders += 1

    def release(self) -> None:
        self._ticks = math.ceil(self.now() / TICK)
        self._held_since = time.monotonic()
        self._holders -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Jumps over the time for which a loop would wait, unless something is ready or the clock is held."""

    def __init__(self, clock: _Clock, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._clock = clock
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait without a limit as always; jump over any other wait."""
        if timeout is None or timeout <= 0 or self._clock.held:
            return super().select(timeout)
        if (
            self._loop.has_no_timer_that_comes()
        ):  # only a thread can wake it, and days must not pass until it does
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self._clock.jump(timeout)
            self._loop.time_has_jumped()
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on which `sleep(3600)` takes no time: when nothing is ready, its clock jumps to the next timer.

    Time begins at 0. What `run_in_executor` and `asyncio.to_thread` do is waited for in real time. Sockets and
    programs of one's own are not: a timeout beside them expires at once.

    Under anyio's pytest plugin::

        @pytest.fixture
        def anyio_backend():
            return "asyncio", {"loop_factory": VirtualTimeLoop}
    """

    is_virtual: bool = True

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(_JumpingSelector(self._clock, self))

    def has_no_timer_that_comes(self) -> bool:
        """Whether all that waits for a time waits for ever, as `sleep_forever` does by a timer that is never due."""
        timers: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        return not timers or timers[0].when() == math.inf

    def time_has_jumped(self) -> None:
        """Take timers for due whose time cannot be told from now: else the loop would turn for ever without a jump."""
        self._clock_resolution: float = max(TICK, 2 * math.ulp(self.time()))

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._clock.now()

    def hold(self) -> None:
        """Let time pass as on the wall until `release` has been called as often as this."""
        self._clock.hold()

    def release(self) -> None:
        """Let time jump again."""
        self._clock.release()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., object], *args: object
    ) -> asyncio.Future[Any]:
        """Call `func` in a thread, as every loop does, and hold the clock meanwhile."""
        self.hold()  # first: the thread may be at work before this line ends
        try:
            future = super().run_in_executor(executor, func, *args)
        except BaseException:
            self.release()
            raise
        future.add_done_callback(lambda _: self.release())
        return future

    async def shutdown_default_executor(self, *args: object) -> None:
        """Wait for the threads of the executor, in real time: the wait has a limit, from Python 3.12 on."""
        self.hold()
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.release()


class HeldClock(Protocol):
    """A clock that jumps while nobody holds it."""

    def hold(self) -> None:
        """Let time pass as on the wall."""

    def release(self) -> None:
        """Let time jump again, when this was called as often as `hold`."""


class _WallClock:
    """Real time needs no holding."""

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass


class _TrioClock:
    """trio's MockClock with autojump: it neither jumps nor stands still while it is held."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._holders = 0
        self._before: tuple[float, float] = (0.0, 0.0)

    def hold(self) -> None:
        if not self._holders:
            self._before = (self._clock.rate, self._clock.autojump_threshold)
            self._clock.rate = self._clock.rate or 1.0
            self._clock.autojump_threshold = float("inf")
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._clock.rate, self._clock.autojump_threshold = self._before


def running_clock() -> HeldClock:
    """Return the clock of the loop that runs now.

    A MockClock without autojump is left alone: it is moved by hand, and only by hand.
    """
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_run():
        loop = asyncio.get_running_loop()
        return loop if isinstance(loop, VirtualTimeLoop) else _WallClock()
    clock = trio.lowlevel.current_clock()
    jumps = getattr(clock, "autojump_threshold", float("inf")) != float("inf")
    return _TrioClock(clock) if jumps else _WallClock()

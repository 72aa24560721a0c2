"""Watcher of paths on disk: notifications and a slow poll lead to a look, and what has held still is acted on.

Looks at files happen in worker threads; everything else on the loop's thread. What is decided, and when, is
`debounce`'s matter.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.to_thread
import attrs

from scattersphere.watching.debounce import Debounce, Step, WatchDelays
from scattersphere.watching.notify import (
    GATHER,
    ChangeNotifier,
    Changes,
    FolderNotifier,
    WatchTarget,
    targets_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
    from pathlib import Path

_log = logging.getLogger("scattersphere.registry")

BEGIN_AGAIN_PAUSE = 1.0
"""Seconds between two failures of the notification below which only the next poll begins it again."""

FIRST_LOOKS = 3
"""One may be under way when a thing is added, one finds where to listen, and one what happened before that."""

POLL_SHARE = 1 / 250
"""The part of one core that the poll may take: what is watched in great numbers is looked at less often."""


class Watched(Protocol):
    """A thing on disk. It deals with its own errors."""

    @property
    def path(self) -> Path:
        """Where it is, links kept: they may be swapped."""
        ...

    @property
    def settle(self) -> float | None:
        """Seconds to hold still, where it is not the watcher's own time."""
        ...

    def poll(self) -> Hashable | None:
        """Return what is there, as something that can be compared; None for nothing. Called in a thread."""
        ...

    def targets(self) -> frozenset[WatchTarget]:
        """Return where one must listen to hear of a change. Called in a thread."""
        ...

    def core(self, seen: Hashable) -> object:
        """Return the part of what `poll` showed that counts alone where the whole never holds still."""
        ...

    def on_restless(self, seen: Hashable | None) -> None:
        """Note what is there, again and again, while it does not hold still; None once it does."""

    async def on_changed(self, seen: Hashable) -> None:
        """Act on what has held still."""

    async def on_removed(self) -> None:
        """Act on its being gone."""


class _Entry:
    """A watched thing, and what is known of it."""

    def __init__(self, thing: Watched, debounce: Debounce[Hashable]) -> None:
        self.thing = thing
        self.debounce = debounce
        self.targets: frozenset[WatchTarget] = frozenset()
        self.stale = True
        """Whether it must be looked at, and its targets found anew."""
        self.busy = 0
        """How many are acting on it: the watcher, and hosts that take it up by hand."""


class Watcher:
    """Watches any number of things with one thread and one descriptor of the system's notification.

    `listen` makes a source of notifications for some folders; where it raises OSError the poll alone must do.
    """

    def __init__(
        self, delays: WatchDelays, *, listen: Callable[[Iterable[str]], ChangeNotifier] = FolderNotifier
    ) -> None:
        self.delays: WatchDelays = delays
        self.polling_reason: str | None = None
        """Why there is only the poll; None if the system notifies."""
        self._make_notifier = listen
        self._entries: dict[Watched, _Entry] = {}
        self._by_target: dict[WatchTarget, set[_Entry]] = {}
        self._folders: frozenset[str] = frozenset()
        self._notifier: ChangeNotifier | None = None
        self._renewal_due = False
        self._failed_at = -math.inf
        self._told: set[str] = set()
        self._wake = anyio.Event()
        self._looked = anyio.Event()
        self._notifier_new = anyio.Event()
        self._polled_at = -math.inf
        self._poll_pause = delays.poll
        self._group: anyio.abc.TaskGroup | None = None
        self._begun = anyio.Event()
        self._ended = anyio.Event()
        self._running = False
        self._closed = False

    def __repr__(self) -> str:
        how = (
            f"by polling alone ({self.polling_reason})"
            if self.polling_reason
            else f"in {len(self._folders)} folders"
        )
        return f"<Watcher: {len(self._entries)} things {how}>"

    # ---- what is watched

    def add(self, thing: Watched, tried: Hashable | None = None) -> None:
        """Watch `thing` from now on. `tried` is what a look showed before it was taken up by hand."""
        delays = self.delays if thing.settle is None else attrs.evolve(self.delays, settle=thing.settle)
        self._entries[thing] = _Entry(thing, Debounce(delays, tried, thing.core))
        self.wake()

    def remove(self, thing: Watched) -> None:
        """Watch it no longer."""
        entry = self._entries.pop(thing, None)
        if entry is not None:
            self._move(entry, frozenset())

    @contextmanager
    def held(self, thing: Watched) -> Iterator[None]:
        """Do not act on `thing` inside the block, in which it is taken up by hand; look at it afterwards."""
        entry = self._entries.get(thing)
        if entry is None:
            yield
            return
        entry.busy += 1
        try:
            yield
        finally:
            self._release(entry)

    def mark_seen(self, thing: Watched, seen: Hashable | None) -> None:
        """Note that `seen` was taken up by hand: it is no news. None has whatever is there taken up anew."""
        entry = self._entries.get(thing)
        if entry is not None:
            entry.debounce.mark_seen(seen)
            self._look_again(entry)

    def wake(self) -> None:
        """Look at once at what is stale."""
        self._wake.set()

    # ---- life

    async def open(self, spawn: Callable[[Coroutine[object, object, None], str], object]) -> None:
        """Begin. `spawn` starts a coroutine as a task of its own, which outlives the caller."""
        self._running = True
        spawn(self._main(), "scattersphere.watching")
        await self._begun.wait()

    async def listens(self) -> None:
        """Wait until all that was added is listened to, and has been looked at since."""
        for _ in range(FIRST_LOOKS):  # and no more: what is written all the time is stale all the time
            if self._ended.is_set() or not any(entry.stale for entry in self._entries.values()):
                return
            await self._looked.wait()

    async def aclose(self) -> None:
        """End the task and the thread, and give the descriptor back."""
        self._closed = True
        self._close_notifier()
        if self._group is not None:
            self._group.cancel_scope.cancel()
        if self._running:
            with anyio.CancelScope(shield=True):
                await self._ended.wait()

    async def _main(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                if self._closed:
                    return
                group.start_soon(self._listen_on)
                while True:
                    await self._until_due()
                    await self._look()
                    self._looked.set()
                    self._looked = anyio.Event()
        except Exception:  # noqa: BLE001 - of ours: the host's loop, and on trio the place of all runs, must not suffer
            _log.exception("watching has failed and has ended; reload and register still work")
        finally:
            self._close_notifier()
            self._group = None
            self._begun.set()
            self._ended.set()
            self._looked.set()

    async def _until_due(self) -> None:
        due = self._polled_at + self._poll_pause if self._entries else math.inf
        for entry in self._entries.values():
            if not entry.busy and entry.debounce.due is not None:
                due = min(due, entry.debounce.due)
        with anyio.CancelScope(deadline=due):
            await self._wake.wait()
        self._wake = anyio.Event()

    # ---- looking

    async def _look(self) -> None:
        """Look at what is stale, or at everything if the poll is due, in one trip to a thread; then decide."""
        now = anyio.current_time()
        polling = now >= self._polled_at + self._poll_pause
        entries, expected, stale = self._due(now, polling=polling)
        if not (entries or polling or self._renewal_due):
            return  # it was woken to find out anew when something is due
        own = anyio.CapacityLimiter(1)  # not a place among the host's worker threads
        targets, seen, cost = await anyio.to_thread.run_sync(_look_at, stale, entries, limiter=own)
        now = anyio.current_time()
        if polling:
            self._polled_at = now
            self._poll_pause = self.delays.poll
            if self.polling_reason is None:
                self._poll_pause = max(self.delays.poll, cost / POLL_SHARE)
        for entry, found in targets.items():
            if self._entries.get(entry.thing) is entry and found != entry.targets:
                self._move(entry, found)
                self._look_again(entry)  # nobody listened there when it was looked at
        renewed = await self._renew(polling=polling)
        if renewed:
            self._look_again(*self._entries.values())  # what the old watches had to say is lost
        for entry, what in zip(entries, seen, strict=True):
            self._decide(entry, what, now)
            if entry.debounce.due is not None and entry not in expected and not renewed:
                self._renewal_due = True  # the poll found what was not notified: the watches are stale

    def _due(self, now: float, *, polling: bool) -> tuple[list[_Entry], list[_Entry], list[_Entry]]:
        """Return what to look at, what of it may have changed, and what is stale: it may become so again from here."""
        idle = [entry for entry in self._entries.values() if not entry.busy]
        expected = [entry for entry in idle if entry.stale or _is_due(entry, now)]
        stale = [entry for entry in expected if entry.stale]
        if polling:
            for entry in self._entries.values():
                entry.stale = entry.busy > 0  # it is looked at once nobody acts on it
        for entry in stale:
            entry.stale = False
        return (idle if polling else expected), expected, stale

    def _look_again(self, *entries: _Entry) -> None:
        for entry in entries:
            entry.stale = True
        self.wake()

    def _decide(self, entry: _Entry, seen: Hashable | None, now: float) -> None:
        if self._entries.get(entry.thing) is not entry or self._group is None:
            return
        if entry.busy:  # whoever is acting on it since we looked has it looked at again
            entry.stale = True
            return
        if seen == entry.debounce.tried and entry.debounce.due is None and not entry.debounce.restless:
            return  # most looks of a poll
        was_restless = entry.debounce.restless
        step = entry.debounce.look(seen, now)
        if entry.debounce.restless:
            entry.thing.on_restless(seen)
        elif was_restless:
            entry.thing.on_restless(None)
        if step is not Step.NOTHING:
            entry.busy += 1
            self._group.start_soon(self._act, entry, step, seen)

    async def _act(self, entry: _Entry, step: Step, seen: Hashable | None) -> None:
        try:
            if step is Step.CHANGED:
                await entry.thing.on_changed(seen)
            else:
                await entry.thing.on_removed()
        except Exception:  # noqa: BLE001 - a defect in one thing must not end the watching of all others
            _log.exception("acting on a change of %s has failed", entry.thing.path)
        finally:
            self._release(entry)

    def _release(self, entry: _Entry) -> None:
        entry.busy -= 1
        self.wake()  # what was notified meanwhile has made it stale

    # ---- notifications

    def _move(self, entry: _Entry, targets: frozenset[WatchTarget]) -> None:
        for target in entry.targets - targets:
            self._by_target[target].discard(entry)
            if not self._by_target[target]:
                del self._by_target[target]
        for target in targets - entry.targets:
            self._by_target.setdefault(target, set()).add(entry)
        entry.targets = targets

    async def _renew(self, *, polling: bool) -> bool:
        """Listen to the folders of all targets, in place of those that were listened to so far, if need be.

        True: done, and everything must be looked at. The need is there where a folder is new, and where one
        was deleted: the system's watch has gone with it, even if another folder bears the name now. Where the
        system has refused, each poll asks again.
        """
        folders = frozenset(folder for folder, _ in self._by_target)
        needed = self._renewal_due or (polling if self.polling_reason else not folders <= self._folders)
        if not needed or self._closed:
            return False
        self._renewal_due = False
        try:
            own = anyio.CapacityLimiter(1)
            notifier = await anyio.to_thread.run_sync(self._listen, folders, limiter=own)
        except FileNotFoundError:  # a folder went meanwhile: find the targets anew
            await anyio.sleep(GATHER / 1000)
            self._renewal_due = True
            self._look_again(*self._entries.values())
            return False
        if not self._closed:
            self._close_notifier()
            self._notifier, self._folders = notifier, folders
            self._notifier_new.set()
        elif notifier is not None:
            notifier.close()
        return not self._closed

    def _listen(self, folders: frozenset[str]) -> ChangeNotifier | None:
        """Make a source of notifications, in a thread. Raises FileNotFoundError: a folder may go at any moment."""
        try:
            notifier = self._make_notifier(folders) if folders else None
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:  # too many watches, too many instances, no such thing here
            if self.polling_reason is None:
                _log.warning(
                    "no notification of changed files (%s): looking every %g s", error, self.delays.poll
                )
            self.polling_reason = str(error)
            return None
        self.polling_reason = None
        return notifier

    def _close_notifier(self) -> None:
        notifier, self._notifier = self._notifier, None
        if notifier is not None:
            notifier.close()

    async def _listen_on(self) -> None:
        self._begun.set()
        limiter = anyio.CapacityLimiter(1)  # not a place among the host's worker threads
        while not self._closed:
            notifier = self._notifier
            if notifier is None:
                await self._notifier_new.wait()
                self._notifier_new = anyio.Event()
                continue
            try:
                changes = await anyio.to_thread.run_sync(notifier.wait, limiter=limiter)
            except (OSError, RuntimeError) as error:
                changes = None
                if self._notifier is notifier:
                    self._begin_again(str(error))
            if changes is not None:
                self._note(changes)

    def _begin_again(self, why: str) -> None:
        """Make a notifier in place of one that has failed: a file name that is no UTF-8 ends watchfiles'."""
        now = anyio.current_time()
        if why not in self._told:
            self._told.add(why)
            _log.warning("the notification of changed files has ended and is begun again: %s", why)
        self._notifier, self.polling_reason = None, why
        if now >= self._failed_at + BEGIN_AGAIN_PAUSE:
            self._renewal_due = True
            self._look_again(*self._entries.values())
        self._failed_at = now

    def _note(self, changes: Changes) -> None:
        if changes.gone & self._folders:
            self._renewal_due = True
            self._wake.set()
        for target in self._by_target.keys() & changes.targets:
            for entry in self._by_target[target]:
                entry.stale = True
                self._wake.set()


def _is_due(entry: _Entry, now: float) -> bool:
    return entry.debounce.due is not None and now >= entry.debounce.due


def _look_at(
    stale: list[_Entry], entries: list[_Entry]
) -> tuple[dict[_Entry, frozenset[WatchTarget]], list[Hashable | None], float]:
    """Look at `entries`, in a thread; of what is stale, find where to listen before that.

    The third is the seconds of processor time that the looks took.
    """
    targets: dict[_Entry, frozenset[WatchTarget]] = {}
    seen, cost = [], 0.0
    anew = set(stale)
    for entry in entries:
        if entry in anew:
            try:
                targets[entry] = entry.thing.targets()
            except OSError:  # it moved under our eyes; the look that follows will show it
                targets[entry] = entry.targets
        began = time.thread_time()
        seen.append(entry.thing.poll())
        cost += time.thread_time() - began
    return targets, seen, cost


class WatchedPath:
    """The common part of things that are one path."""

    settle: float | None = None
    """Seconds to hold still, where it is not the watcher's own time."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.path}>"

    def targets(self) -> frozenset[WatchTarget]:
        """Return where one must listen to hear of a change."""
        return targets_of(self.path)

    def core(self, seen: Hashable) -> object:
        """Return all of it."""
        return seen

    def on_restless(self, seen: Hashable | None) -> None:
        """Let it be: nobody is told."""

"""Fair eviction from a bounded store: who has the most gives up the oldest of what he has most of."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")


class FairShares(Generic[K]):
    """Keys by owner, and of each owner by group, the oldest first: those of runs by user and job.

    So neither one user with many jobs nor one job that runs all the time takes the others' share. All it does takes
    the same time, however many keys there are.
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Share[K]] = {}
        self._sizes = _Sizes()

    def add(self, owner: str, group: str, key: K) -> None:
        """Add a key, as the newest of its group."""
        share = self._owners.get(owner)
        if share is None:
            share = self._owners[owner] = _Share()
        share.add(group, key)
        self._sizes.moved(owner, share.size - 1, share.size)

    def remove(self, owner: str, group: str, key: K) -> None:
        """Take a key out."""
        share = self._owners[owner]
        share.remove(group, key)
        self._sizes.moved(owner, share.size + 1, share.size)
        if not share.size:
            del self._owners[owner]

    def replace(self, owner: str, group: str, key: K) -> K:
        """Add a key, and take out the oldest of who has the most then; return that one."""
        share = self._owners.get(owner)
        if share is not None and self._sizes.largest() == owner:
            oldest = share.replace(group, key)
            if oldest is not None:  # as mostly: the sizes stay as they are
                return oldest
        self.add(owner, group, key)
        most, of_group, oldest = self.largest()
        self.remove(most, of_group, oldest)
        return oldest

    def largest(self) -> tuple[str, str, K]:
        """Return the owner that has the most keys, his group that has the most, its oldest key. There must be one."""
        owner = self._sizes.largest()
        return owner, *self._owners[owner].largest()


class _Share(Generic[K]):
    """The keys of one owner."""

    def __init__(self) -> None:
        self.size = 0
        self._groups: dict[str, dict[K, None]] = {}
        self._sizes = _Sizes()

    def add(self, group: str, key: K) -> None:
        keys = self._groups.setdefault(group, {})
        keys[key] = None
        self.size += 1
        self._sizes.moved(group, len(keys) - 1, len(keys))

    def remove(self, group: str, key: K) -> None:
        keys = self._groups[group]
        del keys[key]
        self.size -= 1
        self._sizes.moved(group, len(keys) + 1, len(keys))
        if not keys:
            del self._groups[group]

    def replace(self, group: str, key: K) -> K | None:
        """Add a key in place of the oldest one of its group, if that has the most; return that one."""
        if self._sizes.largest() != group:
            return None
        keys = self._groups[group]
        oldest = next(iter(keys))
        del keys[oldest]
        keys[key] = None
        return oldest

    def largest(self) -> tuple[str, K]:
        group = self._sizes.largest()
        return group, next(iter(self._groups[group]))


class _Sizes:
    """Names by how much each has, so that the largest one is found at once."""

    def __init__(self) -> None:
        self._with: dict[int, dict[str, None]] = {}
        self._most = 0

    def moved(self, name: str, before: int, now: int) -> None:
        """Take note that a name has one more, or one less."""
        if before:
            held = self._with[before]
            del held[name]
            if not held:
                del self._with[before]
        if now:
            self._with.setdefault(now, {})[name] = None
        # It grows and shrinks by one, so the largest size does, too.
        self._most = max(self._most, now)
        if self._most not in self._with:
            self._most = now

    def largest(self) -> str:
        return next(iter(self._with[self._most]))

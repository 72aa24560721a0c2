"""Which released versions keep their files, and for which runs. Pure: it decides, others delete.

A run that ended may be run again with the code that it had. The modules of that code are gone by then;
its files stay while a kept run names them, and while all such files together are not too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    V = TypeVar("V", bound=Hashable)
else:
    V = TypeVar("V")


class KeptFiles(Generic[V]):
    """The versions that runs name, and the size of those that were released.

    Beyond `limit` bytes the longest released ones go.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._named_by: dict[V, set[int]] = {}
        self._names: dict[int, set[V]] = {}
        self._released: dict[V, int] = {}

    def __contains__(self, version: V) -> bool:
        """Whether the version was released and its files are still there."""
        return version in self._released

    def keep(self, run: int, versions: Iterable[V]) -> None:
        """Let the files of `versions` outlive their modules until `forget(run)`."""
        for version in versions:
            self._named_by.setdefault(version, set()).add(run)
            self._names.setdefault(run, set()).add(version)

    def forget(self, run: int) -> list[V]:
        """The run names nothing any more; return the released versions that no run names now."""
        gone = []
        for version in self._names.pop(run, ()):
            runs = self._named_by[version]
            runs.discard(run)
            if not runs:
                del self._named_by[version]
                if self._released.pop(version, None) is not None:
                    gone.append(version)
        return gone

    def released(self, version: V, size: int) -> list[V]:
        """Note that `version` was released; return those whose files must go, itself if no run names it."""
        if version not in self._named_by:
            return [version]
        self._released[version] = size
        gone = []
        while sum(self._released.values()) > self._limit:
            oldest = next(iter(self._released))
            del self._released[oldest]
            gone.append(oldest)
        return gone

    def clear(self) -> None:
        """Forget everything."""
        for table in (self._named_by, self._names, self._released):
            table.clear()

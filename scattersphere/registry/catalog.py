"""Reference counts of bundle versions: which are needed, by whom, and whose files stay beyond that. Pure.

A version is *needed* while it is the current one of its bundle or while a run pins it. Each move
returns the versions that it made superfluous; the caller frees exactly those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from scattersphere.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping

    V = TypeVar("V", bound=Hashable)
else:
    V = TypeVar("V")


class Catalog(Generic[V]):
    """The versions that are kept, by bundle name, each with the ids of the runs that pin it.

    A version is any hashable object, a run any number. The name of a withdrawn bundle stays known while
    runs pin versions of it, and may be published again meanwhile.
    """

    def __init__(self) -> None:
        self._current: dict[str, V] = {}
        self._kept: dict[str, dict[V, set[int]]] = {}
        self._bundle_of: dict[V, str] = {}
        self._pinned_by: dict[int, set[V]] = {}

    def current(self, bundle: str) -> V | None:
        """Return the version that new runs of `bundle` get."""
        return self._current.get(bundle)

    def versions(self, bundle: str) -> Mapping[V, frozenset[int]]:
        """Return every kept version of `bundle`, oldest first, with the ids of its runs."""
        return {version: frozenset(runs) for version, runs in self._kept.get(bundle, {}).items()}

    def runs(self, bundle: str) -> frozenset[int]:
        """Return the ids of all runs that pin some version of `bundle`."""
        return frozenset().union(*self._kept.get(bundle, {}).values())

    def kept(self) -> frozenset[V]:
        """Return every version that is needed."""
        return frozenset(self._bundle_of)

    def publish(self, bundle: str, version: V) -> list[V]:
        """Make `version` the current one; a kept older version may become current again."""
        owner = self._bundle_of.setdefault(version, bundle)
        if owner != bundle:
            raise ConflictError(f"this version belongs to the bundle {owner!r}, not to {bundle!r}")
        self._kept.setdefault(bundle, {}).setdefault(version, set())
        old = self._current.get(bundle)
        self._current[bundle] = version
        return [] if old is None or old == version else self._drop_if_unneeded([old])

    def withdraw(self, bundle: str) -> list[V]:
        """Take the bundle's current version away; runs that pin it keep it."""
        old = self._current.pop(bundle, None)
        return [] if old is None else self._drop_if_unneeded([old])

    def pin(self, run: int, versions: Iterable[V]) -> None:
        """Keep `versions` until `unpin(run)`. All or none; ConflictError names one that was freed."""
        wanted = list(versions)
        for version in wanted:
            if version not in self._bundle_of:
                raise ConflictError(f"{version} was released and cannot be pinned")
        for version in wanted:
            self._kept[self._bundle_of[version]][version].add(run)
            self._pinned_by.setdefault(run, set()).add(version)

    def hold(self, bundle: str, version: V, run: int) -> None:
        """Take up a version that is not current, or one that is kept already, and pin it for `run`."""
        owner = self._bundle_of.setdefault(version, bundle)
        if owner != bundle:
            raise ConflictError(f"this version belongs to the bundle {owner!r}, not to {bundle!r}")
        self._kept.setdefault(bundle, {}).setdefault(version, set())
        self.pin(run, [version])

    def unpin(self, run: int) -> tuple[Collection[V], list[V]]:
        """Forget all pins of the run, which may have none; return what it had pinned, and what of it is superfluous."""
        versions = self._pinned_by.pop(run, set())
        for version in versions:
            self._kept[self._bundle_of[version]][version].discard(run)
        return versions, self._drop_if_unneeded(versions)

    def clear(self) -> list[V]:
        """Forget everything, pins too; return every version that was kept."""
        versions = list(self._bundle_of)
        for table in (self._current, self._kept, self._bundle_of, self._pinned_by):
            table.clear()
        return versions

    def _drop_if_unneeded(self, versions: Iterable[V]) -> list[V]:
        freed = []
        for version in versions:
            bundle = self._bundle_of[version]
            kept = self._kept[bundle]
            if kept[version] or self._current.get(bundle) == version:
                continue
            del kept[version], self._bundle_of[version]
            if not kept:
                del self._kept[bundle]
            freed.append(version)
        return freed


class Retention(Generic[V]):
    """Which released versions keep their files, and for which runs, so that these can be run again.

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

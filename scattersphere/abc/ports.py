"""Small contracts: a trigger of schedules, a bundle on its way to a worker, a result that stays where it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import datetime as dt


@runtime_checkable
class Trigger(Protocol):
    """What decides when a schedule fires.

    Pure: the same question has the same answer, and nothing is asked of a clock. Hashable, and equal where the times
    are. All instants are aware and in UTC. `scattersphere.testing.triggers` holds the checks that every trigger must
    pass.
    """

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first time after the instant `after`, to the second, in UTC; None if there is none any more."""

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last time before the instant `before`, in UTC; None if there was none."""

    def words(self) -> str:
        """Say in words when it fires."""
        ...


@runtime_checkable
class BundleContent(Protocol):
    """A version of a bundle that can be carried away; `BundleVersion` is one."""

    @property
    def digest(self) -> str:
        """What identifies the content: equal files have equal digests, on every machine."""
        ...

    def export(self) -> bytes:
        """Return the files as bytes, which `BundleAdopter.adopt` takes. Equal files give equal bytes."""
        ...


@runtime_checkable
class BundleAdopter(Protocol):
    """Takes up bundles that were exported elsewhere; `Server.registry` is one."""

    async def adopt(self, name: str, digest: str, content: bytes) -> BundleContent:
        """Load the version `digest` of the bundle `name` out of what `export` returned.

        It stands beside the current version and does not become it. Raises `BundleRefusedError` where the content
        has another digest or cannot be read, `BundleLoadError` where its code fails.
        """
        ...


@runtime_checkable
class RemoteValue(Protocol):
    """A result that has stayed on a cluster: `run.results[...]` gives it in the place of the value.

    It is passed on to tasks of the same backend as it is, and lives as long as somebody holds it: each run that names
    it does. A backend may return one for a call whose `result_may_stay()`.
    """

    @property
    def type(self) -> str:
        """The module and name of the value's class, as in `numpy.ndarray`."""
        ...

    @property
    def size(self) -> int:
        """Bytes that it takes, pickled."""
        ...

    async def fetch(self) -> Any:
        """Return the value, brought here. Raises LookupError if it was lost."""
        ...

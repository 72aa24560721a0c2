"""The contract of a result that stays where it was made."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


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

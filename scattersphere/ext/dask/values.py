"""Results that stay on the cluster: `DaskValue` in the engine, files at the Dask worker for the bodies that read them.

A value is the pickled result of a Dask task, and lives as long as its future. A call that has it among its arguments
depends on that task; its worker gets the bytes from another worker, if need be, and lays them into a file, from where
the process below reads them.
"""

from __future__ import annotations

import os
import pickle
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scattersphere.registry.snapshots.store import STORE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

FOLDER = "values"
"""Below the store of an engine's code in a Dask worker."""
_SHOWN = 1024


class _Packing(threading.local):
    """Where a thread that packs arguments collects the values among them."""

    found: list[DaskValue] | None = None
    number: int = 0


_packing = _Packing()


class DaskValue:
    """A result that has stayed on a Dask cluster; released there when nobody holds this any more (`RemoteValue`)."""

    def __init__(
        self, future: Any, name: str, kind: str, size: int, fetch: Callable[[Any], Coroutine[Any, Any, Any]]
    ) -> None:
        self.future: Any = future
        self.type: str = kind
        self.size: int = size
        self._name = name
        self._fetch = fetch

    def __repr__(self) -> str:
        return f"<DaskValue {self.type}, {_shown(self.size)}, of {self._name}>"

    async def fetch(self) -> Any:
        """Return the value, brought here. Raises LookupError if it was lost with its Dask worker, or the cluster."""
        payload = await self._fetch(self.future)
        if payload is None:
            raise LookupError(
                f"the result of {self._name} was lost with the Dask worker that had it; run again"
            )
        return pickle.loads(payload)  # noqa: S301 - from a worker of ours

    def __reduce__(self) -> Any:
        if _packing.found is None:
            raise TypeError(
                f"the result of {self._name} is on a Dask cluster, and only tasks there take it as it is; "
                "bring it here with: await value.fetch()"
            )
        _packing.found.append(self)
        return read_value, (f"{_packing.number}-{len(_packing.found) - 1}",)


@contextmanager
def packing(number: int) -> Iterator[list[DaskValue]]:
    """Let this thread pickle values in what it sends for a call; they are collected in what is given."""
    _packing.found, _packing.number = [], number
    try:
        yield _packing.found
    finally:
        _packing.found = None


def read_value(name: str) -> Any:
    """Stand for a value among the arguments; in the process that executes the body."""
    with Path(os.environ[STORE_VARIABLE], FOLDER, name).open("rb") as file:
        return pickle.load(file)  # noqa: S301 - from a worker of ours


@contextmanager
def laid_out(store: Path, number: int, values: tuple[bytes | None, ...]) -> Iterator[None]:
    """Have the values of a call in files. Raises LookupError if one was lost."""
    if None in values:
        raise LookupError("a result that it takes was lost with the Dask worker that had it; run again")
    files = [store / FOLDER / f"{number}-{index}" for index in range(len(values))]
    try:
        if files:
            (store / FOLDER).mkdir(mode=0o700, exist_ok=True)
        for file, value in zip(files, values, strict=True):
            file.write_bytes(value or b"")
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _shown(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < _SHOWN:
            return f"{size:.3g} {unit}"
        size /= _SHOWN
    return f"{size:.3g} GiB"

"""Results that stay on the cluster: `DaskValue` in the engine, files at the Dask worker for the bodies that read them.

A value is the pickled result of a Dask task, and lives as long as its future. A call that has it among its arguments
depends on that task. A long one is a file from the beginning: the process that makes it writes it, one that takes it
below the same Dask worker reads it, and nobody else touches it. Another worker gets the bytes from the first, and lays
them into a file of its own.
"""

from __future__ import annotations

import mmap
import pickle
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scattersphere.worker.longvalues import FOLDER, read_value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path


class LongValue:
    """A pickled result in a file at the Dask worker where it was made; elsewhere it is a view of its bytes.

    The file lives as long as this does, which is as long as Dask keeps the result. Dask takes this for as small as it
    is, so a worker spills nothing to its disk which is there already; where the value is to be read, Dask's scheduler
    knows by what is ours in it.
    """

    def __init__(self, file: Path, size: int) -> None:
        self.file: Path = file
        self.size: int = size
        weakref.finalize(self, file.unlink, missing_ok=True)

    def read(self) -> memoryview:
        """Return the pickle. Raises OSError if its file is gone."""
        return _view_of(self.file)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Nothing of ours in it: another Dask worker may have no scattersphere to import.
        view = self.read()
        if protocol < OUT_OF_BAND:  # through Dask's scheduler
            return bytes, (bytes(view),)
        return memoryview, (pickle.PickleBuffer(view),)


def take_file(file: Path) -> memoryview:
    """Return the pickle in a file, which is there no longer than this. Raises OSError if its file is gone."""
    view = _view_of(file)
    file.unlink()
    return view


def _view_of(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


Stored = bytes | memoryview | LongValue
"""The result of a Dask task of ours."""


def pickle_of(stored: Stored) -> bytes | memoryview:
    """Return the pickle in it."""
    return stored.read() if isinstance(stored, LongValue) else stored


OUT_OF_BAND = 5
"""The pickle protocol from which on buffers are not copied into the pickle."""
_SHOWN = 1024


class _Packing(threading.local):
    """Where a thread that packs arguments collects the values among them."""

    found: list[DaskValue] | None = None
    number: int = 0


_packing = _Packing()


class DaskValue:
    """A result that has stayed on a Dask cluster; released there when nobody holds this any more (`RemoteValue`)."""

    def __init__(
        self,
        future: object,
        name: str,
        kind: str,
        size: int,
        fetch: Callable[[Any], Coroutine[Any, Any, Any]],
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
        stored = await self._fetch(self.future)
        if stored is None:
            raise LookupError(
                f"the result of {self._name} was lost with the Dask worker that had it; run again"
            )
        return pickle.loads(pickle_of(stored))  # noqa: S301 - from a worker of ours

    def __reduce__(self) -> Any:
        if _packing.found is None:
            raise TypeError(
                f"the result of {self._name} is on a Dask cluster, and only tasks there take it as it is; "
                "bring it here with: await value.fetch()"
            )
        _packing.found.append(self)
        return read_value, (_name(_packing.number, len(_packing.found) - 1),)


@contextmanager
def packing(number: int) -> Iterator[list[DaskValue]]:
    """Let this thread pickle values in what it sends for a call; they are collected in what is given."""
    _packing.found, _packing.number = [], number
    try:
        yield _packing.found
    finally:
        _packing.found = None


def _name(number: int, index: int) -> str:
    return f"{number}-{index}"


@contextmanager
def laid_out(store: Path, number: int, values: tuple[Stored | None, ...]) -> Iterator[None]:
    """Have the values of a call in files. Raises LookupError if one was lost."""
    if not values:
        yield
        return
    if None in values:
        raise LookupError("a result that it takes was lost with the Dask worker that had it; run again")
    folder = store / FOLDER
    files = [folder / _name(number, index) for index in range(len(values))]
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for file, value in zip(files, values, strict=True):
            assert value is not None  # noqa: S101 - for type checkers
            if isinstance(value, LongValue):
                file.symlink_to(value.file)
            else:
                file.write_bytes(pickle_of(value))
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

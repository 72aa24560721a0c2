"""What one engine has in a Dask worker: the code of its bundles, and the processes in which its calls execute."""

from __future__ import annotations

import fcntl
import pickle
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scattersphere.engine.backends.workerprocess import IdleWorkers, is_exhausted
from scattersphere.ext.dask.messages import Signal
from scattersphere.registry.parcels import Parcel, unpack
from scattersphere.registry.snapshots.store import STORE_VARIABLE, SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from scattersphere.worker.process import WorkerProcess

PIPE_BYTES = 2**20
"""Room in the pipes of a process: a large value in pieces of 64 KiB wakes both ends a thousand times."""

VERSIONS_KEPT = 64
"""Versions of one engine whose files a Dask worker keeps; it asks again for those that it has let go of."""


class Guest:
    """What one engine has in a Dask worker: the versions of its bundles, and processes in which they execute."""

    def __init__(self, folder: Path, limit: int, place: str) -> None:
        self.left = False
        """Whether the engine has gone."""
        self.place = place
        self._store = SnapshotStore(folder)
        store = {STORE_VARIABLE: str(self._store.folder)}
        self._workers = IdleWorkers(limit, lambda: store, None)
        self._versions: dict[str, str] = {}
        """Private name and digest, the one that was used last at the end."""
        self._unpacking = threading.Lock()

    @property
    def store(self) -> Path:
        """The folder of the engine's code, and of values while calls read them."""
        return self._store.folder

    # ---- code

    def have(self, fetch: Callable[[Signal, bytes], Any], code: Iterable[tuple[str, str]]) -> None:
        """Get the versions that are not here, by `fetch`, from the engine. One call asks, the others wait for it.

        Raises BundleRefusedError for bytes that have another digest, LookupError for what the engine has not either.
        """
        with self._unpacking:
            lacking = []
            for slug, digest in code:
                if self._versions.pop(slug, None) == digest:
                    self._versions[slug] = digest
                else:
                    lacking.append(slug)
            if lacking:
                parcels = fetch(Signal.LACKS, pickle.dumps(lacking))
                for fields in parcels:
                    parcel = Parcel(*fields)
                    unpack(parcel, self._store)
                    self._versions[parcel.slug] = parcel.digest
                self._forget_some()

    def _forget_some(self) -> None:
        while len(self._versions) > VERSIONS_KEPT:
            slug = next(iter(self._versions))
            del self._versions[slug]
            self._store.discard(slug)

    # ---- processes

    def take(self) -> WorkerProcess:
        """Return a process for one call. Raises OSError where the system has none for us."""
        while (worker := self._workers.take()) is not None:
            if not is_exhausted(worker):
                return worker
            self._workers.stop(worker)
        worker = self._workers.start(self._workers.environment())
        for end in (worker.calls.descriptor, worker.replies.descriptor):
            with suppress(OSError, AttributeError):  # more than this user may have; not Linux
                fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return worker

    def put(self, worker: WorkerProcess) -> None:
        """Take a process back."""
        self._workers.put(worker)
        if self.left:
            self._stop_idle()

    def reap(self, worker: WorkerProcess) -> str:
        """Take leave of a process that is ending, and say how it ended."""
        return self._workers.reap(worker)

    def describe(self, worker: WorkerProcess) -> str:
        """Name a process, for people."""
        return f"process {worker.pid} of the Dask worker {self.place}"

    def close(self) -> None:
        """End the processes that have no call, and delete the code. May take a second."""
        self._stop_idle()
        self._store.close()

    def _stop_idle(self) -> None:
        while (worker := self._workers.take()) is not None:
            self._workers.stop(worker)

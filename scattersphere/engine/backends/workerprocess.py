"""The idle worker processes of one backend: kept warm, replaced, at most so many."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from scattersphere.registry.modules.namespace import FINDER
from scattersphere.worker.process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.worker.process import LateLine

VERSIONS_KEPT = 16
"""Bundle versions that a worker loads before it is replaced: old versions are never unloaded in it."""


class IdleWorkers:
    """A stack: the worker that was used last is the warmest. For any thread."""

    def __init__(
        self, limit: int, environment: Callable[[], Mapping[str, str]], on_late_line: LateLine | None
    ) -> None:
        self.limit = limit
        self.environment: Callable[[], Mapping[str, str]] = environment
        """Asked before each call for variables that the worker needs."""
        self._on_late_line = on_late_line
        self._stack: deque[WorkerProcess] = deque()
        self._guard = threading.Lock()
        self._count = 0

    def __len__(self) -> int:
        return len(self._stack)

    def take(self) -> WorkerProcess | None:
        """Return an idle worker, which is nobody else's then; None where there is none."""
        try:
            return self._stack.pop()
        except IndexError:
            return None

    def put(self, worker: WorkerProcess) -> None:
        """Give a worker back."""
        self._stack.append(worker)

    def start(self, environment: Mapping[str, str]) -> WorkerProcess:
        """Start a process. Raises OSError where the system has none for us."""
        worker = WorkerProcess(environment, self._on_late_line)
        with self._guard:
            self._count += 1
        return worker

    def reap(self, worker: WorkerProcess) -> str:
        """Take leave of one that is ending, and say how it ended."""
        self._gone()
        return worker.reap()

    def stop(self, worker: WorkerProcess) -> None:
        """End one that has no call."""
        self._gone()
        worker.stop()

    def refill(self) -> None:
        """Start a worker in the place of one that has gone, if there is not a full number already."""
        with self._guard:
            missing = self._count < self.limit
        if missing:
            # At the other end: a call would wait for its start, while a warm one may be there.
            self._stack.appendleft(self.start(self.environment()))

    def _gone(self) -> None:
        with self._guard:
            self._count -= 1


def is_exhausted(worker: WorkerProcess, module: str = "") -> bool:
    """Whether it is better replaced: it ran out of memory, or holds many versions.

    For code in `module` also if it holds another version of that bundle which has something to undo: in a worker
    nobody undoes it.
    """
    if worker.exhausted or len(worker.versions) > VERSIONS_KEPT:
        return True
    version = version_of(module) if worker.hooked else ""
    return worker.hooked.get(_bundle_of(version), version) != version


def note_version(worker: WorkerProcess, module: str) -> None:
    """Note the version that a worker has loaded for a call."""
    version = version_of(module)
    if version in worker.versions:
        return
    worker.versions.add(version)
    namespace = FINDER.namespace(version.rpartition(".")[2])
    if namespace is not None and namespace.has_hooks:
        worker.hooked[_bundle_of(version)] = version


def version_of(module: str) -> str:
    """Name the bundle version that a module belongs to; "" for modules of the host."""
    return ".".join(module.split(".")[:3]) if module.startswith("scattersphere.bundles.") else ""


def _bundle_of(version: str) -> str:
    return version.rpartition("_g")[0]

"""A Dask cluster in a process of its own, for tests that must not find its threads and files among their own.

Writes the scheduler's address when it is ready, obeys lines (`scale N`), and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def main(port: int, workers: int, folder: str, resources: str) -> None:
    import dask
    from distributed import LocalCluster

    dask.config.set(
        {"distributed.logging.distributed": "critical", "distributed.worker.profile.enabled": False}
    )
    given = {name: int(amount) for name, amount in (each.split("=") for each in resources.split(",") if each)}
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        scheduler_port=port,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        local_directory=folder,
        silence_logs=50,
        resources=given or None,
    ) as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        for line in sys.stdin:
            cluster.scale(int(line.split()[1]))


class Cluster:
    """Such a process, seen from a test."""

    def __init__(self, folder: Path, *, port: int = 0, workers: int = 2, resources: str = "") -> None:
        arguments = [str(port), str(workers), str(folder), resources]
        path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)},
            start_new_session=True,  # so that all of it can be killed at once
            cwd=folder,
        )
        assert self._process.stdout is not None
        self.address: str = self._process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def scale(self, workers: int) -> None:
        """Have so many workers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"scale {workers}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End scheduler and workers at once, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._end()

    def close(self) -> None:
        """End it in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._end()

    def _end(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def cluster(folder: Path, **options: int | str) -> Iterator[Cluster]:
    made = Cluster(folder, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])

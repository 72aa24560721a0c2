"""A Dask cluster in a process of its own, for tests that must not find its threads and files among their own.

Writes the scheduler's address when it is ready, obeys lines (`scale N`), and ends when its standard input does. Where the
environment has FAR, as "LATENCY LOSS", each worker is at the other end of such a link (far_network.py), in the folder
`far-1`, `far-2`, ... of the cluster's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


FAR = os.environ.get("FAR", "")


def start_far(number: int, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a Dask worker at the other end of a link of its own."""
    near = f"10.213.{number}.1"
    folder.mkdir()
    link = [
        sys.executable,
        str(Path(__file__).with_name("far_network.py")),
        near,
        f"10.213.{number}.2",
        *FAR.split(),
    ]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{near}:{port}", "--nthreads", "1"]
    worker += ["--no-dashboard", "--local-directory", str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([*link, *worker], cwd=folder, stderr=log)


async def main_of_far_workers(port: int, workers: int, folder: Path) -> None:
    from distributed import Scheduler

    async with Scheduler(host="0.0.0.0", port=port, dashboard_address="127.0.0.1:0") as scheduler:
        folders = [folder / f"far-{number}" for number in range(1, workers + 1)]
        started = [start_far(number, scheduler.port, each) for number, each in enumerate(folders, 1)]
        while len(scheduler.workers) < workers:
            for own, each in zip(folders, started, strict=True):
                if each.poll() is not None:
                    raise RuntimeError((own / "log").read_text())
            await asyncio.sleep(0.02)
        sys.stdout.write(f"tcp://127.0.0.1:{scheduler.port}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        for each in started:
            each.terminate()
        for each in started:
            each.wait()


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

    def far(self, worker: int) -> Path:
        """Return the folder of the Dask worker that has that process id: the file `cut` there cuts its link."""
        return Path(f"/proc/{worker}/cwd").readlink()

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


def values_of(label: str, dask_worker: Any) -> list[tuple[str, str, int, int]]:
    """Say what a Dask worker has of tasks with that label: class, file, size there and in memory; to be sent there."""
    from dask.sizeof import sizeof

    return [
        (type(value).__name__, str(value.file), value.file.stat().st_size, sizeof(value))
        for key, value in dask_worker.data.items()
        if str(key).startswith(label)
    ]


if __name__ == "__main__":
    if FAR:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # a worker gets values from another one
        asyncio.run(main_of_far_workers(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

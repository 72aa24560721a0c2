"""Run the weather job on a Dask cluster: `python on_a_cluster.py [ADDRESS]`.

Without an address it starts a cluster of two worker processes on this machine. With that of a scheduler
(`tcp://HOST:8786`) it uses that; the folder of the data must then be one that all machines see.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import anyio
from distributed import LocalCluster

from scattersphere import Run, Server
from scattersphere.ext.dask import DaskBackend

HERE = Path(__file__).parent


async def draw(cluster: object, folder: Path) -> Run:
    """Run the job, and write its picture beside its data."""
    async with Server(backends={"dask": DaskBackend(cluster)}, bundle_roots=[HERE / "weather"]) as server:
        job = await server.load(HERE / "weather" / "weather.json")
        run = await (await server.start(job.name, {"folder": str(folder)})).wait()
        print(run.explain())
        if run.succeeded:
            (folder / "year.svg").write_text(run.results["plot"], encoding="utf-8")
        return run


def main() -> None:
    """Find a cluster, or make one."""
    folder = Path(tempfile.gettempdir(), "weather-data")
    if len(sys.argv) > 1:
        run = anyio.run(draw, sys.argv[1], folder)
    else:
        with LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=50,
        ) as cluster:
            run = anyio.run(draw, cluster, folder)
    if not run.succeeded:
        sys.exit(1)
    print(f"the picture is {folder / 'year.svg'}")


if __name__ == "__main__":  # each worker process reads this file too: nothing may start above this line
    main()

"""A small live view of all runs of a Server, with rich. Run it: `python live.py`."""

import anyio
from jobs import JOB, Count
from rich.live import Live
from rich.table import Table

from scattersphere import Server


def view(server: Server) -> Table:
    """Draw the runs as they are now."""
    table = Table("run", "job", "state", "tasks ended", "last")
    for run in server.runs.values():
        ended = sum(status.state.ended for status in run.tasks.values())
        last = run.logs(tail=1)
        table.add_row(
            str(run.id),
            run.job,
            str(run.state),
            f"{ended} of {len(run.tasks)}",
            last[-1].message if last else "",
        )
    return table


async def main() -> None:
    """Start some runs, and draw again whenever the Server tells of something."""
    async with Server(max_runs=2) as server:
        server.register_tasks("app", [Count])
        server.define(JOB)
        runs = [await server.start("count", {"n": n}) for n in (5, 10, 20)]
        with Live(view(server), auto_refresh=False) as live:
            async for _ in server.events():
                live.update(view(server), refresh=True)
                if all(run.state.ended for run in runs):
                    break


anyio.run(main)

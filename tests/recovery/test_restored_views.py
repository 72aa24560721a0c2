"""What people see of a run that has ended is the same whether it is still in memory or was read out of the journal.

The engine's record of an ended run *is* the frozen view: it changes no more, and the journal's rows make another one.
"""

from __future__ import annotations

import random
import time
import types
from typing import TYPE_CHECKING, Any

import anyio
from recoverycases import LONG, Lives, draw_world
from test_recovery_properties import nothing_logged, one_order
from virtualtime import both_loops, run_virtually

from scattersphere import RunState
from scattersphere.engine import timers
from scattersphere.testing import MemoryJournal

if TYPE_CHECKING:
    from scattersphere import Run

SEEDS = (1, 4, 7, 11, 27, 37, 52, 91)
"""Among them: retries, a cancel after a retry, a map over nothing, two failures, a pause, a child run."""


async def seen_of(run: Run) -> dict[str, Any]:
    """Return all that is told of a run, but for what is of this life: numbers of events, the exceptions themselves."""
    return {
        "run": run.as_dict(),
        "words": (run.reason, run.counts, run.waits_for),
        "tasks": {name: (status, run.tasks.instances(name)) for name, status in run.tasks.items()},
        "widths": {name: run.tasks.width(name) for name in run.tasks},
        "failures": list(run.failures),
        "explain": run.explain(),
        "statistics": run.statistics.as_dict(),
        "picture": run.picture(),
        "texts": (run.to_tree(), run.to_dot(), run.to_mermaid(), run.to_svg(), run.to_trace()),
        "notebook": run._repr_html_(),
        "logs": run.logs(),
        "events": [event._replace(seq=0, life=0) async for event in run.events() if event.kind != "log"],
    }


async def check_views(seed: int) -> None:
    lives = Lives(draw_world(random.Random(seed), timely=bool(seed % 2)))
    journal = MemoryJournal()
    async with lives._server(journal) as server:
        lives._define(server)
        with anyio.move_on_after(60):
            await lives._go(server, anyio.Event())
        for other in list(server.runs.values()):
            if other.state in {RunState.PAUSED, RunState.PAUSING}:
                other.resume()
            await other.wait(LONG)
        live = [await seen_of(run) for run in server.runs.values()]
        numbers = list(server.runs)
    async with lives._server(journal.again()) as server:
        lives._define(server)
        assert not server.runs
        for number, mine in zip(numbers, live, strict=True):
            restored = await seen_of(await server.history.get(number))
            for name, what in mine.items():
                assert restored[name] == what, f"{name} of run {number}, seed {seed}"


@both_loops
def test_the_view_of_a_live_run_is_the_view_restored_from_the_journal(backend, monkeypatch):
    # Whole seconds on the wall, and halves by the clock: times are equal to the microsecond.
    clocks = types.SimpleNamespace(
        time=lambda: 1_800_000_000.0, monotonic=lambda: 0.0, perf_counter=time.perf_counter
    )
    monkeypatch.setattr(timers, "time", clocks)

    async def main() -> None:
        for seed in SEEDS:
            order(seed)
            await check_views(seed)

    with nothing_logged(), one_order(backend) as order:
        run_virtually(backend, main)

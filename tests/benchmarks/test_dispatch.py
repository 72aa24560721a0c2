"""The yardsticks must do the work that they are said to do, else their ratios are worth nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from benchmarks.baselines import ASYNCIO, TRIO, Links
from benchmarks.graphs import SHAPES

LOOPS = [("asyncio", loop) for loop in ASYNCIO.values()] + [("trio", loop) for loop in TRIO.values()]


@pytest.mark.parametrize(("backend", "loop"), LOOPS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_baseline_awaits_every_body_once(backend, loop, shape) -> None:
    graph = SHAPES[shape](250)
    calls = 0

    async def body() -> None:
        nonlocal calls
        await anyio.lowlevel.checkpoint()
        calls += 1

    anyio.run(loop, Links.of(graph), body, backend=backend)
    assert calls == len(graph)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_has_its_size_and_only_looks_back(shape) -> None:
    graph = SHAPES[shape](250)
    assert len(graph) == 250
    assert all(upstream < index for index, upstreams in enumerate(graph) for upstream in upstreams)


@pytest.mark.needs("trio")
@pytest.mark.parametrize("options", [[], ["--trio"]])
def test_the_benchmark_runs(options) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "dispatch",
        "--sizes",
        "100",
        "200",
        "--repetitions",
        "1",
        *options,
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "growth from 100 to 200, layered, no-op:" in done.stdout

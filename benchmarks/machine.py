"""The cost of a task in the pure machine alone: `python -m benchmarks machine [repetitions]`.

The baseline is Kahn's loop written by hand, without states, journal, results or limits. Beside it
stands what the machine takes on its hot path (`take`, `begin`, `ok`), on its general path (a job with a
limit), and what a whole ended run keeps in memory for each task.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tracemalloc
from collections import deque
from time import perf_counter

from benchmarks.graphs import Graph, chain, layered, wide
from scattersphere.engine.machine import CompiledGraph, Dispatcher, RunMachine, StartDecision, TaskSpec

SIZES = (1_000, 10_000, 100_000)
BATCH = 32


def kahn(successors: list[tuple[int, ...]], degrees: list[int]) -> float:
    started = perf_counter()
    waited = degrees.copy()
    ready = deque(index for index, degree in enumerate(waited) if not degree)
    done = 0
    while ready:
        index = ready.popleft()
        done += 1
        for successor in successors[index]:
            waited[successor] -= 1
            if not waited[successor]:
                ready.append(successor)
    assert done == len(degrees)
    return perf_counter() - started


def run_machine(graph: CompiledGraph, machines: list[RunMachine] | None = None) -> float:
    started = perf_counter()
    dispatcher = Dispatcher()
    machine = RunMachine(graph, 1, dispatcher, lambda _: StartDecision.GO)
    machine.slot()
    take, begin, ok = dispatcher.take, machine.begin, machine.ok
    while (taken := take(BATCH)) is not None:
        for unit in taken[1]:
            if begin(unit):
                ok(unit, None)
    took = perf_counter() - started
    assert machine.record.is_over
    if machines is not None:
        machines.append(machine)
    return took


def kept_bytes(graph: CompiledGraph) -> float:
    """Return what a compacted, ended run keeps for each task, results not counted."""
    gc.collect()
    tracemalloc.start()
    machines: list[RunMachine] = []
    run_machine(graph, machines)
    machines[0].compact()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / graph.size


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"Python {sys.version.split()[0]}, medians of {repetitions}; us for each task (times Kahn)")
    print(f"{'graph':8} {'tasks':>7}  {'Kahn':>6}  {'hot path':>14}  {'with a limit':>14}  {'kept':>9}")
    for size in SIZES:
        for graph in (wide, chain, layered):
            measure(graph.__name__, graph(size), repetitions)


def measure(name: str, graph: Graph, repetitions: int) -> None:
    size = len(graph)
    hot = CompiledGraph([TaskSpec(upstreams=upstreams) for upstreams in graph])
    limited = CompiledGraph([TaskSpec(upstreams=upstreams) for upstreams in graph], max_parallel=BATCH)
    times: dict[str, list[float]] = {"kahn": [], "hot": [], "limited": []}
    for _ in range(max(3, repetitions * 10_000 // max(size, 10_000))):
        gc.collect()
        times["kahn"].append(kahn(hot.successors, hot.degrees))
        times["hot"].append(run_machine(hot))
        times["limited"].append(run_machine(limited))
    base, fast, slow = (statistics.median(times[key]) / size * 1e6 for key in ("kahn", "hot", "limited"))
    print(
        f"{name:8} {size:7}  {base:6.3f}  {fast:6.3f} ({fast / base:4.1f})  "
        f"{slow:6.3f} ({slow / base:4.1f})  {kept_bytes(hot):5.0f} B",
        flush=True,
    )


if __name__ == "__main__":
    main()

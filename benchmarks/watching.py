"""What watching costs, and that nothing goes wrong in a storm of replacements.

Three things: the time from a write to its being current, beside a bare watchfiles loop that imports the file anew,
in turns; the processor time of 200 watched bundles when nothing happens; and a storm, in which bundles are replaced
50 times a second while runs go on.

Run `python -m benchmarks watching`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import watchfiles

from scattersphere import EventKind, JobDefinition, Server, WatchDelays

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from scattersphere import Run

TASK = """from scattersphere import RunnableTask
VALUE = {value!r}
class Job(RunnableTask):
    def run(self, context):
        return VALUE
"""
GOAL_MS, GOAL_PERCENT = 300.0, 1.0


# ---- from a write to its being current


async def latencies(root: Path, samples: int, delays: WatchDelays) -> list[float]:
    """Write a bundle again and again; return the seconds until each content was the current version."""
    file = root / "small.py"
    file.write_text(TASK.format(value="start"))
    found = []
    async with Server(watch=delays) as server:
        bundle = await server.register(file)
        for sample in range(samples):
            before, cursor = bundle.current, server.last_event
            beside = root / ".small.new"
            beside.write_text(TASK.format(value=sample))
            began = time.perf_counter()
            if sample % 2:
                beside.replace(file)
            else:
                file.write_bytes(beside.read_bytes())
            async for event in server.events(cursor):
                if event.kind is EventKind.BUNDLE_LOADED and bundle.current is not before:
                    break
            found.append(time.perf_counter() - began)
    return found


def baseline(root: Path, samples: int, settle: float) -> list[float]:
    """Do the same with a loop of watchfiles that imports the module anew when `settle` seconds were quiet."""
    file = root / "plain.py"
    file.write_text(TASK.format(value="start"))
    sys.path.insert(0, str(root))
    module = importlib.import_module("plain")
    found, began = [], 0.0
    loaded, stop = threading.Event(), threading.Event()

    def follow() -> None:
        for _ in watchfiles.watch(root, step=int(settle * 1000), debounce=60_000, stop_event=stop):
            importlib.invalidate_caches()
            importlib.reload(module)
            found.append(time.perf_counter() - began)
            loaded.set()

    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.3)  # until it watches; it does not say when
    for sample in range(samples):
        loaded.clear()
        began = time.perf_counter()
        file.write_text(
            TASK.format(value=f"{sample:{8 + sample}}")
        )  # of a new size, or it would load stale code
        loaded.wait(30)
    stop.set()
    thread.join()
    sys.path.remove(str(root))
    return found


def in_turns(root: Path, samples: int) -> dict[str, list[float]]:
    """Take the samples of all three in four turns; return the seconds of each."""
    found: dict[str, list[float]] = {"ours": [], "theirs": [], "quick": []}
    for turn in range(4):
        for name, seconds in found.items():
            place = root / f"{name}{turn}"
            place.mkdir()
            if name == "theirs":
                seconds.extend(baseline(place, samples // 4, 0.2))
                sys.modules.pop("plain", None)
            else:
                delays = WatchDelays() if name == "ours" else WatchDelays(settle=0.02)
                seconds.extend(anyio.run(latencies, place, samples // 4, delays))
    return found


# ---- idle


async def idle(root: Path, bundles: int, seconds: float) -> tuple[float, float, float]:
    """Watch many bundles of which nothing happens; return the percent of a core: idle, unwatched, and the pause."""
    folder = root / "many"
    folder.mkdir()
    for number in range(bundles // 2):
        (folder / f"module{number}.py").write_text(TASK.format(value=number))
        package = folder / f"package{number}"
        package.mkdir()
        (package / "__init__.py").write_text(TASK.format(value=number))
        for name in ("a", "b", "c", "d"):
            (package / f"{name}.py").write_text(f"VALUE = {name!r}\n")
    shares = []
    pause = 0.0
    for watch in (True, False):
        async with Server(bundle_roots=[folder], watch=watch) as server:
            assert len(server.registry.bundles) == bundles
            await anyio.sleep(3)
            gc.collect()
            began = time.process_time()
            await anyio.sleep(seconds)
            shares.append((time.process_time() - began) / seconds * 100)
            watcher = server._bundles.watcher  # noqa: SLF001 - what it chose is shown
            if watcher is not None:
                pause = watcher._poll_pause  # noqa: SLF001 - the same
    return shares[0], shares[1], pause


# ---- the storm

PACKAGE = """from scattersphere import RunnableTask
from etl import part
HERE = {value!r}
class Job(RunnableTask):
    after: list[str] = []
    def run(self, context):
        first = (HERE, part.HERE)
        import time; time.sleep(0.004)
        from etl import late  # for the first time, and after the folder may have changed
        return (*first, late.HERE)
"""
SOLO = """from scattersphere import RunnableTask
HERE = {value!r}
FILLING = [
{filling}]
class Job(RunnableTask):
    after: list[str] = []
    def run(self, context):
        return (HERE, THERE)
THERE = {value!r}
"""
FILLING = "    'a line of text that takes room',\n" * 500
"""So long that half of the module ends inside it: half a module that could be loaded would be a version too."""
SAME_TIME = 1_000_000_000


@attrs.define
class StormReport:
    """What a storm came to."""

    replacements: int = 0
    loads: int = 0
    failures: int = 0
    runs: int = 0
    mixed: list[str] = attrs.field(factory=list)
    """Runs that saw more than one version, or a half one."""
    last: dict[str, object] = attrs.field(factory=dict)
    """What the task of each bundle returns in the end."""
    wanted: dict[str, object] = attrs.field(factory=dict)
    left: list[str] = attrs.field(factory=list)
    """What is still there after the server was closed."""


class Storm:
    """Replaces two bundles in a thread: a package behind a link, swapped; a module, written over in place."""

    def __init__(self, root: Path, rate: float) -> None:
        self.root = root
        self.pause = 1 / rate
        self.count = 0
        self.stop = threading.Event()

    def begin(self) -> None:
        """Write the first version of each."""
        self._package(0, "good")
        self._solo(0, "good")

    def blow(self) -> None:
        """Go on until told to stop; the last content is good."""
        began = time.monotonic()
        while not self.stop.wait(max(0.0, began + self.count * self.pause - time.monotonic())):
            self.count += 1
            what = ("good", "broken", "same size", "torn")[self.count % 4]
            self._package(self.count, what)
            self._solo(self.count, what)
        self.count += 1
        self._package(self.count, "good")
        self._solo(self.count, "good")

    def _package(self, number: int, what: str) -> None:
        folder = self.root / f"v{number}" / "etl"
        folder.mkdir(parents=True)
        text = PACKAGE.format(value=f"{number:06}")
        if what == "broken":
            text = text.replace("class Job", "class class")
        if what == "torn":
            text = text[: len(text) // 2] + "'''"
        for name, content in (
            ("__init__.py", text),
            ("part.py", f"HERE = '{number:06}'\n"),
            ("late.py", f"HERE = '{number:06}'\n"),
        ):
            (folder / name).write_text(content)
            os.utime(folder / name, (SAME_TIME, SAME_TIME))
        link = self.root / "new"
        link.symlink_to(f"v{number}")
        link.replace(self.root / "current")

    def _solo(self, number: int, what: str) -> None:
        text = SOLO.format(value=f"{number:06}", filling=FILLING)
        if what == "broken":
            text = text.replace("class Job", "raise SystemExit(3)\nclass Job")
        file = self.root / "solo.py"
        with file.open("w") as stream:
            stream.write(text[: len(text) // 2])
            stream.flush()
            if what == "torn":
                time.sleep(self.pause / 2)
            stream.write(text[len(text) // 2 :])
        os.utime(file, (SAME_TIME, SAME_TIME))


async def storm(root: Path, seconds: float, *, rate: float = 50, settle: float = 0.004) -> StormReport:
    """Run jobs of three tasks over both bundles while they are replaced `rate` times a second."""
    blowing, report = Storm(root, rate), StormReport()
    blowing.begin()
    async with Server(watch=WatchDelays(settle=settle, vanish=5, poll=0.5), history=(10_000, 600)) as server:
        await server.register(root / "current" / "etl")
        await server.register(root / "solo.py")
        server.define(_chain("etl", "etl.Job"))
        server.define(_chain("solo", "solo.Job"))
        async with anyio.create_task_group() as group, _stopping(blowing):
            group.start_soon(anyio.to_thread.run_sync, blowing.blow)
            end = anyio.current_time() + seconds
            runs: list[Run] = []
            while anyio.current_time() < end:
                runs += [await server.start("etl"), await server.start("solo")]
                for run in runs[-12:-10]:
                    await run.wait(60)
                await anyio.sleep(0.005)
        for run in runs:
            await run.wait(60)
            report.mixed += _mixed(run)
        report.replacements, report.runs = blowing.count, len(runs)
        report.wanted = dict.fromkeys(("etl", "solo"), f"{blowing.count:06}")
        report.last = await _last(server, report.wanted)
        for name in report.wanted:
            bundle = server.registry.bundles[name]
            report.left += [f"{version} of {name}" for version in bundle.versions]
        events = [event async for event in _so_far(server)]
        report.loads = sum(event.kind is EventKind.BUNDLE_LOADED for event in events)
        report.failures = sum(event.kind is EventKind.BUNDLE_FAILED for event in events)
    prefix = "scattersphere.bundles."
    report.left += [name for name in sys.modules if name.startswith((f"{prefix}etl_", f"{prefix}solo_"))]
    return report


@asynccontextmanager
async def _stopping(blowing: Storm) -> AsyncIterator[None]:
    try:
        yield
    finally:
        blowing.stop.set()


def _chain(name: str, path: str) -> JobDefinition:
    job = JobDefinition.build(name)
    for number in range(3):
        job = job.task(f"t{number}", path, depends_on=[f"t{number - 1}"] if number else [])
    return job.done()


def _mixed(run: Run) -> list[str]:
    seen = {value for result in run.results.values() for value in result}
    return [] if run.succeeded and len(seen) == 1 else [f"{run}: {sorted(seen)} {run.explain()}"]


async def _last(server: Server, wanted: dict[str, object]) -> dict[str, object]:
    """Wait until the last contents are current, at most a minute; return what the tasks say."""

    def values() -> dict[str, object]:
        return {name: server.registry.find(f"{name}.Job").cls().run(None)[0] for name in wanted}  # type: ignore[arg-type, index]

    with anyio.move_on_after(60):
        events = server.events(server.last_event)
        while values() != wanted:
            with anyio.move_on_after(1):
                await anext(events)
    return values()


async def _so_far(server: Server) -> AsyncIterator[Any]:
    last = server.last_event
    if last:
        async for event in server.events():
            yield event
            if event.seq >= last:
                return


# ---- all


def show_delays(
    output: Callable[[str], None], root: Path, samples: int, bundles: int, seconds: float
) -> None:
    """Print how long a write takes to become current, and what watching costs while nothing happens."""
    found = in_turns(root, samples)
    ours, theirs, quick = (statistics.median(times) * 1000 for times in found.values())
    worst = max(found["ours"]) * 1000
    output(f"write to current, settle 0.2 s       {ours:7.1f} ms  (goal {GOAL_MS:g}; worst {worst:.1f})")
    output(f"watchfiles and importlib.reload      {theirs:7.1f} ms  {ours / theirs:.2f} x")
    output(f"write to current, settle 0.02 s      {quick:7.1f} ms")
    watched, unwatched, pause = anyio.run(idle, root, bundles, seconds)
    output(
        f"{bundles} bundles watched, idle            {watched:7.2f} % of a core (goal {GOAL_PERCENT:g}; "
        f"unwatched {unwatched:.2f}; a poll each {pause:.1f} s)"
    )


def main(output: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--bundles", type=int, default=200)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds for which nothing happens")
    parser.add_argument("--storm", type=float, default=60.0, help="seconds of the storm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        show_delays(output, root, options.samples, options.bundles, options.idle)
        (root / "storm").mkdir()
        report = anyio.run(storm, root / "storm", options.storm)
        output(
            f"storm: {report.replacements} replacements, {report.loads} loads, {report.failures} failed ones, "
            f"{report.runs} runs, {len(report.mixed)} mixed, last content "
            f"{'current' if report.last == report.wanted else 'LOST'}, left behind: {report.left or 'nothing'}"
        )


if __name__ == "__main__":
    main()

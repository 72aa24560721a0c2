"""The pages: first paint, ten thousand tasks, bytes and requests over the wire, and for how long a page holds the loop.

`python -m benchmarks pages`. The servers are those of `tests/web/showcase.py`, with a thousand runs; the browser is a
Chromium (`CHROMIUM=PATH`), and needs Playwright. How long the loop is held is measured in this process, without a
browser: by the processor time of the loop's thread between two wakes of a task that sleeps a millisecond.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx

from scattersphere import web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.limits import Limits

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "web"))
GOALS = {"first paint": 0.5, "whole": 1.5, "wire": 60_000, "held": 20.0}
ROUNDS = 5
PAGES = (
    ("overview", "/"),
    ("jobs", "/jobs"),
    ("a thousand runs", "/runs"),
    ("runs by time taken", "/runs?sort=took"),
    ("bundles", "/bundles"),
    ("schedules", "/schedules"),
    ("run of 20 tasks", "/runs/{ok}"),
    ("failed map of 5,000", "/runs/{map}?task=resize"),
    ("run of 10,000 tasks", "/runs/{big}"),
)


def said(found: float, goal: float) -> str:
    """Return a verdict in a word."""
    return "holds" if found <= goal else "MISSED"


async def held_by_pages() -> None:
    """Print for how long each page holds the loop, and what it is over the wire."""
    import logging  # noqa: PLC0415 - what fails in the showcase is meant to

    import showcase  # noqa: PLC0415 - a program beside the tests

    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            server, runs = await showcase.full(stack, Path(folder))

            async def authorize(scope: Any) -> Principal:
                del scope
                return Principal(user="bench", role=Role.ADMIN)

            app = web.app(server, authorize=authorize, limits=Limits(rate=1e9, burst=10**9))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
            await client.get("/")
            print(f"{'page':22} {'whole':>9} {'processor':>10} {'loop held':>10} {'bytes':>9} {'wire':>8}")
            worst = 0.0
            for name, path in PAGES:
                page, took, used, held = await measured(client, path.format(**runs))
                worst = max(worst, held)
                size = await over_the_wire(client, path.format(**runs))
                times = f"{took * 1e3:6.0f} ms {used * 1e3:7.0f} ms {held:7.1f} ms"
                print(f"{name:22} {times} {len(page.content):9,} {size:8,}")
            verdict = said(worst, GOALS["held"])
            print(f"\nthe loop is held by a page for {worst:.1f} ms   goal <= {GOALS['held']:g}: {verdict}")
            page = await client.get(PAGES[6][1].format(**runs))
            links = [
                part.split('"')[0] for part in page.text.split('="')[1:] if "/static/" in part.split('"')[0]
            ]
            assets = [link for link in dict.fromkeys(links) if "icon" not in link]
            wire = sum([await over_the_wire(client, link) for link in (PAGES[6][1].format(**runs), *assets)])
            names = ", ".join(link.split("/")[-1].split("?")[0] for link in assets)
            print(f"requests beside the page       {len(assets)} ({names})")
            verdict = said(wire, GOALS["wire"])
            print(f"page of 20 tasks, all of it    {wire:,} bytes   goal <= {GOALS['wire']:,}: {verdict}")
            for run in server.runs.values():
                if not run.state.ended:
                    run.kill()


async def measured(client: httpx.AsyncClient, path: str) -> tuple[httpx.Response, float, float, float]:
    """Return a page, the least seconds and processor time that it takes, and the longest hold of the loop (median)."""
    takes, useds, helds = [], [], []
    turns: list[float] = []

    async def neighbour() -> None:
        before = time.thread_time()
        while True:
            await anyio.sleep(0.001)
            now = time.thread_time()
            turns.append((now - before) * 1e3)
            before = now

    async with anyio.create_task_group() as group:
        group.start_soon(neighbour)
        for _ in range(ROUNDS):
            await anyio.sleep(0.01)
            turns.clear()
            begun, busy = time.perf_counter(), time.process_time()
            page = await client.get(path)
            useds.append(time.process_time() - busy)
            takes.append(time.perf_counter() - begun)
            await anyio.sleep(0.003)
            helds.append(max(turns))
        group.cancel_scope.cancel()
    return page, min(takes), min(useds), statistics.median(helds)


async def over_the_wire(client: httpx.AsyncClient, path: str) -> int:
    """Return the bytes that a browser is sent."""
    async with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        return sum([len(chunk) async for chunk in answer.aiter_raw()])


def painted() -> None:
    """Print when a browser has painted first, and when it has the whole of the page."""
    import shots  # noqa: PLC0415 - a program beside the tests

    if (path := shots.chromium()) is None:
        print("there is no chromium: nothing was painted")
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the group `browser`

    showcase = shots.Showcase("full")
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=path, args=shots.FLAGS)
            scene = showcase.links()["full"]
            page = browser.new_page(bypass_csp=True)  # what waits for the paint is evaluated
            page.goto(scene["link"])
            for name, run in (("20 tasks", "ok"), ("10,000 tasks", "big")):
                found = []
                for _ in range(ROUNDS):
                    page.goto(f"{scene['base']}/runs/{scene['runs'][run]}", wait_until="load")
                    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
                    found.append(
                        page.evaluate(
                            "[performance.getEntriesByName('first-contentful-paint')[0].startTime,"
                            " performance.getEntriesByType('navigation')[0].loadEventStart]"
                        )
                    )
                paint, whole = (min(times) / 1e3 for times in zip(*found, strict=True))
                print(
                    f"run of {name:12} first paint {paint:.2f} s: {said(paint, GOALS['first paint'])}, "
                    f"whole {whole:.2f} s: {said(whole, GOALS['whole'])}   (best of {ROUNDS})"
                )
            browser.close()
    finally:
        showcase.close()


if __name__ == "__main__":
    anyio.run(held_by_pages)
    painted()

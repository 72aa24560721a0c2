"""Pictures of every page in every state, by day, by night and on a phone: `make shots`, or `python tests/web/shots.py FOLDER`.

Needs a Chromium (`CHROMIUM=PATH`, or the one of Debian) and Playwright. What it makes is to be looked at, not kept.
`--readme FILE` makes the one picture that the README shows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--no-proxy-server",
]
THEMES = {
    "light": {"viewport": {"width": 1180, "height": 820}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1180, "height": 820}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 820},
        "color_scheme": "light",
        "has_touch": True,
        "device_scale_factor": 1.5,
    },
}
PAGES = {
    # name: scene, path ({word} is a run of the scene), what is done there first
    "nothing-overview": ("nothing", "/", None),
    "nothing-jobs": ("nothing", "/jobs", None),
    "nothing-runs": ("nothing", "/runs", None),
    "nothing-bundles": ("nothing", "/bundles", None),
    "nothing-schedules": ("nothing", "/schedules", None),
    "one-overview": ("one", "/", None),
    "one-run": ("one", "/runs/{one}", None),
    "overview": ("full", "/", None),
    "jobs": ("full", "/jobs", None),
    "jobs-sorted": ("full", "/jobs?sort=took&order=desc&q=sales", None),
    "job": ("full", "/jobs/nightly-sales", None),
    "job-wrong": ("full", "/jobs/nightly-sales", "wrong"),
    "job-unresolved": ("full", "/jobs/train-churn", None),
    "job-long": ("full", "/jobs/" + "x" * 60, None),
    "define": ("full", "/define?job=hourly-ingest", None),
    "define-wrong": ("full", "/define", "define"),
    "runs": ("full", "/runs", None),
    "runs-failed": ("full", "/runs?state=failed", None),
    "runs-none": ("full", "/runs?state=crashed", None),
    "runs-third-page": ("full", "/runs?job=hourly-ingest&sort=took&order=desc&page=3", None),
    "run-ok": ("full", "/runs/{ok}", None),
    "run-ok-task": ("full", "/runs/{ok}?task=extract_fx_rates", None),
    "run-ok-zoom": ("full", "/runs/{ok}?from=0.2&to=0.5", None),
    "run-failed": ("full", "/runs/{failed}", None),
    "run-running": ("full", "/runs/{running}", None),
    "run-running-kill": ("full", "/runs/{running}", "kill"),
    "run-paused": ("full", "/runs/{paused}", None),
    "run-queued": ("full", "/runs/{queued}", None),
    "run-cancelled": ("full", "/runs/{cancelled}", None),
    "run-stuck": ("full", "/runs/{stuck}", None),
    "run-map": ("full", "/runs/{map}", None),
    "run-map-failed": ("full", "/runs/{map}?task=resize&instances=failed#instances", None),
    "run-big": ("full", "/runs/{big}", None),
    "run-long": ("full", "/runs/{long}", None),
    "run-viewer": ("full", "/runs/{failed}", "viewer"),
    "bundles": ("full", "/bundles", None),
    "schedules": ("full", "/schedules", None),
    "api": ("full", "/api/docs", None),
    "login": ("full", "/", "stranger"),
    "absent": ("full", "/runs/99999", None),
}


def chromium() -> str | None:
    """Return the path of a Chromium."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


class Showcase:
    """The servers of `showcase.py`, in a process of their own."""

    def __init__(self, *scenes: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(HERE / "showcase.py"), *scenes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.scenes = self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the showcase has ended; its error stands above")
        return json.loads(line)

    def links(self):
        """Return the scenes with fresh links."""
        self._process.stdin.write("links\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait(60)


def act(page, what: str | None) -> None:
    """Do what a picture shows the outcome of."""
    if what == "wrong":
        page.fill("[name='p.shops']", "[berlin")
        page.fill("[name='p.day']", "")
        page.click("text=Start run")
    elif what == "define":
        page.fill("[name=definition]", '{\n  "name": "new",\n  "tasks": {"a": {"tusk": "etl.Nothing"}}\n}')
        page.click("button[value=define]")
    elif what == "kill":
        page.locator("summary", has_text="Kill").click()


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("shots"))
    parser.add_argument("--only", nargs="*", default=list(PAGES), help="names of pages")
    parser.add_argument("--themes", nargs="*", default=list(THEMES))
    parser.add_argument("--readme", type=Path, help="make the picture of the README instead")
    options = parser.parse_args()
    if (browser_path := chromium()) is None:
        raise SystemExit("there is no chromium: install it, or give CHROMIUM=PATH")
    names = options.only if options.readme is None else ["run-failed"]
    themes = options.themes if options.readme is None else ["light"]
    options.folder.mkdir(parents=True, exist_ok=True)
    showcase = Showcase(*{PAGES[name][0]: None for name in names})
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=browser_path, args=FLAGS)
            for theme in themes:
                links = showcase.links()
                contexts = {}
                for name in names:
                    scene, path, what = PAGES[name]
                    who = what if what in {"viewer", "stranger"} else "link"
                    if (scene, who) not in contexts:
                        size = {"viewport": {"width": 1000, "height": 900}} if options.readme else {}
                        contexts[scene, who] = browser.new_context(**(THEMES[theme] | size))
                        page = contexts[scene, who].new_page()
                        if who != "stranger":
                            page.goto(links[scene][who])
                    page = contexts[scene, who].pages[0]
                    page.goto(links[scene]["base"] + path.format(**links[scene]["runs"]), wait_until="load")
                    act(page, what)
                    page.wait_for_timeout(300)  # the first message of a live page
                    if options.readme is not None:
                        page.screenshot(
                            path=options.readme,
                            clip={"x": 0, "y": 0, "width": 1000, "height": 980},
                            full_page=True,
                        )
                        return
                    page.screenshot(path=options.folder / f"{name}-{theme}.png", full_page=what != "kill")
                    print(f"{name}-{theme}.png")  # noqa: T201 - a command for people
                for each in contexts.values():
                    each.close()
            browser.close()
    finally:
        showcase.close()


if __name__ == "__main__":
    main()

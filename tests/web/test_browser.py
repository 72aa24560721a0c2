"""The pages in a real browser: log in, start, watch, pause, resume, cancel, read a traceback; keys, phone, night, axe.

Needs Debian's chromium and Playwright; skipped in words where one is missing. The Server runs in a process of its own.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright")
sync_api.expect.set_options(timeout=PATIENCE * 1000)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Playwright's own pipes
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-proxy-server"]  # fmt: skip
PLACES = (
    "/",
    "/jobs",
    "/jobs/steps",
    "/define",
    "/runs",
    "/bundles",
    "/schedules",
    "/api/docs",
    "/runs?before=9",
)
SERVER = Path(__file__).with_name("page_server.py")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Give the address of a server with jobs, and a function that asks it for a link."""
    with subprocess.Popen(
        [sys.executable, "-u", str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            base = process.stdout.readline().strip()
            process.stdout.readline()  # a token, for programs

            def link():
                process.stdin.write("link\n")
                process.stdin.flush()
                return base + process.stdout.readline().strip()

            numbers = itertools.count(2)

            def edit():
                process.stdin.write(f"edit {next(numbers)}\n")
                process.stdin.flush()

            link.edit = edit
            yield link
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def chromium():
    """Start the browser once."""
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark", "phone"])
def page(request, chromium, address):
    """Log a new browser in; fail on any error of the page itself."""
    phone = request.param == "phone"
    context = chromium.new_context(
        viewport={"width": 390 if phone else 1200, "height": 800},
        color_scheme="dark" if request.param == "dark" else "light",
        has_touch=phone,
    )
    context.set_default_timeout(PATIENCE * 1000)
    found = context.new_page()
    errors = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    # Chromium tells of each status of 400 and more on the console; here 422 is an answer that is wanted.
    found.goto(address())
    yield found
    context.close()
    assert [error for error in errors if "status of 422" not in error] == []


def start(page, job, **fields):
    page.goto(re.sub(r"^(https?://[^/]+).*", rf"\1/jobs/{job}", page.url))
    for name, value in fields.items():
        page.fill(f"[name='p.{name}']", value)
    page.click("text=Start run")
    page.wait_for_url("**/runs/*")


def state(page):
    return page.locator("#run-state")


def test_a_run_is_started_watched_paused_resumed_and_cancelled(page):
    start(page, "slow")
    sync_api.expect(state(page)).to_contain_text("running")
    page.click("text=Pause")
    sync_api.expect(state(page)).to_contain_text(re.compile("pausing|paused"))
    page.click("text=Resume")
    sync_api.expect(state(page)).to_contain_text("running")
    page.locator("summary", has_text="Cancel").click()
    page.fill("#run-buttons details[open] [name=reason]", "seen enough")
    page.click("text=Cancel run")
    sync_api.expect(state(page)).to_contain_text("cancelled")
    sync_api.expect(page.locator("#run-failure")).to_contain_text("seen enough")


def test_a_page_follows_a_run_to_its_end_without_being_loaded_again(page):
    start(page, "steps")
    page.evaluate("window.sameDocument = true")
    sync_api.expect(state(page)).to_contain_text("succeeded")
    sync_api.expect(page.locator("#log-lines")).to_contain_text("step 5")
    sync_api.expect(page.locator("#run-buttons")).to_contain_text("Run again")
    sync_api.expect(page.locator("#run-events")).to_contain_text("run-ended")
    sync_api.expect(page.locator("#run-results")).to_contain_text("None.")
    assert page.evaluate("window.sameDocument")


def test_a_wrong_parameter_is_said_beside_its_field(page):
    start_url = page.url
    page.goto(re.sub(r"^(https?://[^/]+).*", r"\1/jobs/steps", start_url))
    page.fill("[name='p.n']", "many")
    page.click("text=Start run")
    sync_api.expect(page.locator("#e-n")).to_contain_text("must be of type integer")
    assert page.input_value("[name='p.n']") == "many"


def test_a_traceback_is_one_look_away_and_the_run_can_be_run_again(page):
    start(page, "bad")
    sync_api.expect(page.locator("#run-failure h2")).to_contain_text("KeyError: 'customer_id'")
    sync_api.expect(page.locator("#run-failure pre")).to_contain_text('row["customer_id"]')
    assert page.locator("#run-failure").bounding_box()["y"] < 800
    number = page.url.rsplit("/", 1)[1]
    page.locator("summary", has_text="Run again").click()
    page.locator("#run-buttons details[open] button").click()
    page.wait_for_url(lambda url: url.rsplit("/", 1)[1] != number)


def test_a_reload_is_seen_without_loading_the_page_again(page, address):
    page.goto(re.sub(r"^(https?://[^/]+).*", r"\1/bundles", page.url))
    version = page.locator("#b-notes .pin").first
    before = version.inner_text()
    address.edit()
    sync_api.expect(version).not_to_have_text(before)


def test_the_keyboard_alone_reaches_pages_and_tasks(page):
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url("**/jobs")
    page.locator("tbody a", has_text="steps").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/steps")
    start(page, "steps")
    sync_api.expect(state(page)).to_contain_text("succeeded")
    page.locator("#dag a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**?task=*")
    assert page.locator("#task h2").is_visible()


def test_nothing_reaches_beyond_the_width_of_the_screen(page):
    for path in PLACES:
        page.goto(re.sub(r"^(https?://[^/]+).*", rf"\1{path}", page.url))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_a_picture_has_the_ground_of_its_panel_by_day_and_by_night(page):
    page.goto(re.sub(r"^(https?://[^/]+).*", r"\1/jobs/steps", page.url))
    ground = "getComputedStyle(document.querySelector('.panel .picture')).backgroundColor"
    assert page.evaluate(ground) == "rgba(0, 0, 0, 0)"


AXE = next(
    (path for path in (Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js",) if path.exists()),
    None,
)


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed: npm install --no-save axe-core")
def test_axe_finds_nothing_serious(page):
    start(page, "bad")
    run = page.url
    for path in (*PLACES, run):
        page.goto(path if path.startswith("http") else re.sub(r"^(https?://[^/]+).*", rf"\1{path}", page.url))
        page.evaluate(AXE.read_text())
        found = page.evaluate(
            "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html).slice(0, 3)]))"
        )
        assert [row for row in found if row[0] in ("serious", "critical")] == [], path

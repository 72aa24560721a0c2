"""The pages: what each shows in each state, who sees and does what, and that no text of a user becomes a page's own."""

from __future__ import annotations

import gc
import html.parser
import json
import re
import sys
import threading

import anyio
import httpx
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, Parameter, RunnableTask, Server, web
from scattersphere._gc import MANY
from scattersphere.commands.access import Principal, Role
from scattersphere.model.states import RunState, TaskState
from scattersphere.testing import MemoryJournal
from scattersphere.web import jobpages, lists, rendering, runpage

pytestmark = pytest.mark.anyio
EVIL = "</title></script></textarea><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


class Work(RunnableTask):
    value: int = 1

    async def run(self, context):
        context.log.info("worked on %d", self.value)
        return self.value


class Fail(RunnableTask):
    text: str = "boom"

    async def run(self, context):
        context.log.warning(self.text)
        raise ValueError(self.text)


class Hang(RunnableTask):
    async def run(self, context):
        context.log.info("hanging")
        await anyio.sleep_forever()


JOB = (
    JobDefinition.build("night", description="At night", params={"n": 3, "on": True, "names": ["a"]})
    .task("find", "Work", args={"value": {"$param": "n"}})
    .task("each", "Work", map={"value": [1, 2, 3]}, depends_on=["find"])
    .done()
)


def browser(server, role=Role.OPERATOR, patterns=(), prefix=""):
    async def authorize(scope):
        return Principal(user="ada", role=role, patterns=patterns)

    app = web.app(server, authorize=authorize)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=prefix)
    base = "http://localhost"
    return httpx.AsyncClient(
        transport=transport, base_url=base, headers={"Origin": base}, follow_redirects=True
    )


def furnish(server, *jobs):
    server.register_tasks("app", [Work, Fail, Hang])
    for job in jobs:
        server.define(job)


async def press(client, page, path, **fields):
    token = page.text.split('name="csrf" value="')[1].split('"')[0]
    return await client.post(path, data={"csrf": token, **fields})


async def until(condition):
    while not condition():
        await anyio.lowlevel.checkpoint()


class Reader(html.parser.HTMLParser):
    """Collects what a browser would run or load, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "link", "input", "br", "img", "path", "rect", "circle", "line", "use"})

    def __init__(self):
        super().__init__()
        self.open, self.found, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in {"script", "img", "iframe", "object", "style"} else []
        self.found += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.links += [value for name, value in attrs if name in {"href", "src", "action"} and tag != "use"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open[-1:] == [tag]
            self.open.pop()


def read(page, status=200):
    assert page.status_code == status, page.text[:500]
    reader = Reader()
    reader.feed(page.text)
    assert not reader.open
    assert reader.found in ([], ["script"])  # our own one
    crumbs = re.findall(r'<p class="crumbs">(.*?)</p>', page.text)
    assert all(re.sub("<[^>]*>", "", path).strip()[-1:] not in {"", "/"} for path in crumbs)
    return reader


async def test_with_nothing_there_each_page_says_so():
    async with Server() as server:
        client = browser(server)
        for path, words in [
            ("/", "Nothing here yet"),
            ("/jobs", "No job yet"),
            ("/runs", "<h2>No run</h2>"),
            ("/bundles", "No bundles"),
            ("/schedules", "No schedules"),
        ]:
            page = await client.get(path)
            read(page)
            assert words in page.text
        read(await client.get("/nowhere"), 404)
        read(await client.get("/runs/7"), 404)
        read(await client.get("/runs/" + "9" * 5_000), 404)
        read(await client.get("/jobs/none"), 404)


async def test_a_run_is_started_from_the_form_and_shown():
    async with Server() as server:
        furnish(server, JOB)
        client = browser(server)
        form = await client.get("/jobs/night")
        read(form)
        assert 'name="p.n" inputmode="decimal" value="3"' in form.text
        assert 'name="p.on" checked' in form.text
        page = await press(client, form, "/jobs/night/runs", **{"p.n": "5", "p.names": '["b"]'})
        assert page.url.path == "/runs/1"
        run = await server.runs[1].wait()
        assert dict(run.params) == {"n": 5, "on": False, "names": ["b"]}
        page = await client.get("/runs/1?task=each&of=task&level=20&find=worked")
        read(page)
        assert "worked on 2" in page.text
        assert "worked on 5" not in page.text  # that is another task's line
        assert "[2]" in page.text
        assert "night" in (await client.get("/runs?job=night&state=succeeded")).text
        assert (await client.get("/go?q=1")).url.path == "/runs/1"
        assert (await client.get("/go?q=night")).url.path == "/jobs/night"


async def test_what_is_wrong_is_said_beside_its_field_and_nothing_typed_is_lost():
    async with Server() as server:
        furnish(server, JOB)
        client = browser(server)
        form = await client.get("/jobs/night")
        page = await press(client, form, "/jobs/night/runs", **{"p.n": '"x"', "p.names": "[1,", "p.on": "on"})
        read(page, 422)
        assert "is no JSON" in page.text
        assert "[1," in page.text
        page = await press(client, form, "/jobs/night/runs", **{"p.n": '"x"', "p.names": "[1]"})
        read(page, 422)
        assert re.search(r'id="e-n">.*must be of type integer', page.text)
        assert not server.runs


async def test_secrets_are_neither_shown_nor_filled_in():
    job = (
        JobDefinition.build("s", params={"token": Parameter(type="string", secret=True, default="hunter2")})
        .task("a", "Work")
        .done()
    )
    async with Server() as server:
        furnish(server, job)
        client = browser(server)
        form = await client.get("/jobs/s")
        assert 'type="password"' in form.text
        page = await press(client, form, "/jobs/s/runs", **{"p.token": "s3cret-value"})
        await server.runs[1].wait()
        for path in ("/runs/1", "/runs", "/", "/runs/1/log.txt"):
            assert "s3cret-value" not in (await client.get(path)).text
        assert "***" in page.text


async def test_a_failure_is_the_first_thing_on_the_page_with_its_traceback():
    job = JobDefinition.build("bad").task("a", "Fail").task("b", "Work", depends_on=["a"]).done()
    async with Server() as server:
        furnish(server, job)
        await (await server.start("bad")).wait()
        client = browser(server)
        page = await client.get("/runs/1")
        read(page)
        assert page.text.index("a failed: ValueError: boom") < page.text.index('id="graph"')
        assert "raise ValueError(self.text)" in page.text
        assert "a: ValueError: boom" in (await client.get("/")).text
        again = await press(client, page, "/runs/1/rerun")
        assert again.url.path == "/runs/2"


async def test_a_run_is_paused_resumed_stopped_cancelled_and_killed_from_its_page():
    job = JobDefinition.build("slow").task("a", "Hang").done()
    async with Server(grace=30) as server:
        furnish(server, job)
        client = browser(server)
        for number, verb, state in [
            (1, "cancel", RunState.CANCELLED),
            (2, "kill", RunState.CANCELLED),
            (3, "stop", RunState.STOPPED),
        ]:
            run = await server.start("slow")
            await until(lambda run=run: run.tasks["a"].state is TaskState.RUNNING)
            page = await client.get(f"/runs/{number}")
            read(page)
            page = await press(client, page, f"/runs/{number}/pause")
            assert run.state is RunState.PAUSING
            assert "Resume" in page.text
            await press(client, page, f"/runs/{number}/resume")
            assert run.state is RunState.RUNNING
            await press(client, page, f"/runs/{number}/{verb}", reason="for a test")
            if verb == "stop":
                assert run.state is RunState.STOPPING
                run.cancel()
            await run.wait()
            assert run.state is state or verb == "stop"
        assert "for a test (ada)" in (await client.get("/runs/1")).text
        late = await press(client, page, "/runs/1/cancel")
        read(late, 409)


async def test_a_viewer_looks_and_does_nothing():
    async with Server() as server:
        furnish(server, JOB)
        await (await server.start("night")).wait()
        client = browser(server, Role.VIEWER)
        page = await client.get("/runs/1")
        assert "You may look at this run" in page.text
        assert "Start a run" not in (await client.get("/jobs/night")).text
        for path in ("/jobs/night/runs", "/runs/1/cancel", "/runs/1/rerun", "/bundles/app/reload"):
            read(await press(client, page, path), 403)
        assert len(server.runs) == 1


async def test_what_a_token_does_not_cover_does_not_exist():
    hidden = JobDefinition.build("hidden").task("a", "Fail").done()
    async with Server() as server:
        furnish(server, JOB, hidden)
        await (await server.start("hidden")).wait()
        await (await server.start("night")).wait()
        client = browser(server, patterns=("job:night", "bundle:app"))
        for path in ("/", "/jobs", "/runs", "/bundles", "/go?q=hidden"):
            page = await client.get(path)
            assert "hidden" not in page.text.replace('value="hidden"', "").replace(
                'type="hidden"', ""
            ).replace("aria-hidden", "")
        page = await client.get("/runs/1")
        nothing = await client.get("/runs/99")
        assert page.text.replace("no run 1", "no run 99") == nothing.text
        read(await press(client, await client.get("/"), "/jobs/hidden/runs"), 404)


async def test_what_is_seen_waits_for_names_nothing_that_is_hidden():
    """The slot was "held by zzjob#1", and a job that lacked code "did you mean zzcode.Work2"."""
    waiting = JobDefinition.build("night").task("a", "Work").done()
    lacking = JobDefinition.build("nightly").task("a", "Zzcod").done()
    async with Server(max_runs=1) as server:
        furnish(server, JobDefinition.build("zzjob").task("zztask", "Hang").done(), waiting)
        server.register_tasks("zzcode", [type("Zzcode", (Work,), {})])
        server.define(lacking)
        await server.start("zzjob")
        await server.start("night")
        assert "zzjob" in server.runs[2].waits_for
        assert "Zzcode" in str(server.unresolved["nightly"])
        seen, all_of_it = (browser(server, patterns=each) for each in (("job:night*", "bundle:app"), ()))
        for path in (
            "/",
            "/jobs",
            "/jobs/nightly",
            "/runs",
            "/runs/2",
            "/api/v1/runs/2",
            "/api/v1/runs/2/explain",
        ):
            page = await seen.get(path)
            assert page.status_code == 200, path
            assert not re.search("zzjob|zztask|zzcode\\b", page.text, re.IGNORECASE), path
        assert "held by another run" in (await seen.get("/runs/2")).text
        assert "zzjob#1" in (await all_of_it.get("/runs/2")).text
        assert "Zzcode" in (await all_of_it.get("/jobs/nightly")).text


async def test_a_secret_that_stands_in_a_definition_is_on_no_page():
    secret = Parameter(type="string", default="hunter2-topsecret", secret=True)
    job = JobDefinition.build("use", params={"password": secret}).task("a", "Work").done()
    async with Server() as server:
        furnish(server, job)
        await (await server.start("use")).wait()
        for path in ("/", "/jobs/use", "/define?job=use", "/runs/1", "/api/v1/jobs/use", "/api/v1/runs/1"):
            page = await browser(server).get(path)
            assert page.status_code == 200, path
            assert "hunter2" not in page.text, path
        assert "***" in (await browser(server).get("/jobs/use")).text


async def test_no_text_of_a_user_or_a_task_becomes_part_of_a_page():
    job = JobDefinition(
        name="evil",
        description=EVIL,
        params={"text": EVIL},
        tasks=JobDefinition.build("x")
        .task("a", "Fail", args={"text": {"$param": "text"}})
        .task("b", "Work", depends_on=["a"])
        .done()
        .tasks,
    )
    async with Server() as server:
        furnish(server, job)
        run = await (await server.start("evil", {"text": EVIL})).wait()
        assert run.state is RunState.FAILED
        client = browser(server)
        for path in (
            "/",
            "/runs",
            "/runs/1",
            "/jobs",
            "/jobs/evil",
            "/runs/1?task=" + EVIL,
            "/runs/1?find=" + EVIL,
            "/runs?job=" + EVIL,
            "/jobs?q=" + EVIL,
        ):
            page = await client.get(path)
            read(page)
            assert "<script>alert" not in page.text
            assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(\d\d)", page.text)
        stream = await client.get("/runs/1/live")
        data = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
        assert data
        assert "<script>alert" not in "".join(html for message in data for html in message["put"].values())
        log = await client.get("/runs/1/log.txt")
        assert log.headers["content-type"].startswith("text/plain")


async def test_below_a_prefix_every_address_has_it():
    async with Server() as server:
        furnish(server, JOB)
        await (await server.start("night")).wait()
        client = browser(server, prefix="/ops/jobs")
        for path in ("/", "/runs", "/jobs", "/jobs/night", "/runs/1?task=each", "/bundles"):
            page = await client.get(path)
            for link in read(page).links:
                assert link.startswith(("/ops/jobs/", "?", "#")), link
            assert "Path=/ops/jobs" in (await client.get(path)).headers.get("set-cookie", "Path=/ops/jobs")


async def test_schedules_show_their_next_times_and_are_paused_resumed_and_run_at_once():
    job = (
        JobDefinition.build(
            "clock", schedules={"slow": {"every": 86400}, "off": {"every": 60, "enabled": False}}
        )
        .task("a", "Work")
        .done()
    )
    async with Server() as server:
        furnish(server, job)
        client = browser(server)
        page = await client.get("/schedules")
        read(page)
        assert "clock</a> / slow" in page.text
        assert "Nothing more" in page.text  # of the one that is switched off
        assert 'clock</a> <span class="soft">slow' in (await client.get("/")).text
        page = await press(client, page, "/jobs/clock/schedules/slow/pause")
        read(page)
        assert server.schedules["clock", "slow"].paused
        page = await press(client, page, "/jobs/clock/schedules/slow/resume")
        assert not server.schedules["clock", "slow"].paused
        page = await press(client, page, "/jobs/clock/schedules/slow/run")
        assert page.url.path == "/runs/1"
        await server.runs[1].wait()
        assert "#1" in (await client.get("/schedules")).text
        read(await press(client, page, "/jobs/clock/schedules/none/pause"), 404)
        hidden = browser(server, patterns=("job:other",))
        page = await hidden.get("/schedules")
        assert "clock" not in page.text
        read(await press(hidden, page, "/jobs/clock/schedules/slow/pause"), 404)


async def test_a_broken_bundle_and_a_job_without_its_code_are_on_the_first_page(tmp_path):
    (tmp_path / "good.py").write_text(
        "from scattersphere import RunnableTask\nclass T(RunnableTask):\n    async def run(self, context): ...\n"
    )
    async with Server(bundle_roots=[tmp_path]) as server:
        job = JobDefinition.build("later").task("a", "etl.Load", bundle="etl").done()
        server.define(job)
        (tmp_path / "good.py").write_text("def (\n")
        client = browser(server, Role.ADMIN)
        page = await press(client, await client.get("/bundles"), "/bundles/good/reload")
        read(page)
        assert "cannot be loaded" in page.text
        assert "SyntaxError" in page.text
        page = await client.get("/")
        assert "Bundle broken" in page.text
        assert "Job waits for code" in page.text
        assert "no bundle" in (await client.get("/jobs/later")).text


async def test_a_stream_tells_of_a_run_until_it_has_ended():
    job = JobDefinition.build("slow").task("a", "Hang").done()
    async with Server() as server:
        furnish(server, job)
        run = await server.start("slow")
        await until(lambda: run.tasks["a"].state is TaskState.RUNNING)
        client = browser(server)
        answers = []
        async with anyio.create_task_group() as group:

            async def listen():
                answers.append(await client.get("/runs/1/live"))

            group.start_soon(listen)
            await until(lambda: run.last_event and server.stats()["live"])
            await anyio.wait_all_tasks_blocked()
            run.cancel("enough")
        text = answers[0].text
        assert answers[0].headers["content-type"].startswith("text/event-stream")
        assert text.endswith("event: ended\ndata:\n\n")
        regions = {}
        for line in text.splitlines():
            if line.startswith("data: {"):
                regions |= json.loads(line[6:])["put"]
        assert "cancelled" in regions["run-state"]
        assert "What did not succeed" in regions["run-buttons"]


async def test_ten_thousand_tasks_are_a_page_of_a_few_hundred_kilobytes():
    builder = JobDefinition.build("big")
    for number in range(10_000):
        builder = builder.task(f"t{number}", "Work", depends_on=[f"t{number - 100}"] if number >= 100 else [])
    async with Server() as server:
        furnish(server, builder.done())
        await (await server.start("big")).wait()
        page = await browser(server).get("/runs/1")
        read(page)
        assert len(page.content) < 400_000


async def test_templates_are_ready_before_the_first_page_is_asked_for(monkeypatch):
    async with Server() as server:
        furnish(server, JOB)
        async with browser(server) as client:
            monkeypatch.setattr(rendering.jinja2.Environment, "compile", None)
            for path in (
                "/",
                "/jobs/night",
                "/runs",
                "/bundles",
                "/schedules",
                "/define",
                "/api/docs",
                "/nowhere",
            ):
                assert (await client.get(path)).status_code in {200, 404}


@pytest.mark.parametrize("path", ["/jobs/night", "/define?job=night"])
async def test_the_text_of_a_job_is_written_in_a_thread(monkeypatch, path):
    async with Server() as server:
        furnish(server, JOB)
        async with browser(server) as client:
            threads, real = [], JobDefinition.dumps
            monkeypatch.setattr(
                JobDefinition, "dumps", lambda job: threads.append(threading.get_ident()) or real(job)
            )
            page = await client.get(path)
            assert page.status_code == 200
            assert "At night" in page.text
            assert threads
            assert threading.get_ident() not in threads


async def test_a_job_that_is_too_long_for_a_form_is_shown_without_its_text_and_edited_elsewhere(monkeypatch):
    async with Server() as server:
        furnish(server, JOB)
        monkeypatch.setattr(jobpages, "DEFINITION", 50)
        async with browser(server) as client:
            page = await client.get("/jobs/night")
            assert page.status_code == 200
            assert "&#34;depends_on&#34;" not in page.text
            assert "more than a page shows" in page.text
            assert "Start run" in page.text
            edit = await client.get("/define?job=night")
            assert edit.status_code == 413
            assert "more than a page shows" in edit.text


async def test_a_page_of_twenty_tasks_is_small_over_the_wire():
    builder = JobDefinition.build("twenty")
    for number in range(20):
        builder = builder.task(
            f"task_{number}", "Work", depends_on=[f"task_{number - 4}"] if number > 3 else []
        )
    async with Server() as server:
        furnish(server, builder.done())
        await (await server.start("twenty")).wait()
        client = browser(server)
        page = await client.get("/runs/1")
        links = re.findall(r'(?:href|src)="([^"]*(?:style\.css|page\.js)[^"]*)"', page.text)
        assert len(links) == 2
        assert sum([await over_the_wire(client, path) for path in ("/runs/1", *links)]) < 60_000
        assert (await client.get(links[1])).text.count("\n") <= 200


async def over_the_wire(client, path):
    """Return the bytes that a browser is sent."""
    async with client.stream("GET", path, headers={"Accept-Encoding": "gzip, br"}) as answer:
        assert answer.headers["vary"] == "accept-encoding"
        return sum([len(chunk) async for chunk in answer.aiter_raw()])


async def test_a_page_comes_packed_or_not_as_the_browser_takes_it():
    async with Server() as server:
        furnish(server, JOB)
        await (await server.start("night")).wait()
        client = browser(server)
        for path in ("/", "/runs/1", "/static/page.js"):
            packed, plain = [
                await client.get(path, headers={"Accept-Encoding": coding}) for coding in ("gzip", "identity")
            ]
            assert packed.headers.get("content-encoding") == "gzip"
            assert "content-encoding" not in plain.headers
            assert packed.text == plain.text


async def test_a_run_is_seen_before_its_pictures_are_drawn(monkeypatch):
    drawn = threading.Event()
    draws = runpage.picture_parts

    def slowly(*values):
        assert drawn.wait(PATIENCE)
        return draws(*values)

    monkeypatch.setattr(runpage, "picture_parts", slowly)
    async with Server() as server:
        furnish(server, JobDefinition.build("bad").task("one", "Fail").done())
        await (await server.start("bad")).wait()
        sent, first = b"", anyio.Event()
        app = browser(server)._transport.app

        async def send(message):
            nonlocal sent
            sent += message.get("body", b"")
            if b"boom" in sent:
                first.set()

        async def receive():
            await anyio.sleep_forever()

        scope = {
            "type": "http", "method": "GET", "path": "/runs/1", "raw_path": b"/runs/1", "query_string": b"",
            "root_path": "", "scheme": "http", "headers": [(b"host", b"localhost")], "client": None,
            "http_version": "1.1", "asgi": {"spec_version": "2.4", "version": "3.0"},
        }  # fmt: skip
        async with anyio.create_task_group() as group:
            group.start_soon(app, scope, receive, send)
            try:
                with anyio.fail_after(PATIENCE):
                    await first.wait()
                assert b'id="dag"' not in sent
            finally:
                drawn.set()
        assert b'id="dag"' in sent
        assert sent.endswith(b"</html>")


async def test_runs_that_only_the_journal_has_are_found_and_shown(monkeypatch):
    monkeypatch.setattr(lists, "PAGE", 2)
    journal = MemoryJournal()
    async with Server(watch=False, grace=0.1, journal=journal) as server:
        furnish(server, JOB, JobDefinition.build("bad").task("one", "Fail", args={"text": EVIL}).done())
        for name in ("night", "night", "bad", "night"):
            await (await server.start(name)).wait()
    async with Server(watch=False, grace=0.1, journal=journal.again()) as server:
        furnish(server, JOB)
        client = browser(server)
        first = await client.get("/runs")
        link = re.search(r'href="(/runs\?before=\d+)"', first.text)[1]
        pages = [await client.get(link)]
        while older := re.search(r'href="(/runs\?before=\d+)" rel="next"', pages[-1].text):
            pages.append(await client.get(older[1]))
        assert [re.findall(r'/runs/(\d+)"', page.text) for page in pages] == [["4", "3"], ["2", "1"]]
        failed = await client.get(link + "&state=failed&q=BA")
        assert re.findall(r'/runs/(\d+)"', failed.text) == ["3"]
        for page in (first, *pages, failed, run := await client.get("/runs/3")):
            read(page)
        assert "<script>alert" not in run.text
        assert "Traceback" in run.text
        again = await press(client, run, "/runs/3/rerun", from_failed="false", code="latest")
        assert again.status_code == 200, again.text
        stranger = browser(server, Role.VIEWER, ("job:b*",))
        assert re.findall(r'/runs/(\d+)"', (await stranger.get(link)).text) == ["5", "3"]


async def test_without_a_journal_nothing_is_said_of_one():
    async with Server() as server:
        furnish(server, JOB)
        assert "journal" not in (await browser(server).get("/runs")).text
        page = await browser(server).get("/runs?before=10&state=nonsense&job=%00&q=%27")
        assert page.status_code == 200


async def test_the_page_of_a_run_that_is_suspended_asks_again_and_one_of_an_ended_run_does_not():
    journal, streams = MemoryJournal(), []
    async with anyio.create_task_group() as tasks:
        async with Server(watch=False, grace=0.1, journal=journal) as server:
            server.register_tasks("app", [Hang])
            run = await server.start_task("Hang")
            client = browser(server)

            async def look():
                streams.append((await client.get(f"/runs/{run.id}/live")).text)

            tasks.start_soon(look)
            with anyio.fail_after(PATIENCE):
                while run.execution.watchers is None:  # until it follows
                    await anyio.lowlevel.checkpoint()
        with anyio.fail_after(PATIENCE):
            while not streams:
                await anyio.lowlevel.checkpoint()
    assert "event: ended" not in streams[0]
    async with Server(watch=False, grace=0.1, journal=journal.again()) as server:
        server.register_tasks("app", [Hang])
        client = browser(server)
        server.runs[run.id].cancel()
        await server.runs[run.id].wait()
        assert "event: ended" in (await client.get(f"/runs/{run.id}/live")).text


async def test_the_host_s_collector_of_garbage_goes_on_while_pages_are_drawn_but_for_those_of_large_jobs(
    monkeypatch,
):
    on, real = [], rendering.in_thread

    async def in_thread(make, limiter):
        def drawing():
            before = sys.getprofile()
            sys.setprofile(lambda *_: on.append(gc.isenabled()))
            try:
                return make()
            finally:
                sys.setprofile(before)

        return await real(drawing, limiter)

    monkeypatch.setattr(rendering, "in_thread", in_thread)
    async with Server() as server:
        server.register_tasks("app", [Work])
        large = JobDefinition.build("large")
        for number in range(MANY + 1):
            large = large.task(f"t{number}", "Work")
        for job in (JOB, large.done()):
            server.define(job)
            await server.run(job.name, timeout=PATIENCE)
        async with browser(server) as client:
            for path in ("/", "/jobs", "/runs", "/bundles", "/schedules", "/jobs/night", "/runs/1"):
                on.clear()
                read(await client.get(path))
                assert set(on) == {True}, path
            for path in ("/jobs/large", "/runs/2"):
                on.clear()
                read(await client.get(path))
                assert False in on, path
    assert gc.isenabled()

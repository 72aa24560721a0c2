"""Forms are commands: each of them has one, with the command's rights, limits, audit, masking and codes."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from starlette.routing import compile_path

from scattersphere import JobDefinition, Parameter, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.audit import AuditFile
from scattersphere.commands.limits import Limits
from scattersphere.commands.table import COMMANDS
from scattersphere.web.forms import FORMS

pytestmark = pytest.mark.anyio
GOOD = "from scattersphere import RunnableTask\nclass T(RunnableTask):\n    async def run(self, context): return 1\n"


class Work(RunnableTask):
    value: int = 1

    async def run(self, context):
        return self.value


def browser(server, role=Role.ADMIN, **more):
    async def authorize(scope):
        return Principal(user="ada", role=role)

    transport = httpx.ASGITransport(web.app(server, authorize=authorize, **more), raise_app_exceptions=False)
    base = "http://localhost"
    return httpx.AsyncClient(
        transport=transport, base_url=base, headers={"Origin": base}, follow_redirects=True
    )


async def press(client, path, **fields):
    page = await client.get("/")
    token = page.text.split('name="csrf" value="')[1].split('"')[0]
    return await client.post(path, data={"csrf": token, **fields})


def test_whatever_a_command_can_do_to_a_run_a_job_a_bundle_or_a_schedule_a_page_can():
    acting = {
        name
        for name, row in COMMANDS.items()
        if row.group in {"code", "jobs", "runs", "schedules"} and row.method not in {None, "GET"}
    }
    own_page = {"start", "define", "validate"}
    waiting = {"run", "run-task"}  # a page does not wait: it shows the run while it goes on
    assert {form.command for form in FORMS} == acting - own_page - waiting


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.path)
async def test_a_form_is_refused_to_whom_its_command_is(form):
    async with Server() as server:
        role = COMMANDS[form.command].role
        below = [each for each in Role if each.rank < role.rank]
        path = form.path.replace("{run:scattersphere_number}", "1").replace("{", "").replace("}", "")
        for each in below:
            assert (await press(browser(server, each), path)).status_code == 403
        assert (await press(browser(server, role), path)).status_code in {404, 409, 422}


async def test_a_bundle_is_registered_reloaded_and_withdrawn(tmp_path):
    (tmp_path / "etl.py").write_text(GOOD)
    async with Server() as server:
        client = browser(server, bundle_roots=[tmp_path])
        assert (await press(client, "/register", file="../etl.py")).status_code in {403, 404, 422}
        page = await press(client, "/register", file="etl.py")
        assert (page.status_code, page.url.path, page.url.fragment) == (200, "/bundles", "b-etl")
        assert 'id="b-etl"' in page.text
        (tmp_path / "etl.py").write_text("def (\n")
        page = await press(client, "/bundles/etl/reload")
        assert "SyntaxError" in page.text
        page = await press(client, "/tasks/etl.T/runs")
        assert page.url.path == "/runs/1"
        await server.runs[1].wait()
        await press(client, "/bundles/etl/deregister", require_idle="on")
        assert "etl" not in server.registry.bundles


async def test_a_job_is_checked_defined_edited_saved_loaded_and_forgotten(tmp_path):
    async with Server() as server:
        server.register_tasks("app", [Work])
        client = browser(server, job_folder=tmp_path)
        assert "my-job" in (await client.get("/define")).text
        page = await press(
            client, "/define", definition='{"name": "new",\r\n "tasks": {"a": {"tusk": "Work"}}}'
        )
        assert page.status_code == 422
        assert "line 2" in page.text
        assert "tusk&#34;: &#34;Work" in page.text  # what was typed is still there
        good = JobDefinition.build("new").task("a", "Work").done().dumps()
        page = await press(client, "/define", definition=good, do="check")
        assert "Nothing is wrong" in page.text
        assert "new" not in server.definitions
        assert (await press(client, "/define", definition=good)).url.path == "/jobs/new"
        page = await press(client, "/define?job=new", definition=good)
        assert page.status_code == 422
        assert "is defined already" in page.text
        page = await press(client, "/define?job=new", definition=good, replace="on")
        assert page.url.path == "/jobs/new"
        await press(client, "/jobs/new/save")
        assert (tmp_path / "new.json").exists()
        await press(client, "/jobs/new/undefine")
        assert "new" not in server.definitions
        assert (await press(client, "/load", job="new")).url.path == "/jobs/new"
        assert "new" in server.definitions


async def test_a_run_is_done_again_with_what_was_chosen_or_with_other_parameters():
    job = JobDefinition.build("j", params={"n": 3, "s": Parameter(type="string", secret=True, default="x")})
    async with Server() as server:
        server.register_tasks("app", [Work])
        server.define(job.task("a", "Work", args={"value": {"$param": "n"}}).done())
        client = browser(server)
        run = await (await server.start("j", {"n": 7, "s": "hunter2-secret"})).wait()
        page = await press(client, f"/runs/{run.id}/rerun", from_failed="false", code="latest")
        assert page.url.path == "/runs/2"
        assert not (await server.runs[2].wait()).reused
        assert (await press(client, "/runs/1/rerun", code="oldest")).status_code == 422
        form = await client.get("/jobs/j?like=1")
        assert 'name="p.n" inputmode="decimal" value="7"' in form.text
        assert "hunter2" not in form.text


async def test_a_backfill_tells_its_times_before_it_starts_anything():
    job = JobDefinition.build("clock", schedules={"hourly": {"every": 3600}}).task("a", "Work").done()
    async with Server() as server:
        server.register_tasks("app", [Work])
        server.define(job)
        client = browser(server)
        times = {"since": "2020-11-01T00:00:00Z", "until": "2020-11-01T03:00:00Z"}
        page = await press(client, "/jobs/clock/schedules/hourly/backfill", **times, dry_run="on")
        assert "3 runs would start" in page.text
        assert not server.runs
        page = await press(client, "/jobs/clock/schedules/hourly/backfill", since="yesterday", until="x")
        assert page.status_code == 422
        page = await press(client, "/jobs/clock/schedules/hourly/backfill", **times)
        assert page.url.path == "/runs"


async def test_what_a_form_does_is_in_the_audit_and_counts_against_the_rate(tmp_path):
    with AuditFile(tmp_path / "audit") as audit:
        async with Server() as server:
            server.register_tasks("app", [Work])
            server.define(JobDefinition.build("j").task("a", "Work").done())
            client = browser(server, audit=audit, limits=Limits(rate=0.001, burst=5))
            await press(client, "/jobs/j/runs")  # the page, the form, and the page of the run
            await press(client, "/runs/99/cancel")
            late = await client.get("/")
            assert late.status_code == 429
            assert int(late.headers["retry-after"]) > 0
    rows = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(row["user"], row["command"], row["object"], row["outcome"]) for row in rows] == [
        ("ada", "start", "job j", "ok"),
        ("ada", "cancel", "run 99", "no-such-run"),
    ]


async def test_the_value_of_a_secret_is_masked_in_what_is_wrong_with_it():
    job = JobDefinition.build("s", params={"pin": Parameter(type="integer", secret=True, required=True)})
    async with Server() as server:
        server.register_tasks("app", [Work])
        server.define(job.task("a", "Work").done())
        page = await press(browser(server), "/jobs/s/runs", **{"p.pin": '"hunter2-pin"'})
        assert page.status_code == 422
        assert "hunter2-pin" not in page.text


async def test_every_form_stands_on_a_page(tmp_path):
    """Whoever may use a command finds it: the forms of all pages together are those of the table."""
    bundles = tmp_path / "bundles"
    bundles.mkdir(mode=0o755)
    hang = "class H(RunnableTask):\n    async def run(self, context): await anyio.sleep_forever()\n"
    (bundles / "notes.py").write_text(f"import anyio\n{GOOD}{hang}")
    (bundles / "notes.py").chmod(0o644)
    folder = {"bundle_roots": [bundles], "job_folder": tmp_path}
    async with Server(bundle_roots=[bundles], watch=False) as server:
        await server.register(bundles / "notes.py")
        job = JobDefinition.build("night", schedules={"at": {"cron": "@daily"}}).task("one", "notes.T")
        server.define(job.done())
        server.define(
            JobDefinition.build("day", schedules={"at": {"cron": "@daily"}}).task("one", "notes.H").done()
        )
        server.schedules["night", "at"].pause()
        ended = await (await server.start("night")).wait()
        held, live = await server.start("day"), await server.start("day")
        held.pause()
        client = browser(server, **folder)
        paths = (
            "/jobs",
            "/jobs/night",
            "/bundles",
            "/schedules",
            *(f"/runs/{run.id}" for run in (ended, held, live)),
        )
        actions = set()
        for path in paths:
            actions |= set(re.findall(r'<form method="post" action="([^"]*)"', (await client.get(path)).text))
        patterns = {form.path: compile_path(form.path)[0] for form in FORMS}
        assert [path for path, found in patterns.items() if not any(map(found.match, actions))] == []
        viewer = browser(server, Role.VIEWER, **folder)
        for path in paths:
            found = re.findall(r'<form method="post" action="([^"]*)"', (await viewer.get(path)).text)
            assert [action for action in found if any(each.match(action) for each in patterns.values())] == []

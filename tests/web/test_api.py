"""The HTTP API: each command of the table at its address, with its rights, arguments, codes and keys."""

from __future__ import annotations

import json
import re

import anyio
import httpx
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.limits import Limits
from scattersphere.commands.table import COMMANDS
from scattersphere.model.events import EventKind
from scattersphere.model.states import TaskState
from scattersphere.remote import TokenFile
from scattersphere.testing import MemoryJournal
from scattersphere.web.api import STATUS, rows
from scattersphere.web.feed import Feed
from scattersphere.web.guard import API
from scattersphere.web.openapi import openapi

pytestmark = pytest.mark.anyio


class Work(RunnableTask):
    value: int = 1

    async def run(self, context):
        context.log.info("worked")
        return self.value


class Hang(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()


SEEN = {}


class Tidy(RunnableTask):
    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await SEEN["asked"].wait()


JOB = (
    JobDefinition.build("night", params={"n": 3}).task("one", "Work", args={"value": {"$param": "n"}}).done()
)
TIDY = JobDefinition.build("tidy").task("one", "Tidy").done()
SLOW = JobDefinition.build("slow").task("one", "Hang").done()


def furnish(server):
    server.register_tasks("app", [Work, Hang, Tidy])
    server.define(JOB)
    server.define(SLOW)
    server.define(TIDY)


def client(server, role=Role.ADMIN, patterns=(), prefix="", **more):
    async def authorize(scope):
        return None if role is None else Principal(user="ada", role=role, patterns=patterns)

    app = web.app(server, authorize=authorize, **more)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=prefix)
    return httpx.AsyncClient(transport=transport, base_url=f"http://localhost{prefix}{API}")


def told(answer):
    """Return status and code of a problem document, and which field or paths it names."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["detail"]
    return (
        answer.status_code,
        document["code"],
        document.get("field") or [p["path"] for p in document.get("problems", [])],
    )


def test_every_command_with_an_address_is_a_route_and_each_code_has_a_status():
    described = openapi("")["paths"]
    for row in rows():
        operations = [
            operation["operationId"] for methods in described.values() for operation in methods.values()
        ]
        assert operations.count(row.name) == 1
    left = {name for name, row in COMMANDS.items() if row.method and not row.in_session} - {
        row.name for row in rows()
    }
    assert left == {"follow"}  # streams have addresses of their own
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
async def test_what_would_end_the_program_is_an_incident_of_one_request(monkeypatch, error):
    async def raises(self, given):
        raise error

    monkeypatch.setattr(Server, "avalidate", raises)
    async with Server() as server:
        furnish(server)
        api = client(server)
        assert told(await api.post("/validate", content=JOB.dumps()))[:2] == (500, "internal")
        assert (await api.get("/jobs")).status_code == 200


async def test_a_job_is_defined_started_watched_and_forgotten():
    async with Server() as server:
        furnish(server)
        api = client(server, prefix="/ops")
        text = JobDefinition.build("new").task("a", "Work").done().dumps()
        answer = await api.post("/jobs", content=text)
        assert (answer.status_code, answer.json()["job"]) == (201, "new")
        assert told(await api.post("/jobs", content=text)) == (409, "exists", "replace")
        assert (await api.post("/jobs?replace=true", content=text)).status_code == 201
        answer = await api.post("/jobs/night/runs", json={"params": {"n": 5}})
        assert (answer.status_code, answer.json()) == (201, {"run": 1})
        assert answer.headers["location"] == f"/ops{API}/runs/1"
        assert (await api.get("/runs/1/wait?timeout=60")).json()["state"] == "succeeded"
        assert (await api.get("/runs/1")).json()["params"] == {"n": 5}
        assert (await api.get("/runs/1/result?task=one")).json()["result"] == 5
        assert [
            run["run"] for run in (await api.get("/runs?job=night&state=succeeded&limit=5")).json()["runs"]
        ] == [1]
        assert (await api.get("/logs?run=1&tail=1")).json()["lines"][0]["message"]
        assert (await api.delete("/jobs/new")).status_code == 200
        assert told(await api.get("/jobs/new")) == (404, "no-such-job", "name")


async def test_a_request_that_is_sent_again_with_its_key_starts_nothing_twice():
    async with Server() as server:
        furnish(server)
        api = client(server)
        send = {"json": {"params": {"n": 1}}, "headers": {"Idempotency-Key": "k"}}
        first, again = await api.post("/jobs/night/runs", **send), await api.post("/jobs/night/runs", **send)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json() == {"run": 1}
        send["json"] = {"params": {"n": 2}}
        assert told(await api.post("/jobs/night/runs", **send))[:2] == (409, "conflict")


async def test_verbs_may_be_repeated_on_a_live_run_and_conflict_with_an_ended_one():
    seen = SEEN["asked"] = anyio.Event()
    async with Server() as server:
        furnish(server)
        api = client(server)
        run = await server.start("tidy")
        while run.tasks["one"].state is not TaskState.RUNNING:
            await anyio.lowlevel.checkpoint()
        for verb in ("pause", "pause", "resume", "resume", "stop", "stop", "cancel", "cancel"):
            assert (await api.post(f"/runs/{run.id}/{verb}")).status_code == 200, verb
        seen.set()
        await run.wait()
        assert told(await api.post(f"/runs/{run.id}/pause"))[:2] == (409, "conflict")
        assert told(await api.post("/runs/99/pause")) == (404, "no-such-run", "run")


@pytest.mark.parametrize(
    ("method", "path", "more", "said"),
    [
        ("POST", "/jobs/night/runs", {"json": {"parms": {}}}, (422, "bad-args", "parms")),
        ("POST", "/jobs/night/runs", {"json": {"job": "slow"}}, (422, "bad-args", "job")),
        ("POST", "/jobs/night/runs", {"json": {"params": {"n": "x", "m": 1}}}, (422, "invalid-job", ["params.m", "params.n"])),
        ("POST", "/jobs/night/runs", {"content": b"{"}, (400, "bad-request", [])),
        ("POST", "/jobs/night/runs", {"content": b"[]"}, (400, "bad-request", [])),
        ("POST", "/jobs/night/runs", {"content": b'{"key": "a", "key": "b"}'}, (400, "bad-request", [])),
        ("POST", "/jobs/night/runs", {"content": b'{"key": NaN}'}, (400, "bad-request", [])),
        ("POST", "/jobs/night/runs", {"content": b"\xff"}, (400, "bad-utf8", [])),
        ("POST", "/jobs/nihgt/runs", {}, (404, "no-such-job", "job")),
        ("POST", "/jobs", {"content": b"{}"}, (422, "invalid-job", ["name"])),
        ("GET", "/runs?limit=0", {}, (422, "bad-args", "limit")),
        ("GET", "/runs?limit=x", {}, (422, "bad-args", "limit")),
        ("GET", "/runs?state=ended", {}, (422, "bad-args", "state")),
        ("GET", "/runs?colour=red", {}, (422, "bad-args", "colour")),
        ("GET", "/runs?%ff", {}, (400, "bad-request", [])),
        ("GET", "/runs/x", {}, (404, "unknown-command", [])),
        ("GET", "/runs/" + "9" * 5_000, {}, (404, "unknown-command", [])),
        ("GET", "/runs/" + "9" * 5_000 + "/events", {}, (404, "unknown-command", [])),
        ("POST", "/jobs/night/runs", {"headers": {"Idempotency-Key": "k" * 201}}, (422, "bad-args", "key")),
        ("POST", "/jobs/night/runs", {"headers": {"Idempotency-Key": "k"}, "json": {"key": "j"}}, (422, "bad-args", "key")),
        ("GET", "/nowhere", {}, (404, "unknown-command", [])),
        ("POST", "/nowhere", {}, (404, "unknown-command", [])),
        ("PUT", "/jobs/night", {}, (405, "bad-request", [])),
        ("POST", "/runs/1/events", {}, (405, "bad-request", [])),
        ("POST", "/validate", {}, (400, "bad-request", [])),
        ("GET", "/runs/1/wait?timeout=-1e-3", {}, (422, "bad-args", "timeout")),
        ("GET", "/runs/1/events?since=x", {}, (404, "no-such-run", "run")),
        ("GET", "/events?since=x", {}, (422, "bad-args", "since")),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_with_its_place(method, path, more, said):
    async with Server() as server:
        furnish(server)
        assert told(await client(server).request(method, path, **more)) == said


async def test_a_method_that_is_not_meant_is_told_which_are():
    async with Server() as server:
        furnish(server)
        api = client(server)
        assert (await api.options("/jobs/night")).headers["allow"] == "DELETE, GET, HEAD"
        assert (await api.put("/runs/1/cancel")).headers["allow"] == "POST"
        odd = await api.request("FOO", "/runs/1/cancel")
        assert told(odd)[:2] == (405, "bad-request")
        assert odd.headers["allow"] == "POST"
        page = await api.request("FOO", "http://localhost/runs/1")
        assert page.status_code == 405
        assert "text/html" in page.headers["content-type"]
        assert "This address takes another method" in page.text


async def test_rights_are_those_of_the_commands():
    async with Server() as server:
        furnish(server)
        run = await server.start("slow")
        assert told(await client(server, None).get("/runs"))[:2] == (401, "auth-required")
        viewer = client(server, Role.VIEWER)
        assert (await viewer.get("/runs/1")).status_code == 200
        assert told(await viewer.post("/runs/1/cancel"))[:2] == (403, "forbidden")
        bounded = client(server, patterns=("job:night", "bundle:app"))
        assert (
            told(await bounded.get("/runs/1"))
            == told(await bounded.get("/runs/99"))
            == (404, "no-such-run", "run")
        )
        assert told(await bounded.get("/runs/1/events"))[:2] == (404, "no-such-run")
        assert [job["name"] for job in (await bounded.get("/jobs")).json()["jobs"]] == ["night"]
        assert told(await bounded.get("/stats"))[:2] == (403, "forbidden")
        run.cancel()


async def test_a_program_comes_in_with_a_token_and_whoever_guesses_waits(tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.create("ci", Role.RUNNER)
    async with Server() as server:
        furnish(server)
        transport = httpx.ASGITransport(web.app(server, tokens=tokens), raise_app_exceptions=False)
        api = httpx.AsyncClient(transport=transport, base_url=f"http://any.example{API}")
        assert told(await api.get("/runs", headers={"Host": "localhost"}))[:2] == (401, "auth-required")
        api.headers["Authorization"] = f"Bearer {secret}"
        assert (await api.post("/jobs/night/runs")).status_code == 201
        assert told(await api.delete("/jobs/night"))[:2] == (403, "forbidden")
        api.headers["Authorization"] = "Bearer guess"
        for _ in range(5):
            assert told(await api.get("/runs"))[0] == 401
        api.headers["Authorization"] = f"Bearer {secret}"
        assert told(await api.get("/runs"))[0] == 401  # this address must wait now, whatever it sends


async def test_too_many_requests_of_a_user_are_told_when_to_try_again():
    async with Server() as server:
        furnish(server)
        api = client(server, limits=Limits(rate=0.001, burst=3))
        for _ in range(3):
            assert (await api.get("/jobs")).status_code == 200
        late = await api.get("/jobs")
        assert told(late)[:2] == (429, "rate-limited")
        assert int(late.headers["retry-after"]) > 900


async def test_events_of_a_run_go_on_where_a_reader_left_off():
    async with Server() as server:
        furnish(server)
        await (await server.start("night")).wait()
        api = client(server)
        text = (await api.get("/runs/1/events")).text
        events = [
            dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")
        ]
        assert events[0]["event"] == "run-started"
        assert [event["event"] for event in events][-2:] == ["run-ended", "end"]
        assert json.loads(events[0]["data"])["run"] == 1
        rest = (await api.get("/runs/1/events", headers={"Last-Event-ID": events[-3]["id"]})).text
        assert rest.count("event: ") == 2
        states = (await api.get("/runs/1/events?kinds=log")).text
        assert "event: log" in states
        assert "task-started" not in states
        wrong = await api.get("/runs/1/events?kinds=log,lgo")
        assert (wrong.status_code, wrong.json()["field"]) == (422, "kinds")
        assert "a run has the kinds state, log, progress, not 'lgo'" in wrong.json()["detail"]


async def test_a_number_of_an_event_that_was_not_told_yet_is_of_another_life():
    async with Server() as server:
        furnish(server)
        await (await server.start("night")).wait()
        api = client(server)
        every = ids((await api.get("/runs/1/events")).text)
        anew = ids((await api.get("/runs/1/events", headers={"Last-Event-ID": "9000"})).text)
        assert anew == [("0", "lagged"), *every]


async def test_the_head_of_a_stream_has_no_stream_behind_it():
    async with Server(grace=0.1) as server:
        furnish(server)
        run = await server.start("slow")
        api = client(server)
        with anyio.fail_after(PATIENCE):
            for path in (f"/runs/{run.id}/events", "/events"):
                head = await api.head(path)
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers["content-type"].startswith("text/event-stream")
        assert not run.state.ended


async def test_an_argument_that_stands_twice_is_told_as_such():
    async with Server() as server:
        furnish(server)
        twice = await client(server).get("/runs?limit=1&limit=2")
        assert told(twice)[:2] == (422, "bad-args")
        assert twice.json()["detail"] == "'limit' stands in the address already"


async def test_the_kinds_of_the_servers_stream_are_those_of_the_line_protocol():
    """`kinds=runs` was taken, and gave nothing: only the line protocol knew what it means."""
    async with Server() as server:
        furnish(server)
        begun = server.last_event
        run = await (await server.start("night")).wait()
        seen = []

        async def send(message):
            seen.append(message.get("body", b""))
            if b"run-ended" in seen[-1]:
                enough.cancel()

        async def receive():
            await anyio.sleep_forever()

        async def asked(query):
            scope = {
                "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
                "method": "GET", "path": "/api/v1/events", "raw_path": b"/api/v1/events", "root_path": "",
                "query_string": query.encode(), "scheme": "http", "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 2), "headers": [(b"host", b"localhost")],
            }  # fmt: skip
            await client(server)._transport.app(scope, receive, send)

        with anyio.fail_after(PATIENCE), anyio.CancelScope() as enough:
            await asked(f"kinds=runs&since={begun}")
        assert f'"run":{run.id}'.encode() in b"".join(seen)
        wrong = await client(server).get("/events?kinds=log")
        assert (wrong.status_code, wrong.json()["field"]) == (422, "kinds")


async def test_a_form_of_another_site_cannot_use_the_api_with_a_browsers_cookie():
    async with Server() as server:
        furnish(server)
        api = client(server)
        await api.get("/jobs")  # the cookie that the pages' forms hang on
        for headers in (
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Cookie": "session=1"},
        ):
            answer = await api.post("/jobs/night/runs", headers=headers)
            assert told(answer)[:2] == (403, "forbidden")
        assert not server.runs


async def test_health_and_readiness():
    server = Server()
    app = web.app(server, tokens=TokenFile.__new__(TokenFile))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    assert (await http.get("/healthz")).text == "ok\n"
    assert (await http.get("/readyz")).status_code == 503
    async with server:
        assert (await http.get("/readyz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 503


async def test_long_lists_come_by_pages_and_what_comes_meanwhile_neither_repeats_nor_skips():
    async with Server() as server:
        furnish(server)
        api = client(server)
        for name in "abcdefg":
            server.define(JobDefinition.build(name).task("one", "Work").done())
        for _ in range(5):
            await (await server.start("night")).wait()

        async def pages(path, member, key, meanwhile, **more):
            found, cursor = [], None
            while True:
                query = more | ({"cursor": cursor} if cursor else {})
                reply = (await api.get(path, params=query | {"limit": 2})).json()
                found.append([row[key] for row in reply[member]])
                if "cursor" not in reply:
                    return found
                cursor = reply["cursor"]
                await meanwhile()

        async def another_run():
            await (await server.start("night")).wait()

        async def nothing():
            pass

        assert await pages("/runs", "runs", "run", another_run, job="night") == [[5, 4], [3, 2], [1]]
        names = await pages("/jobs", "jobs", "name", nothing)
        assert [name for page in names for name in page] == sorted(server.definitions)
        assert await pages("/tasks", "tasks", "task", nothing) == [["Hang", "Tidy"], ["Work"]]
        assert told(await api.get("/runs?cursor=x"))[1:] == ("bad-args", "cursor")


async def test_what_a_client_has_already_is_not_sent_again():
    async with Server() as server:
        furnish(server)
        run = await (await server.start("night")).wait()
        api = client(server)
        for path in ("/jobs/night", f"/runs/{run.id}", "/jobs", "/../openapi.json"):
            first = await api.get(path)
            again = await api.get(path, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            assert (await api.get(path, headers={"If-None-Match": '"other"'})).content == first.content
        server.define(JobDefinition.build("night", params={"n": 4}).task("one", "Work").done(), replace=True)
        assert (
            await api.get("/jobs/night", headers={"If-None-Match": first.headers["etag"]})
        ).status_code == 200


async def test_a_session_of_one_request_knows_who_asks_and_what_there_is():
    async with Server() as server:
        furnish(server)
        api = client(server, Role.RUNNER)
        assert (await api.get("/whoami")).json() == {"user": "ada", "role": "runner", "patterns": []}
        assert (await api.get("/ping")).json() == {"pong": True}
        assert any("start" in line for line in (await api.get("/help")).json()["help"])
        names = [row["name"] for row in (await api.get("/commands")).json()["commands"]]
        assert "start" in names
        assert "register" not in names
        assert (await api.get("/schema?command=definition")).json()["schema"]["type"] == "object"


async def test_readiness_ends_with_the_server_and_health_does_not():
    server = Server()
    app = web.app(server, tokens=TokenFile.__new__(TokenFile))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    async def statuses():
        return [(await http.get(path)).status_code for path in ("/healthz", "/readyz")]

    assert await statuses() == [200, 503]
    async with server:
        assert await statuses() == [200, 200]
    assert await statuses() == [200, 503]
    for path in ("/healthz", "/readyz"):
        answer = await http.head(path)
        assert answer.content == b""
        assert "set-cookie" not in answer.headers


async def test_many_readers_of_a_run_see_each_event_once_whenever_they_come():
    async with Server() as server:
        furnish(server)
        SEEN["asked"] = anyio.Event()
        api, texts = client(server), []
        run = await server.start("tidy")

        async def follow(since):
            texts.append(
                (await api.get(f"/runs/{run.id}/events", headers={"Last-Event-ID": str(since)})).text
            )

        async with anyio.create_task_group() as group:
            for _ in range(20):  # more than are woken in one turn
                group.start_soon(follow, 0)
            while run.tasks["one"].state is not TaskState.RUNNING:
                await anyio.lowlevel.checkpoint()
            run.pause()
            run.resume()
            group.start_soon(follow, 0)  # late, and behind
            group.start_soon(follow, run.last_event)
            await anyio.lowlevel.checkpoint()
            run.cancel()
            SEEN["asked"].set()
        seen = [re.findall(r"^id: (\d+)\nevent: (\S+)$", text, re.MULTILINE) for text in texts]
        *whole, rest = sorted(seen, key=len, reverse=True)
        assert len(whole) == 21
        assert all(events == whole[0] for events in whole)
        assert [int(number) for number, _ in whole[0]] == list(range(1, run.last_event + 1))
        assert whole[0][-len(rest) :] == rest
        assert all(text.endswith("event: end\ndata: {}\n\n") for text in texts)


async def test_one_reader_leaves_and_another_reads_on():
    feed_of = []

    async def note(data):
        feed_of.append(data)

    async with Server() as server:
        furnish(server)
        SEEN["asked"] = anyio.Event()
        run = await server.start("tidy")
        feed = Feed(run.events, run.last_event)

        async def follow(scope):
            with scope:
                await feed.stream(0, lambda _: True, note)

        first, second = anyio.CancelScope(), anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(follow, first)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(follow, second)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            run.cancel()
            SEEN["asked"].set()
        assert feed_of[-1] == b"event: end\ndata: {}\n\n"


async def test_there_are_not_more_streams_than_the_limits_say():
    async with Server() as server:
        furnish(server)
        run = await server.start("slow")
        api = client(server, limits=Limits(streams_of_user=2))
        statuses = []
        async with anyio.create_task_group() as group:

            async def follow():
                statuses.append((await api.get(f"/runs/{run.id}/events")).status_code)

            group.start_soon(follow)
            group.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            refused = await api.get("/events")
            assert told(refused)[:2] == (503, "busy")
            assert "retry-after" in refused.headers
            run.cancel()
        assert statuses == [200, 200]
        assert (await api.get(f"/runs/{run.id}/events")).status_code == 200  # there is room again


async def test_a_page_shows_the_description_without_anything_from_outside():
    async with Server() as server:
        api = client(server)
        page = (await api.get("/../docs")).text
        for row in rows():
            assert f"{API}{row.path}" in page
        assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', page) == []
        assert f"{API}/runs/{{run}}/events" in page


async def test_with_a_journal_the_answer_comes_when_what_was_asked_for_is_durable():
    journal = MemoryJournal()
    async with Server(watch=False, grace=0.1, journal=journal) as server, client(server) as http:
        furnish(server)
        run = (await http.post("/jobs/slow/runs")).json()["run"]
        journal.auto, answers = False, []

        async def ask():
            answers.append(await http.post(f"/runs/{run}/pause"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            while not journal.waiting:
                await anyio.lowlevel.checkpoint()
            assert (await http.get(f"/runs/{run}")).status_code == 200
            assert not answers
            journal.auto = True
            journal.commit_all()
        assert answers[0].status_code == 200
        journal.fail_next("database or disk is full", times=50)
        assert told(await http.post(f"/runs/{run}/resume"))[:2] == (503, "journal-unavailable")
        while not journal.commit():
            pass
        journal.commit_all()


async def test_a_run_is_shown_as_it_is_however_often_one_looks_while_it_goes_on():
    seen = SEEN["asked"] = anyio.Event()
    async with Server() as server:
        furnish(server)
        job = JobDefinition.build("both").task("quick", "Work").task("slow", "Tidy", depends_on=["quick"])
        server.define(job.done())
        async with client(server) as http:
            run = await server.start("both")
            async for event in run.events():
                if event.task == "slow" and event.state is TaskState.RUNNING:
                    break
            first, second = [(await http.get(f"/runs/{run.id}")).json()["tasks"] for _ in range(2)]
            assert first == second
            assert [(row["state"], "ended" in row) for row in first] == [
                ("succeeded", True),
                ("running", False),
            ]
            run.cancel()
            seen.set()
            await run.wait()
            last = (await http.get(f"/runs/{run.id}")).json()["tasks"]
            assert last[0] == first[0]
            assert last[1] == (await http.get(f"/runs/{run.id}")).json()["tasks"][1]
            assert last[1]["state"] == "cancelled"


async def test_with_a_journal_the_ids_of_events_are_good_over_restarts():
    journal = MemoryJournal()
    async with Server(watch=False, grace=0.1, journal=journal) as server:
        furnish(server)
        run = await server.start("slow")
    async with Server(watch=False, grace=0.1, journal=journal.again()) as server, client(server) as http:
        furnish(server)
        assert (await http.get("/jobs")).headers["scattersphere-journal"] == server.journal_id
        run = server.runs[run.id]
        async for event in run.events():
            if event.kind is EventKind.RUN_RECOVERED:
                break
        run.cancel()
        await run.wait()
        every = ids((await http.get(f"/runs/{run.id}/events")).text)
        assert every[0] == ("2.1", "run-recovered")
        assert every[-1][1] == "run-ended"
        later = {"last-event-id": every[0][0]}
        assert ids((await http.get(f"/runs/{run.id}/events", headers=later)).text) == every[1:]
        older = {"last-event-id": "1.2"}
        anew = ids((await http.get(f"/runs/{run.id}/events", headers=older)).text)
        assert anew == [("2.0", "lagged"), *every]
        assert told(await http.get(f"/runs/{run.id}/events?since=1.2.3"))[:2] == (422, "bad-args")


def ids(text):
    return re.findall(r"id: (\S+)\nevent: (\S+)\n", text)


async def test_runs_that_only_the_journal_has_are_hidden_from_who_may_not_see_them():
    journal = MemoryJournal()
    async with Server(watch=False, grace=0.1, journal=journal) as server:
        furnish(server)
        for run in (await server.start("night"), await server.start_task("app:Work")):
            await run.wait()
    async with Server(watch=False, grace=0.1, journal=journal.again()) as server:
        furnish(server)
        for patterns, seen in (((), [2, 1]), (("job:n*",), [1]), (("bundle:app",), [2]), (("job:x",), [])):
            async with client(server, Role.VIEWER, patterns) as http:
                assert [row["run"] for row in (await http.get("/runs")).json()["runs"]] == seen
                for run in (1, 2):
                    status = (await http.get(f"/runs/{run}")).status_code
                    assert status == (200 if run in seen else 404)
                    answer = await http.get(f"/runs/{run}/events")
                    assert answer.status_code == status
        async with client(server) as http:
            assert (await http.get("/runs/1/result")).json()["results"] == {"one": 3}


@pytest.mark.parametrize("path", ["/jobs/a%0Ab/run", "/nothing%0A/here", "/%0A", "/jobs/a%0D%0Ab"])
async def test_a_path_with_line_feeds_is_answered_to_programs_too(path):
    async with Server() as server, client(server) as http:
        furnish(server)
        assert told(await http.get(path))[0] in {404, 405}

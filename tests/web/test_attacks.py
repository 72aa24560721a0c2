"""Attacks on the pages: texts that would be code, forms of other sites, frames, addresses that lead elsewhere."""

from __future__ import annotations

import html.parser
import json
from urllib.parse import quote, unquote

import anyio
import httpx
import pytest
from patience import PATIENCE
from starlette.applications import Starlette
from starlette.routing import Mount

from scattersphere import JobDefinition, Parameter, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.limits import Limits
from scattersphere.model.states import TaskState
from scattersphere.web.forms import FORMS

pytestmark = pytest.mark.anyio
EVIL = (
    "</title></script></textarea><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7919*7907}}\u202e"
)
ORIGIN = "http://localhost"


class Evil(RunnableTask):
    """</script><script>alert(1)</script>"""

    text: str = EVIL
    hang: bool = False

    async def run(self, context):
        context.progress(1, 2, self.text)
        context.log.error(self.text)
        if self.hang:
            await anyio.sleep_forever()
        raise type(f"Evil{self.text}", (Exception,), {})(self.text)


class Give(RunnableTask):
    async def run(self, context):
        return {EVIL: [EVIL]}


class Page(html.parser.HTMLParser):
    """Collects what a browser would run or load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in {"script", "img", "iframe", "object", "embed", "style", "base"} else []
        self.found += [name for name, value in attrs if name.startswith("on") or name == "style"]
        self.found += [value for _, value in attrs if (value or "").strip().lower().startswith("javascript:")]


def is_clean(text, *, scripts):
    page = Page()
    page.feed(text)
    assert page.found == ["script"] * scripts
    assert "62615533" not in text  # nothing of it is taken for a template


def browser(server, prefix="", user="ada", **more):
    async def authorize(scope):
        return Principal(user=user, role=Role.ADMIN)

    app = web.app(server, authorize=authorize, limits=Limits(rate=1e9, burst=10**9), **more)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=prefix)
    return httpx.AsyncClient(transport=transport, base_url=ORIGIN + prefix, headers={"Origin": ORIGIN})


async def token_of(client):
    page = await client.get("/")
    return page.text.split('name="csrf" value="')[1].split('"')[0]


async def test_no_text_of_a_user_a_task_a_file_or_an_address_becomes_part_of_a_page(tmp_path):
    roots = tmp_path / "bundles"
    roots.mkdir()
    (roots / "<img src=x onerror=alert(1)>.py").write_text("")
    (roots / "broken.py").write_text(f"raise ValueError({EVIL!r})\n")
    job = JobDefinition(
        name="evil",
        description=EVIL,
        params={
            "text": Parameter(type="string", default=EVIL, description=EVIL),
            "object": Parameter(type="object", default={EVIL: EVIL}),
        },
        schedules={"often": {"every": 86_400, "params": {"text": EVIL}}},
        tasks=JobDefinition.build("x")
        .task("a", "Evil", args={"text": {"$param": "text"}})
        .task("many", "Evil", map={"text": [EVIL, EVIL]})
        .task("give", "Give")
        .done()
        .tasks,
    )
    async with Server(bundle_roots=[roots], watch=False) as server:
        server.register_tasks("app", [Evil, Give])
        server.define(job)
        await (await server.start("evil")).wait()
        live = await server.start_task("Evil", {"text": EVIL, "hang": True})
        while live.tasks["Evil"].state is not TaskState.RUNNING:
            await anyio.lowlevel.checkpoint()
        client = browser(server, user=EVIL, bundle_roots=[roots])
        token = await token_of(client)
        for path in (
            "/", "/jobs", "/jobs/evil", "/runs", "/runs/1", "/runs/1?task=a", "/runs/1?task=many&instances=failed", "/runs/2", "/bundles",
            "/schedules", "/define?job=evil", "/api/docs", f"/runs/1?task={EVIL}", f"/runs/1?task=many&instances={EVIL}", f"/runs/1?find={EVIL}",
            f"/runs?job={EVIL}&state={EVIL}&q={EVIL}&sort={EVIL}&order={EVIL}&page={EVIL}", f"/jobs?q={EVIL}&sort={EVIL}", f"/bundles?q={EVIL}",
            f"/schedules?q={EVIL}&state={EVIL}", f"/jobs/evil?like={EVIL}",
        ):  # fmt: skip
            answer = await client.get(path)
            assert answer.status_code == 200, path
            is_clean(answer.text, scripts=1)
        for path in (f"/jobs/{EVIL}", f"/login?code={EVIL}", f"/define?job={EVIL}", "/<script>"):
            answer = await client.get(path)
            assert answer.status_code in {404, 409}, path
            is_clean(answer.text, scripts=0)
        typed = {"csrf": token, "p.text": EVIL, "p.object": EVIL, "key": EVIL}
        answer = await client.post("/jobs/evil/runs", data=typed)
        assert answer.status_code == 422
        is_clean(answer.text, scripts=1)
        for definition in (EVIL, json.dumps({"name": EVIL, EVIL: EVIL, "tasks": {EVIL: {"task": EVIL}}})):
            answer = await client.post("/define", data={"csrf": token, "definition": definition})
            assert answer.status_code == 422
            is_clean(answer.text, scripts=1)
        assert (await client.post("/runs/2/cancel", data={"csrf": token, "reason": EVIL})).status_code == 303
        await live.wait(PATIENCE)
        is_clean((await client.get("/runs/2")).text, scripts=1)
        is_clean((await client.get("/runs?q=script")).text, scripts=1)
        for number in (1, 2):  # what a live page puts into itself
            stream = (await client.get(f"/runs/{number}/live")).text
            messages = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
            assert messages
            for message in messages:
                for part in (message["put"], message["append"]):
                    for text in part.values():
                        is_clean(text, scripts=0)
        log = await client.get("/runs/1/log.txt")
        assert log.headers["content-type"].startswith("text/plain")
        assert log.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("prefix", ["", "/ops/jobs"])
async def test_each_form_is_refused_without_its_token_and_from_another_site(prefix):
    async with Server() as server:
        server.register_tasks("app", [Give])
        server.define(JobDefinition.build("j").task("a", "Give").done())
        client = browser(server, prefix)
        token = await token_of(client)
        paths = [
            form.path.replace("{run:scattersphere_number}", "1").replace("{", "").replace("}", "")
            for form in FORMS
        ]
        for path in [*paths, "/jobs/j/runs", "/define", "/theme", "/logout"]:
            for data, headers in (
                ({}, {}),
                ({"csrf": "guess"}, {}),
                ({"csrf": token[:-1]}, {}),
                ({"csrf": token}, {"Origin": "https://evil.example"}),
                ({"csrf": token}, {"Origin": "null"}),
                ({"csrf": token}, {"Origin": ORIGIN + ".evil.example"}),
                ({"csrf": token}, {"Origin": "https://localhost"}),
            ):
                answer = await client.post(path, data=data, headers=headers)
                assert answer.status_code == 403, (path, data, headers)
        assert not server.runs
        assert list(server.definitions) == ["j"]


@pytest.mark.parametrize("prefix", ["", "/ops/jobs"])
async def test_no_answer_can_be_framed_and_none_leads_to_another_site(prefix):
    async with Server() as server:
        server.register_tasks("app", [Give])
        server.define(JobDefinition.build("j").task("a", "Give").done())
        await (await server.start("j")).wait()
        client = browser(server, prefix)
        token = await token_of(client)
        answers = [
            await client.get(path)
            for path in ("/", "/runs/1", "/runs/9", "/nowhere", "/static/page.js", "/healthz", "/api/docs", "/api/openapi.json",
                         "/api/v1/runs", "/api/v1/nowhere", "/runs/1/live", "/runs/1/log.txt", "/login", "/api/v1/runs/1/events")
        ]  # fmt: skip
        answers += [await client.post("/theme"), await client.put("/runs/1")]
        for answer in answers:
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], answer.url
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-frame-options"] == "DENY"
        for find in (
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\r\nLocation: //evil.example",
            "javascript:alert(1)",
        ):
            location = (await client.get("/go", params={"q": find})).headers["location"]
            assert location.startswith(f"{prefix}/jobs?q="), location
        for came in (
            "https://evil.example/",
            ORIGIN + ".evil.example/",
            ORIGIN + "@evil.example/",
            "//evil.example",
        ):
            answer = await client.post(
                "/theme", data={"csrf": token, "theme": "dark"}, headers={"Referer": came}
            )
            assert (answer.status_code, answer.headers["location"]) == (303, f"{prefix}/")


async def test_a_name_in_an_address_stays_one_part_of_it():
    """`..`, slashes and percent signs in a name lead to no other form or page."""
    async with Server() as server:
        client = browser(server, "/ops")
        token = await token_of(client)
        for name in ("..%2f..%2fevil", "%2e%2e", "a%2fb", "%00", "%ff", "a%0d%0ab"):
            answer = await client.post(f"/bundles/{name}/reload", data={"csrf": token})
            assert answer.status_code in {404, 405, 403, 422}, name
            assert "location" not in answer.headers


@pytest.mark.parametrize(
    "team", ["a; Domain=evil.example", "a\r\nSet-Cookie: b=c", "日本", 'a b"><script>', "a%2Fb;c"]
)
async def test_below_a_prefix_that_a_stranger_chooses_it_stays_a_prefix(team):
    """`Mount("/{team}", app)`: what stood in the prefix became attributes of the cookie, or an error of a header."""
    async with Server() as server:
        server.register_tasks("app", [Give])
        server.define(JobDefinition.build("j").task("a", "Give").done())

        async def authorize(scope):
            return Principal(user="ada", role=Role.ADMIN)

        host = Starlette(routes=[Mount("/{team}", web.app(server, authorize=authorize))])
        prefix = "/" + quote(team, safe="")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url=ORIGIN) as client:
            page = await client.get(prefix + "/")
            assert page.status_code == 200
            is_clean(page.text, scripts=1)
            cookie = page.headers["set-cookie"]
            path = cookie.partition("; Path=")[2].partition(";")[0]
            assert unquote(path) == "/" + team
            assert cookie.partition("; Path=")[2] == f"{path}; HttpOnly; SameSite=Strict"
            csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
            assert f'href="{path}/runs"' in page.text
            headers = {"Origin": ORIGIN, "Cookie": cookie.partition(";")[0]}
            started = await client.post(f"{path}/jobs/j/runs", data={"csrf": csrf}, headers=headers)
            assert (started.status_code, started.headers["location"]) == (303, f"{path}/runs/1")
            assert (await client.get(started.headers["location"], headers=headers)).status_code == 200
            again = await client.post(f"{path}/api/v1/jobs/j/runs", headers={"Origin": ORIGIN})
            assert (again.status_code, again.headers["location"]) == (201, f"{path}/api/v1/runs/2")
            schema = (await client.get(f"{path}/api/openapi.json")).json()
            assert schema["servers"][0]["url"].startswith(path)


@pytest.mark.parametrize("host", ["x/api/v1/", "[x", "x?y", "x#y"])
async def test_the_host_that_a_client_names_is_no_part_of_the_path(host):
    """An `authorize` of the host's is asked whatever the name, and the path of `request.url` is made of it."""
    async with Server() as server, browser(server) as client:
        del client.headers["Origin"]
        headers = {"Host": host, "Sec-Fetch-Site": "same-origin"}
        answer = await client.request("PATCH", "/runs", headers=headers)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
        assert answer.headers["content-type"].startswith("text/html")

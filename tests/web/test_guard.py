"""Who comes in to the pages: one-time links, cookies, Host, Origin, the token of a form, headers."""

from __future__ import annotations

import httpx
import pytest

from scattersphere import JobDefinition, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.web.guard import CODE_LIFE, FORM, IDLE, MOST, Links, RefusedError, read_form

ADA = Principal(user="ada", role=Role.OPERATOR)
pytestmark = pytest.mark.anyio


class Work(RunnableTask):
    async def run(self, context):
        return 1


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


async def serve(server, links, **more):
    server.register_tasks("app", [Work])
    server.define(JobDefinition.build("job").task("one", "Work").done())
    return browser(web.app(server, links=links, **more))


def browser(app, base="http://localhost"):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=base, headers={"Origin": base})


async def logged_in(server, **more):
    links = Links(Clock())
    client = await serve(server, links, **more)
    answer = await client.get("/login", params={"code": links.new_code(ADA)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return client


def token_of(page):
    return page.text.split('name="csrf" value="')[1].split('"')[0]


def test_a_code_logs_in_once_and_for_a_minute():
    clock = Clock()
    links = Links(clock)
    code = links.new_code(ADA)
    secret = links.log_in(code)
    assert links.find(secret) is ADA
    assert links.log_in(code) is None
    last, late = links.new_code(ADA), links.new_code(ADA)
    clock.now += CODE_LIFE
    assert links.log_in(last) is not None
    clock.now += 1
    assert links.log_in(late) is None
    assert links.log_in("guess") is None


def test_a_browser_is_forgotten_when_it_was_idle_or_logs_out():
    clock = Clock()
    links = Links(clock)
    secret, other = (links.log_in(links.new_code(ADA)) for _ in range(2))
    clock.now += IDLE
    assert links.find(secret) is ADA
    clock.now += IDLE
    assert links.find(secret) is ADA  # it was used in between
    assert links.find(other) is None
    links.log_out(secret)
    assert links.find(secret) is None


def test_codes_and_browsers_are_bounded():
    links = Links(Clock())
    codes = [links.new_code(ADA) for _ in range(MOST + 1)]
    assert links.log_in(codes[0]) is None
    assert links.log_in(codes[-1]) is not None


@pytest.mark.parametrize("more", [0, 1])
async def test_a_form_may_have_so_many_bytes_and_not_one_more(more):
    body = b"csrf=x&note=" + b"n" * more

    async def receive():
        return {"type": "http.request", "body": body}

    read = read_form(receive, "x", most=len(body) - more)
    if not more:
        assert await read == {"note": ""}
        return
    with pytest.raises(RefusedError, match="the form has more than 12 bytes"):
        await read


def test_nobody_comes_in_by_default():
    with pytest.raises(ValueError, match="nobody could come in"):
        web.app(Server())
    with pytest.raises(ValueError, match="give either authorize="):
        web.app(Server(), links=Links(Clock()), authorize=object())


@pytest.mark.parametrize(
    "path", ["/", "/runs", "/runs/1", "/runs/1/live", "/jobs/job", "/bundles", "/live", "/runs/1/log.txt"]
)
async def test_without_a_cookie_nothing_is_shown(path):
    async with Server() as server:
        client = await serve(server, Links(Clock()))
        answer = await client.get(path)
        assert answer.status_code == 401
        assert "job" not in answer.text
        assert (await client.get(path, headers={"Cookie": "scattersphere=guess"})).status_code == 401


async def test_the_cookie_is_for_the_pages_alone_and_no_script_reads_it():
    async with Server() as server:
        links = Links(Clock())
        client = await serve(server, links)
        answer = await client.get("/login", params={"code": links.new_code(ADA)})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        assert "Path=/" in cookie
        assert "Secure" not in cookie
        safe = browser(web.app(server, links=links), "https://localhost")
        assert (
            "; Secure"
            in (await safe.get("/login", params={"code": links.new_code(ADA)})).headers["set-cookie"]
        )


async def test_a_preview_of_a_link_does_not_use_it_up():
    async with Server() as server:
        links = Links(Clock())
        client = await serve(server, links)
        code = links.new_code(ADA)
        assert (await client.head("/login", params={"code": code})).status_code == 405
        assert (await client.get("/login", params={"code": code})).status_code == 303


async def test_a_name_that_is_not_ours_is_refused_so_that_no_other_sites_name_can_lead_here():
    async with Server() as server:
        client = await logged_in(server, hosts=("jobs.example",))
        assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 421
        assert (await client.get("/", headers={"Host": "evil.example:8000@localhost"})).status_code == 421
        assert (await client.get("/", headers={"Host": "jobs.example:8000"})).status_code == 200
        assert (await client.get("/", headers={"Host": "[::1]:8000"})).status_code == 200


async def test_a_probe_asks_by_whatever_name():
    async with Server() as server:
        client = await serve(server, Links(Clock()))
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path, headers={"Host": "10.1.2.3:8000"})).status_code == 200
        assert (await client.get("/healthz/../", headers={"Host": "10.1.2.3:8000"})).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
        [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
        [("Origin", "http://localhost"), ("Origin", "http://evil.example")],
        [("Last-Event-ID", "1"), ("last-event-id", "2")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "2")],
    ],
)
async def test_a_request_that_two_readers_could_take_for_two_is_refused_and_its_connection_closed(headers):
    async with Server() as server:
        client = await serve(server, Links(Clock()))
        del client.headers["Origin"]
        answer = await client.post("/api/v1/jobs/job/runs", headers=headers)
        assert (answer.status_code, answer.headers["connection"]) == (400, "close")
        assert answer.headers["content-type"] == "application/problem+json"
        assert not server.runs


async def test_a_form_counts_only_from_our_own_page_with_its_own_token():
    async with Server() as server:
        client = await logged_in(server)
        token = token_of(await client.get("/jobs/job"))
        for headers, fields in [
            ({"Origin": "https://evil.example"}, {"csrf": token}),
            ({"Origin": "null"}, {"csrf": token}),
            ({"Origin": "http://localhost:81"}, {"csrf": token}),
            ({}, {"csrf": "0" * 32}),
            ({}, {"csrf": ""}),
            ({}, {"csrf": "Grüße"}),
            ({}, {}),
        ]:
            assert (await client.post("/jobs/job/runs", headers=headers, data=fields)).status_code == 403
        client.headers.pop("Origin")  # some browsers hide it, and say in another way where they come from
        assert (await client.post("/jobs/job/runs", data={"csrf": token})).status_code == 403
        cross = {"Sec-Fetch-Site": "cross-site"}
        assert (await client.post("/jobs/job/runs", data={"csrf": token}, headers=cross)).status_code == 403
        assert not server.runs
        same = {"Sec-Fetch-Site": "same-origin"}
        assert (await client.post("/jobs/job/runs", data={"csrf": token}, headers=same)).status_code == 303


async def test_a_form_without_a_token_is_refused_where_there_is_no_cookie_that_a_token_could_hang_on():
    async def authorize(_):
        return ADA

    async with Server() as server:
        client = browser(web.app(server, authorize=authorize))
        assert (await client.post("/theme", data={"csrf": "", "theme": "dark"})).status_code == 403


async def test_the_token_of_one_browser_does_not_serve_another():
    async with Server() as server:
        links = Links(Clock())
        app = web.app(server, links=links)
        first, second = browser(app), browser(app)
        for client in (first, second):
            await client.get("/login", params={"code": links.new_code(ADA)})
        token = token_of(await first.get("/"))
        assert (await second.post("/theme", data={"csrf": token, "theme": "dark"})).status_code == 403
        assert (await first.post("/theme", data={"csrf": token, "theme": "dark"})).status_code == 303


# httpx hands a body over from a generator of its own, which it forgets where it is not read to its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_forms_that_are_large_or_no_forms_are_refused():
    async with Server() as server:
        client = await logged_in(server)
        for body, status in [
            (b"x" * (FORM + 1), 413),
            (b"\xff=1", 400),
            (b"a&&b", 400),
            (b"&".join([b"a=1"] * 1001), 400),
        ]:
            assert (await client.post("/theme", content=body)).status_code == status


async def test_every_answer_forbids_frames_foreign_code_and_guessing_of_types():
    async with Server() as server:
        client = await logged_in(server)
        for path in ("/", "/nowhere", "/static/style.css", "/login?code=x", "/runs/9"):
            headers = (await client.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
        assert (await client.get("/")).headers["cache-control"] == "no-store"
        assert "immutable" in (await client.get("/static/style.css")).headers["cache-control"]


async def test_a_host_with_rights_of_its_own_decides_for_each_request():
    asked = []

    async def authorize(scope):
        asked.append(scope["path"])
        return ADA if (b"x-user", b"ada") in scope["headers"] else None

    async with Server() as server:
        client = browser(web.app(server, authorize=authorize), "http://any.example")
        assert (await client.get("/")).status_code == 401
        client.headers["X-User"] = "ada"
        page = await client.get("/")
        assert (page.status_code, asked) == (200, ["/", "/"])
        assert (await client.post("/theme", data={"csrf": token_of(page), "theme": ""})).status_code == 303
        assert (await client.get("/login", params={"code": "x"})).status_code == 404


async def test_logging_out_forgets_the_browser():
    async with Server() as server:
        client = await logged_in(server)
        token = token_of(await client.get("/"))
        assert (await client.post("/logout", data={"csrf": token})).status_code == 200
        assert (await client.get("/")).status_code == 401

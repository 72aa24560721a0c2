"""Over the network only an admin says which variables of the environment a job reads."""

import json

import httpx
import pytest
from wire import served

from scattersphere import RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.web.guard import API

pytestmark = pytest.mark.anyio
TEXT = json.dumps(
    {
        "format": 2,
        "name": "etl_load",
        "params": {"token": {"secret": True, "env": "DB_PASSWORD"}},
        "tasks": {"say": {"task": "Say", "args": {"text": {"$param": "token"}}}},
    }
)


class Say(RunnableTask):
    """Say something."""

    text: str = ""

    async def run(self, context):
        context.log.info("said %s", self.text)


async def test_over_the_wire(tmp_path):
    async with served(tmp_path) as front:
        async with front.client("operator") as client:
            error = (await client.ask(f"define {TEXT}"))["error"]
            assert (error["code"], error["field"]) == ("forbidden", "definition")
            assert "params.token.env" in error["message"]
            assert "role admin" in error["message"]
        assert "etl_load" not in front.server.definitions
        async with front.client("admin") as client:
            assert (await client.ask(f"define {TEXT}"))["result"]["state"] == "ready"
            error = (await client.ask("start etl_load"))["error"]
            assert "secret_env" in json.dumps(error)


async def test_over_http(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "correct horse")
    async with Server(secret_env={"etl_*": ["DB_*"]}) as server:
        server.register_tasks("app", [Say])
        for role, status in ((Role.OPERATOR, 403), (Role.ADMIN, 201)):

            async def authorize(scope, role=role):
                return Principal(user="ada", role=role, patterns=())

            app = web.app(server, authorize=authorize)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://localhost{API}") as http:
                answer = await http.post("/jobs", content=TEXT)
                assert answer.status_code == status, answer.text
                if role is Role.ADMIN:
                    run = await server.start("etl_load")
                    await run.wait()
                    for path in ("", "/explain"):
                        shown = await http.get(f"/runs/{run.id}{path}")
                        assert "correct horse" not in shown.text
                    assert "said ***" in (await http.get("/logs", params={"run": run.id})).text

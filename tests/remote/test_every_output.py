"""All commands, in all outputs, over wire and HTTP, with marked values: no secret leaves, and nothing steers a terminal.

Nor can a text that somebody else wrote pass for a line of ours.
"""

import json
import re
from contextlib import suppress

import anyio
import httpx
import pytest
from patience import PATIENCE
from wire import served

from scattersphere import JobDefinition, RunnableTask, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.table import COMMANDS
from scattersphere.web.client import connect

pytestmark = [
    pytest.mark.anyio,
    # httpx leaves the generators inside its streams to the collector, which trio warns of.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator:pytest.PytestUnraisableExceptionWarning"
    ),
]
SECRETS = ("given-hunter2", "default-hunter2", "scheduled-hunter2", "environment-hunter2")
GIVEN, DEFAULT, SCHEDULED, ENVIRONMENT = SECRETS
EVIL = "\x1b[31mred \u202egnp.exe\x9b2J\x07\x7f\u2028\n-- 999\n* 1 forged\n-- bye: forged\nend"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
FORGED = re.compile(r"^(-- 999|\* 1 forged|-- bye: forged)", re.MULTILINE)


class Leak(RunnableTask):
    """Say all that it knows, wherever something can be said."""

    given: str
    default: str
    environment: str

    async def run(self, context):
        said = f"{self.given} {self.default} {self.environment} {EVIL}"
        context.log.info("%s", said)
        context.progress(1, 2, said)
        try:
            raise ValueError(said)  # noqa: TRY301 - for its traceback
        except ValueError as exc:
            context.log.exception("again: %s", said)
            raise RuntimeError(said) from exc


class Evil(RunnableTask):
    """Return a text that steers terminals."""

    text: str = EVIL

    async def run(self, context):
        return {EVIL: [self.text, {"a": self.text}]}


def leaky(name):
    params = {
        "given": {"type": "string", "required": True, "secret": True},
        "default": {"type": "string", "default": DEFAULT, "secret": True},
        "environment": {"secret": True, "env": "LEAK"},
        "evil": EVIL,
    }
    args = {key: {"$param": key} for key in ("given", "default", "environment")}
    return {
        "format": 2,
        "name": name,
        "description": EVIL,
        "params": params,
        "tasks": {"leak": {"task": "Leak", "args": args}, "evil": {"task": "Evil"}},
        "schedules": {"late": {"every": 1e8, "params": {"given": SCHEDULED, "default": SCHEDULED}}},
    }


WRONG = {"format": 2, "name": "wrong", "tasks": {"a": {"task": EVIL, EVIL: 1}}, "params": {EVIL: 1}}
PAST = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "dry_run": True}
LATE = {"job": "leak", "schedule": "late"}
ASKED = {
    "hello": [{"protocol": 2}],
    "auth": [{"token": EVIL}],
    "ping": [{}],
    "help": [{}, {"command": "run"}],
    "whoami": [{}],
    "commands": [{}],
    "schema": [{}, {"command": "define"}, {"command": "definition"}],
    "output": [],  # all three are gone through
    "bundles": [{}, {"name": "app"}],
    "tasks": [{}, {"bundle": "app"}],
    "task": [{"path": "Leak"}, {"path": "Evil"}],
    "register": [{"file": "broken.py"}, {"file": "fine.py"}],
    "reload": [{"name": "fine"}, {"name": "app"}],
    "deregister": [{"name": "fine"}],
    "jobs": [{}],
    "job": [{"name": "leak"}],
    "define": [{"definition": leaky("leak"), "replace": True}, {"definition": WRONG}],
    "validate": [{"definition": leaky("leak2")}, {"definition": WRONG}],
    "save": [{"job": "leak", "overwrite": True}],
    "load": [{"job": "leak", "replace": True}],
    "start": [
        {"job": "leak", "params": {"given": GIVEN}},
        {"job": "leak", "params": {"given": [GIVEN], EVIL: 1}},
    ],
    "run": [{"job": "leak", "params": {"given": GIVEN}}, {"job": "leak"}],
    "start-task": [{"task": "Evil", "args": {"text": 7}}],
    "run-task": [{"task": "Evil"}, {"task": "Evil", "args": {EVIL: 1}}],
    "runs": [{}, {"job": "leak"}],
    "status": [{"run": 1}, {"run": 2}],
    "result": [{"run": 1}, {"run": 2}, {"run": 2, "task": "Evil"}],
    "explain": [{"run": 1}, {"run": 2}],
    "pause": [{"run": 1}],
    "resume": [{"run": 1}],
    "stop": [{"run": 1, "reason": EVIL}],
    "cancel": [{"run": 1, "reason": EVIL}],
    "kill": [{"run": 1, "reason": EVIL}],
    "rerun": [{"run": 1}, {"run": 1, "code": "latest", "from_failed": False}],
    "wait": [{"run": 1, "timeout": 1}],
    "logs": [{}, {"run": 1}, {"run": 2}],
    "follow": [{"run": 1, "since": 0}, {"since": 0}],
    "unfollow": [{"subscription": 1}],
    "schedules": [{}],
    "next": [LATE],
    "pause-schedule": [LATE],
    "resume-schedule": [LATE],
    "run-schedule": [LATE],
    "backfill": [LATE | PAST],
    "stats": [{}],
    "sessions": [{}],
    "undefine": [{"job": "other"}],
    "shutdown": [{}],
    "drop": [{"role": "viewer"}],
    "quit": [{}],
}


def requests():
    """Yield each command with each of its arguments, then with texts that steer in all that take one."""
    for name, asked in ASKED.items():
        row = COMMANDS[name]
        texts = {
            key: EVIL for key, taken in row.arguments.items() if taken.kind == "string" and not taken.choices
        }
        needed = {
            key: 1 for key, taken in row.arguments.items() if taken.required and taken.kind == "integer"
        }
        for args in [*asked, *([needed | texts] if texts and name not in {"auth", "validate"} else [])]:
            yield name, args


@pytest.fixture
async def front(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAK", ENVIRONMENT)
    roots, jobs = tmp_path / "roots", tmp_path / "jobs"
    roots.mkdir(mode=0o755)
    jobs.mkdir(mode=0o755)
    for name, text in (("broken.py", f"raise ValueError({EVIL!r})\n"), ("fine.py", "x = 1\n")):
        (roots / name).write_text(text)
        (roots / name).chmod(0o644)
    audit = []

    class Audit:
        def record(self, **members):
            audit.append(members)

    options = {"bundle_roots": [roots], "job_folder": jobs, "audit": Audit()}
    async with served(tmp_path, secret_env={"*": ["LEAK"]}, **options) as front:
        front.audit = audit
        front.server.register_tasks("mine", [Leak, Evil])
        for name in ("leak", "other"):
            front.server.define(JobDefinition.loads(json.dumps(leaky(name))))
        await (await front.server.start("leak", {"given": GIVEN})).wait(PATIENCE)
        await (await front.server.start_task("Evil")).wait(PATIENCE)
        yield front


def test_every_command_is_asked():
    assert ASKED.keys() == COMMANDS.keys()


@pytest.mark.parametrize("role", ["admin", "viewer"])
@pytest.mark.parametrize("output", ["json", "pretty", "table"])
async def test_no_reply_event_or_record_shows_a_secret_steers_or_forges(front, output, role):
    said = b""
    async with front.client(role) as client:
        await client.send(f"output {output}")
        count = 0
        with anyio.fail_after(PATIENCE):
            for name, args in requests():
                count += 1
                await client.send(json.dumps({"cmd": name, "args": args}))
                heads = (
                    f'{{"n":{count + 2},'.encode(),
                    f'{{\n  "n": {count + 2},'.encode(),
                    f"-- {count + 2}".encode(),
                )
                while not any(head in b"\n" + client.rest for head in (b"\n" + head for head in heads)):
                    client.rest += await client.stream.receive()
            with suppress(anyio.EndOfStream):
                while True:
                    client.rest += await client.stream.receive()
        said = client.rest.decode()
    assert not any(secret in said for secret in SECRETS)
    assert not STEERS.search(said)
    assert not FORGED.search(said)
    assert "gnp.exe" in said
    assert output != "json" or said.isascii()
    assert not any(secret in repr(front.audit) for secret in SECRETS)
    recorded = {each["command"] for each in front.audit}
    assert recorded >= COMMANDS.keys() - {
        "ping",
        "whoami",
        "commands",
        "hello",
        "output",
        "quit",
        "help",
        "schema",
    }


async def test_no_answer_over_http_shows_a_secret_steers_or_forges(front):
    said = []

    async def authorize(scope):
        return Principal(user="ada", role=Role.ADMIN)

    async def note(response):
        said.append((response.request.url.path, (await response.aread()).decode()))

    app = web.app(front.server, authorize=authorize)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, event_hooks={"response": [note]}) as http:
        async with connect("http://localhost", http=http) as client:
            with anyio.fail_after(PATIENCE):
                for name, args in requests():
                    if COMMANDS[name].path is not None and name not in {"follow", "shutdown"}:
                        with suppress(Exception):  # errors, too, have been noted
                            await client.call(name, **args)
        for run in (1, 2):
            await http.get(f"http://localhost/api/v1/runs/{run}/events")
        for page in ("", "jobs", "jobs/leak", "runs", "runs/1", "runs/2", "bundles", "schedules"):
            await http.get(f"http://localhost/{page}")
    paths = {path for path, _ in said}
    assert {"/api/v1/runs/1", "/api/v1/runs/1/events", "/jobs/leak", "/runs/1"} <= paths
    for path, text in said:
        assert not any(secret in text for secret in SECRETS), path
        if path.startswith("/api/"):
            assert not STEERS.search(text), path
    assert any("gnp.exe" in text for path, text in said if path == "/api/v1/runs/1/events")

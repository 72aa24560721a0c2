"""Rights, secrets and strangers over real sockets; each incident class of comparable servers is named."""

import json
import os
import ssl
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import anyio
import pytest
import trustme
from wire import TASKS, closed, connected, job, over_unix, port_of, served

from scattersphere import Server
from scattersphere.commands.audit import AuditFile
from scattersphere.errors import ConflictError
from scattersphere.remote import ListenError, Role, TokenFile, listen

pytestmark = pytest.mark.anyio


def test_nothing_of_it_is_imported_unless_asked_for():
    code = (
        "import sys, scattersphere; print([m for m in sys.modules if m.startswith('scattersphere.remote')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_nothing_listens_by_default():
    """The incident class: open by default."""
    async with Server() as server:
        with pytest.raises(ListenError, match="say where"):
            await listen(server)
        with pytest.raises(ListenError, match="give tokens="):
            await listen(server, tcp="127.0.0.1:0")


async def test_a_browsers_request_is_sent_away_before_its_body_is_read(front):
    """The incident class: requests from browsers."""
    body = f"auth {front.tokens['admin']}\nshutdown\n"
    request = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    async with front.client(None) as client:
        await client.stream.send(request.encode())
        error, bye = await client.rest_of_it()
        assert error["error"]["code"] == "bad-frame"
        assert bye == {"bye": {"code": "bad-frame"}}


async def test_memory_before_authentication_stays_small(front):
    """The incident class: memory that strangers may fill."""
    async with front.client(None) as client:

        async def fill():
            await client.stream.send(b"a" * (50 << 20))
            while True:  # a send may also end well, its bytes being nowhere; the next read tells
                await client.stream.receive()

        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await fill()


def leaked(folder):
    places = [folder / "escaped.py", Path("/tmp/escaped-by-scattersphere.py")]
    return [place for place in places if place.exists()]


async def test_an_archive_whose_entries_lead_out_is_refused_and_writes_nothing(tmp_path):
    """The incident class: zip slip."""
    roots = tmp_path / "roots"
    roots.mkdir(mode=0o755)
    with zipfile.ZipFile(roots / "slip.zip", "w") as archive:
        archive.writestr("slip.py", "")
        archive.writestr("../escaped.py", "raise SystemExit")
        archive.writestr("/tmp/escaped-by-scattersphere.py", "raise SystemExit")
    (roots / "slip.zip").chmod(0o644)
    async with served(tmp_path, bundle_roots=[roots]) as front, front.client() as client:
        error = (await client.ask("register slip.zip"))["error"]
        assert error["code"] == "forbidden", error
        assert await client.code("bundles slip") == "no-such-bundle"
    assert leaked(tmp_path) == []


async def test_what_is_hidden_answers_exactly_as_what_is_absent(front):
    async with front.client() as admin:
        await admin.ok("define " + json.dumps(job("secret")))
        await admin.ok("define " + json.dumps(job("nightly1")))
        await admin.ok("start secret")
        await admin.ok("wait 1")
    async with front.client("bounded") as client:

        async def same(hidden, absent, *names):
            replies = []
            for line in (hidden, absent):
                reply = await client.ask(line)
                error = json.dumps(reply["error"])
                for name in names:
                    error = error.replace(name, "X")
                replies.append(error)
            assert replies[0] == replies[1]

        await same("job secret", "job absent", "secret", "absent")
        await same("start secret", "start absent", "secret", "absent")
        await same("undefine secret", "undefine absent", "secret", "absent")
        await same("save secret", "save absent", "secret", "absent")
        await same("bundles app", "bundles zzz", "app", "zzz")
        await same("deregister app", "deregister zzz", "app", "zzz")
        await same("tasks app", "tasks zzz", "app", "zzz")
        await same("task Say", "task Zzz", "Say", "Zzz")
        await same("start-task Say", "start-task Zzz", "Say", "Zzz")
        await same("start-task app:Say", "start-task zzz:Say", "app", "zzz")
        for verb in (
            "status",
            "logs",
            "result",
            "explain",
            "wait",
            "follow",
            "cancel",
            "kill",
            "pause",
            "rerun",
        ):
            await same(f"{verb} 1", f"{verb} 9", "1", "9")
        define = json.dumps(job("nightly2", "Say")), json.dumps(job("nightly2", "Zzz"))
        await same(f"define {define[0]}", f"define {define[1]}", "Say", "Zzz")
        assert await client.ok("runs") == {"runs": []}
        assert [row["name"] for row in (await client.ok("jobs"))["jobs"]] == ["nightly1"]
        assert await client.ok("tasks") == {"tasks": []}
        assert await client.ok("bundles") == {"bundles": []}


async def test_rights_are_checked_when_a_job_is_defined_and_again_when_it_is_run(front):
    async with front.client() as admin, front.client("bounded") as client:
        await admin.ok("define " + json.dumps(job("nightly1")))
        assert (
            await client.code("start nightly1") == "forbidden"
        )  # its code is in a bundle that is not covered
        assert await client.code("define " + json.dumps(job("other"))) == "forbidden"
        early = job("nightly3")
        early["tasks"]["only"]["bundle"] = "etl"
        assert (await client.ok("define " + json.dumps(early)))["state"] == "unresolved"
        assert await client.code("start nightly3") == "conflict"


async def test_events_of_what_is_hidden_do_not_arrive(front):
    async with front.client() as admin, front.client("bounded") as client:
        await client.ok("follow")
        for name in ("secret", "nightly1", "secret2", "nightly2"):
            await admin.ok("define " + json.dumps(job(name)))
        assert [(await client.read())["job"] for _ in range(2)] == ["nightly1", "nightly2"]


async def test_the_penalty_for_failures_holds_across_sessions(front):
    for _ in range(2):
        async with front.client(None) as client:
            assert await client.code("auth a") == "auth-failed"
    async with front.client(None) as client:
        assert await client.code("auth a") == "auth-failed"
        assert await client.code(f"auth {front.tokens['admin']}") == "rate-limited"


async def test_the_audit_names_who_did_what_and_no_secret(tmp_path):
    path = tmp_path / "audit.log"
    with AuditFile(path) as audit:
        async with served(tmp_path, audit=audit) as front, front.client("operator") as client:
            definition = job("hi")
            definition["params"] = {"password": "default"}
            await client.ok("define " + json.dumps(definition))
            await client.ask("start hi password=hunter2")
            await client.ask("shutdown")
            async with front.client(None) as stranger:
                await stranger.ask("auth ss1_wrong")
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for secret in ("hunter2", "ss1_", front.tokens["operator"]):
        assert secret not in text
    records = [json.loads(line) for line in text.splitlines()]
    done = [(record["user"], record["command"], record["object"], record["outcome"]) for record in records]
    assert ("a-operator", "auth", "user a-operator", "ok") in done
    assert ("a-operator", "define", "job hi", "ok") in done
    assert ("a-operator", "start", "job hi", "ok") in done or ("a-operator", "start", "run 1", "ok") in done
    assert ("a-operator", "shutdown", "", "forbidden") in done
    assert (None, "auth", "", "auth-failed") in done
    assert all(record["peer"].startswith("127.0.0.1:") for record in records)


def test_an_audit_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "audit.log"
    path.write_text("")
    path.chmod(0o644)
    with pytest.raises(ListenError, match="0600"):
        AuditFile(path)


async def test_the_servers_own_user_is_admin_on_a_unix_socket(tmp_path):
    place = tmp_path / "run" / "s"
    async with Server() as server, listen(server, unix=place), over_unix(place) as client:
        assert client.greeting["scattersphere"]["auth"] == []
        user = {"user": f"uid={os.getuid()}", "role": "admin", "patterns": []}
        assert await client.ok("whoami") == user


async def test_another_user_on_a_unix_socket_needs_a_token(tmp_path, monkeypatch):
    monkeypatch.setattr("scattersphere.remote.addresses.peer_uid", lambda _: os.getuid() + 1)
    place = tmp_path / "run" / "s"
    async with Server() as server, listen(server, unix=place), over_unix(place) as client:
        assert client.greeting["scattersphere"]["auth"] == ["token"]
        assert await client.code("jobs") == "auth-required"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def contexts(authority):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_sessions_over_tls_and_plaintext_probes_beside_them(tmp_path, authority, caplog):
    server, client_context = contexts(authority)
    async with served(tmp_path, tls=server) as front:
        assert front.listening.addresses[0].startswith("tls://")
        async with await anyio.connect_tcp("127.0.0.1", port_of(front.listening)) as probe:
            await probe.send(b"ping\n")
            await closed(probe)
        options = {"tls": True, "ssl_context": client_context, "tls_standard_compatible": False}
        async with connected(front.listening, front.tokens["admin"], **options) as client:
            assert await client.ok("ping") == {"pong": True}
            await client.send("quit")
            assert (await client.rest_of_it())[-1] == {"bye": {"code": "quit"}}
    assert "Traceback" not in caplog.text


async def test_old_tls_is_refused(tmp_path, authority):
    server, _ = contexts(authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.minimum_version = ssl.TLSVersion.TLSv1_1
    async with Server() as engine:
        with pytest.raises(ListenError, match=r"before 1\.2"):
            await listen(engine, tcp="127.0.0.1:0", tokens=_a_file(tmp_path), tls=server)


def _a_file(folder):
    file = TokenFile(folder / "t.json")
    file.create("a", Role.VIEWER)
    return file


async def test_running_out_of_descriptors_is_survived(front, monkeypatch):
    """The incident class: an accept loop that ends at EMFILE."""
    import errno

    from scattersphere.remote import listener

    monkeypatch.setattr(listener, "ACCEPT_PAUSE", 0.001)
    failures = [
        OSError(errno.EMFILE, "too many"),
        OSError(errno.ENFILE, "too many"),
        OSError(errno.ECONNABORTED, "x"),
    ]
    real = listener.accept_one

    def accept(listening):
        if failures:
            raise failures.pop()
        return real(listening)

    monkeypatch.setattr(listener, "accept_one", accept)
    async with front.client() as client:
        await client.ok("ping")
    async with front.client() as client:
        await client.ok("ping")
    assert failures == []


async def test_an_error_in_one_session_does_not_reach_the_others(front, monkeypatch, caplog):
    from scattersphere.remote.connection import Connection

    async with front.client() as healthy:
        with monkeypatch.context() as patched:

            async def broken(self):
                raise RuntimeError("a defect")

            patched.setattr(Connection, "serve", broken)
            async with await anyio.connect_tcp("127.0.0.1", port_of(front.listening)) as stream:
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()
        assert "a defect" in caplog.text
        assert await healthy.ok("ping") == {"pong": True}
        async with front.client() as client:
            assert await client.ok("ping") == {"pong": True}


@pytest.mark.parametrize("content", ["[" * 100_000, "é", '{"format": 1, "tokens": [{}]}', None])
async def test_a_broken_token_file_shuts_people_out_and_never_ends_the_listener(front, content, caplog):
    """A file of 100,000 brackets ended the watch over all sessions, and with it the listener."""
    text = front.file.path.read_text()
    async with front.client() as client:
        front.file.path.unlink()
        if content is not None:
            front.file.path.write_text(content)
            front.file.path.chmod(0o600)
        assert (await client.rest_of_it())[-1]["bye"]["code"] == "auth-failed"
    async with front.client(None) as stranger:
        assert await stranger.code(f"auth {front.tokens['admin']}") == "auth-failed"
        front.file.path.write_text(text)
        front.file.path.chmod(0o600)
        front.listening.gateway.backoff.succeeded("127.0.0.1")
        await stranger.ok(f"auth {front.tokens['admin']}")
    assert "Traceback" not in caplog.text


async def test_no_token_can_have_the_name_of_a_user_of_the_unix_socket(tmp_path):
    place = tmp_path / "run" / "s"
    file = _a_file(tmp_path)
    async with Server() as server, listen(server, unix=place, tokens=file), over_unix(place) as client:
        user = (await client.ok("whoami"))["user"]
        with pytest.raises(ConflictError, match="name"):
            file.create(user, Role.VIEWER)


async def test_keys_are_unique_by_user_and_job(tmp_path):
    """Key `b/c` of `a` and key `c` of `a/b` were the same."""
    file = TokenFile(tmp_path / "t.json")
    users = [file.create(name, Role.ADMIN) for name in ("a", "a/b")]
    async with Server() as server, listen(server, tcp="127.0.0.1:0", tokens=file) as listening:
        server.register_tasks("app", TASKS)
        runs = set()
        async with connected(listening, users[0]) as first, connected(listening, users[1]) as second:
            for name in ("one", "two"):
                await first.ok("define " + json.dumps(job(name)))
            for client, key in ((first, "b/c"), (second, "c")):
                for line in (f"start one key={key}", f"start two key={key}", f"start-task Say key={key}"):
                    number = (await client.ok(line))["run"]
                    assert await client.ok(line) == {"run": number}
                    runs.add(number)
        assert len(runs) == 6


async def test_whoever_starts_runs_without_end_takes_nobody_elses_history(tmp_path):
    """Shares were by job, and an operator has as many jobs, and names of tasks, as he likes."""
    async with served(tmp_path) as front, front.client("runner") as ann, front.client("operator") as eve:
        front.server._factory.runs._keep = 6
        await eve.ok("define " + json.dumps(job("hi")))
        mine = (await ann.ok("run hi"))["run"]
        again = (await ann.ok(f"rerun {mine} from_failed=false"))["run"]
        await ann.ok(f"wait {again}")
        for number in range(12):
            await eve.ok("define " + json.dumps(job(f"flood{number}")))
            await eve.ok(f"run flood{number}")
            await eve.ok("run-task Say")
        kept = {run.id: run.user for run in front.server.runs.values()}
        assert {mine, again} <= kept.keys()
        assert sorted(kept.values()) == ["a-operator"] * 4 + ["a-runner"] * 2


async def test_nothing_that_is_shown_of_a_definition_depends_on_the_values_of_its_secrets(front):
    """A digest of them would do: a short one is found by trying."""
    shown = []
    async with front.client() as admin, front.client("viewer") as viewer:
        for default, given, description in [
            ("4711", "s-1", "a"),
            ("4712", "s-1", "a"),
            ("4712", "s-2", "a"),
            ("4712", "s-2", "b"),
        ]:
            definition = job("j") | {
                "format": 2,
                "description": description,
                "params": {
                    "pin": {"secret": True, "default": default},
                    "key": {"secret": True, "default": "k"},
                },
                "schedules": {"late": {"every": 1_000_000, "params": {"key": given}}},
            }
            asked = {"definition": definition, "replace": True}
            await admin.ok(json.dumps({"cmd": "define", "args": asked}))
            run = (await admin.ok("start j"))["run"]
            await admin.ok(f"wait {run}")
            status = await viewer.ok(f"status {run}")
            shown.append((await viewer.ok("job j"), status["definition"]))
            assert shown[-1][0]["digest"] == status["definition"]
    first, second, third, other = shown
    assert first == second == third
    assert first[1] != other[1]


SECRET = {"secret": True, "default": "***"}


@pytest.mark.parametrize(
    ("params", "schedules", "paths"),
    [
        ({"pin": SECRET}, {}, ["params.pin.default"]),
        (
            {"pin": {"secret": True, "default": "a"}},
            {"s": {"every": 1_000_000, "params": {"pin": "***"}}},
            ["schedules.s.params.pin"],
        ),
        ({"pin": SECRET, "b": {"nonsense": 1}}, {}, ["params.pin.default", "params.b.nonsense"]),
        ({"pin": SECRET}, {"s": []}, ["params.pin.default", "schedules.s"]),
        ({"pin": SECRET}, 7, ["params.pin.default", "schedules"]),
        ({"pin": {"default": "***"}}, {}, []),
    ],
)
async def test_a_mask_in_place_of_a_secret_is_told_by_what_checks_and_by_what_defines(
    front, params, schedules, paths
):
    definition = {"format": 2, "name": "j", "params": params, "schedules": schedules} | job("j")
    definition["format"] = 2
    for text in (json.dumps(definition), json.dumps(definition).replace("***", "\\u002a**")):
        line = '{"cmd":"%s","args":{"definition":' + text + "}}"
        async with front.client() as client:
            problems = (await client.ok(line % "validate"))["problems"]
            assert [each["path"] for each in problems] == paths
            for each in problems:
                assert (each["line"], (line % "validate")[each["column"] - 1] in '"{[7') == (1, True)
            refused = await client.ask(line % "define")
            if len(paths) == 1:
                moved = [each | {"column": each["column"] - 2} for each in problems]
                assert refused["error"]["problems"] == moved
            assert ("error" in refused) == bool(paths)
            if "result" in refused:
                await client.ok("undefine j")

"""What `serve` takes up at its start and while it serves, and what it complains of."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import tempfile
from pathlib import Path

import anyio
import attrs
import pytest
from patience import PATIENCE
from wire import over_unix, served, until

from scattersphere import Server
from scattersphere.errors import ConflictError
from scattersphere.remote import Limits, ListenError, Listening, Role, TokenFile
from scattersphere.remote.serve import ServeOptions, serve

pytestmark = pytest.mark.anyio

GOOD = "from scattersphere import RunnableTask\nclass Job(RunnableTask):\n    def run(self, context): ...\n"


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a unix socket has a limit
        for name in ("bundles", "jobs"):
            (Path(folder) / name).mkdir()
        yield Path(folder)


def job(name, path):
    return json.dumps({"name": name, "tasks": {"only": {"task": path}}})


async def test_what_cannot_be_taken_up_is_complained_of_once_and_later_news_too(place):
    bundles, jobs = place / "bundles", place / "jobs"
    (bundles / "good.py").write_text(GOOD)
    (bundles / "bad.py").write_text("class Broken(:\n")
    (jobs / "ready.json").write_text(job("ready", "good.Job"))
    (jobs / "waits.json").write_text(job("waits", "later.Job"))
    (jobs / "broken.json").write_text("{")
    send, complaints = anyio.create_memory_object_stream[str](100)
    listening = anyio.Event()
    options = ServeOptions(bundles=(bundles,), jobs=jobs, watch_jobs=True, unix=place / "socket")
    with anyio.fail_after(PATIENCE):
        async with complaints, anyio.create_task_group() as group:
            group.start_soon(_serve, options, send, listening)
            await listening.wait()
            first = [complaints.receive_nowait() for _ in range(3)]
            with pytest.raises(anyio.WouldBlock):
                complaints.receive_nowait()
            assert first[0].startswith("bundle 'bad' does not load: ")
            assert "SyntaxError" in first[0]
            assert first[1].startswith(str(jobs / "broken.json"))
            assert (
                first[2]
                == 'job waits cannot run yet: 1:38  tasks.only.task  no task "later.Job" in any bundle'
            )
            (bundles / "dropped.py").write_text("import nothing_of_this_name\n")
            assert (await complaints.receive()).startswith("bundle 'dropped' does not load: ")
            (jobs / "ready.json").write_text("[")
            assert (await complaints.receive()).startswith(str(jobs / "ready.json"))
            group.cancel_scope.cancel()


async def _serve(options, send, listening):
    with send:
        await serve(options, say=lambda _: listening.set(), complain=send.send_nowait)


async def test_sighup_reads_tokens_and_limits_again_and_opens_the_audit_anew_and_others_are_ignored(place):
    """SIGHUP and SIGUSR1 ended the program without a word."""
    tokens = TokenFile(place / "tokens.json")
    first = tokens.create("ann", Role.ADMIN)
    limits = [attrs.evolve(Limits(), sessions=7)]

    def reread():
        if not limits:
            raise ConflictError("serve.toml: nonsense")
        return limits.pop()

    audit = place / "audit"
    options = ServeOptions(
        unix=place / "run" / "socket", tokens=place / "tokens.json", audit=audit, reread_limits=reread
    )
    send, complaints = anyio.create_memory_object_stream[str](100)
    listening = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with complaints, anyio.create_task_group() as group:
            group.start_soon(_serve, options, send, listening)
            await listening.wait()
            async with over_unix(options.unix) as client:
                for number in (signal.SIGUSR1, signal.SIGUSR2):
                    os.kill(os.getpid(), number)
                await client.ok("ping")
                audit.rename(place / "audit.1")
                await client.ok("runs")
                os.kill(os.getpid(), signal.SIGHUP)
                await until(audit.exists)
                await client.ok("jobs")
                assert '"command":"jobs"' in audit.read_text()
                assert '"command":"runs"' in (place / "audit.1").read_text()
                assert first not in audit.read_text()
                audit.chmod(0o644)
                os.kill(os.getpid(), signal.SIGHUP)
                told = [await complaints.receive() for _ in range(2)]
                assert told[0] == "SIGHUP: serve.toml: nonsense"
                assert "must be a regular file of mode 0600" in told[1]
                await client.ok("stats")
                assert '"command":"stats"' in audit.read_text()
            group.cancel_scope.cancel()


async def test_a_server_whose_listener_has_ended_for_good_ends_with_an_error(place, monkeypatch):
    """Its process lived on, deaf."""
    opened = []
    monkeypatch.setattr(Listening, "_bind", functools.partialmethod(_bind_and_tell, Listening._bind, opened))
    TokenFile(place / "tokens").create("ann", Role.ADMIN)
    options = ServeOptions(tcp=("127.0.0.1:0",), tokens=place / "tokens")
    send, complaints = anyio.create_memory_object_stream[str](100)
    listening = anyio.Event()

    async def break_it():
        await listening.wait()
        opened[0]._sockets[0].shutdown(socket.SHUT_RDWR)

    with complaints, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(break_it)
            with pytest.raises(ListenError, match="no longer listening on tcp://"):
                await _serve(options, send, listening)


def _bind_and_tell(self, bind, opened):
    opened.append(self)
    bind(self)


async def test_a_job_that_waits_for_code_is_shown_with_the_words_in_which_it_is_refused(tmp_path):
    text = job("nightly-x", "elt.Load")
    async with served(tmp_path) as front, front.client("admin") as client:
        defined = await client.ok(json.dumps({"cmd": "define", "args": {"definition": json.loads(text)}}))
        shown = await client.ok(json.dumps({"cmd": "job", "args": {"name": "nightly-x"}}))
        refused = (await client.ask(json.dumps({"cmd": "run", "args": {"job": "nightly-x"}})))["error"]
        assert defined["state"] == "unresolved"
        assert shown["problems"] == refused["problems"]
        async with front.client("bounded") as bounded:  # others' names are nothing to it
            assert "problems" not in await bounded.ok(
                json.dumps({"cmd": "job", "args": {"name": "nightly-x"}})
            )


async def test_a_server_lends_its_sessions_its_own_job_folder(place):
    (place / "jobs" / "nightly.json").write_text(job("nightly", "etl.Load"))
    where = place / "socket"
    async with (
        Server(job_folder=place / "jobs") as server,
        server.listen(unix=where),
        over_unix(where) as client,
    ):
        assert (await client.ok("save nightly"))["file"] == "nightly.json"

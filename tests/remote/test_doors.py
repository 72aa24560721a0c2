"""One door for each rule: what a principal sees, what may load code, which secrets leave. All commands are walked."""

import json
from contextlib import suppress

import anyio
import attrs
import pytest
from wire import connected, served, until

from scattersphere import RunnableTask
from scattersphere.commands.table import COMMANDS
from scattersphere.remote import Limits, Role
from scattersphere.tasks import RunJob

pytestmark = pytest.mark.anyio

SECRET = "hunter2-topsecret"
HIDDEN = "zzhidden"
CODE = "from scattersphere import RunnableTask\nclass {name}(RunnableTask):\n    async def run(self, context): return 1\n"


def write(place, text):
    place.write_text(text)
    place.chmod(0o644)


class Use(RunnableTask):
    """Use a password."""

    password: str

    async def run(self, context):
        return 1


def bundle(root, name, task):
    write(root / f"{name}.py", CODE.format(name=task))


@pytest.fixture
async def front(tmp_path):
    """Bundles `pub` and `zzhidden` in the roots; tokens whose patterns cover `pub*` only."""
    root, jobs = tmp_path / "roots", tmp_path / "jobs"
    root.mkdir(mode=0o755)
    jobs.mkdir(mode=0o755)
    bundle(root, "pub", "Pub")
    bundle(root, HIDDEN, "Hid")
    async with served(tmp_path, bundle_roots=[root], job_folder=jobs) as front:
        patterns = ("bundle:pub*", "job:*")
        front.tokens["pub-admin"] = front.file.create("pub-admin", Role.ADMIN, patterns=patterns)
        yield front


def definition(name, task, bundles=None):
    found = {"format": 1, "name": name, "tasks": {"a": {"task": task}}}
    return "define " + json.dumps(found | ({"bundles": bundles} if bundles else {}))


async def test_whatever_leads_to_code_being_loaded_needs_the_right_to_load_it(front, tmp_path):
    """An operator registered what the admin had withdrawn, by define, save, undefine and load."""
    brings = definition("sneak", "pub.Pub", {"pub": "../roots/pub.py"})
    async with front.client() as admin, front.client("operator") as operator:
        assert await operator.code("register pub.py") == "forbidden"
        assert await operator.code(brings) == "forbidden"
        write(tmp_path / "jobs" / "sneak.json", brings.removeprefix("define "))
        assert await operator.code("load sneak") == "forbidden"
        assert (await admin.ok("bundles"))["bundles"][0]["name"] == "app"
        await admin.ok("register pub.py")
        assert (await operator.ok("load sneak"))["state"] == "ready"  # its code is here: nothing is loaded
        assert (await operator.ok("save sneak overwrite=true"))["file"] == "sneak.json"
        await admin.ok("deregister pub")
        assert await operator.code("save sneak overwrite=true") == "forbidden"


async def test_patterns_cover_the_file_as_well_as_the_name(front, tmp_path):
    """A bounded admin registered a foreign file under a name of his own."""
    async with front.client("pub-admin") as admin:
        absent = await admin.ask("register absent.py name=pubx")
        hidden = await admin.ask(f"register {HIDDEN}.py name=pubx")
        assert json.dumps(hidden["error"]).replace(HIDDEN, "absent") == json.dumps(absent["error"])
        assert hidden["error"]["code"] == "no-such-bundle"
        assert await admin.code("register pub.py name=other") == "forbidden"
        assert (await admin.ok("register pub.py"))["bundle"] == "pub"
        (tmp_path / "roots" / "public.py").symlink_to(f"{HIDDEN}.py")
        (tmp_path / "jobs" / "public.py").symlink_to(tmp_path / "roots" / f"{HIDDEN}.py")
        assert await admin.code("register public.py") == "no-such-bundle"  # what a link leads to counts
        assert await admin.code(definition("pub1", "pub.Hid", {"public": "public.py"})) == "no-such-bundle"
        sneaky = definition("pub1", "pubx.Hid", {"pubx": f"../roots/{HIDDEN}.py"})
        assert await admin.code(sneaky) == "no-such-bundle"


async def test_what_is_hidden_is_in_no_reply_event_or_error_of_any_command(front, tmp_path):
    """Runs of hidden tasks showed in `follow` and `logs`."""
    async with front.client() as admin, front.client("pub-admin") as client:
        await admin.ok(f"register {HIDDEN}.py")
        await admin.ok("register pub.py")
        await client.ok("follow since=0")
        run = (await admin.ok(f"run-task {HIDDEN}.Hid"))["run"]
        await admin.ok("run-task pub.Pub")
        said = [await client.ask(f"logs tail={number}") for number in (1, 100)]
        for name, command in COMMANDS.items():
            if name in {"auth", "quit", "drop", "output", "shutdown", "unfollow", "deregister"}:
                continue
            args = {
                each: 1 if taken.kind == "integer" else "a"
                for each, taken in command.arguments.items()
                if taken.required
            }
            if "run" in command.arguments:
                args["run"] = run
            if command.whole:
                args[command.whole] = {"format": 1, "name": "pub2", "tasks": {"a": {"task": "Hidd"}}}
            said.append(await client.ask(json.dumps({"cmd": name, "args": args})))
            if "run" in args:
                assert said[-1]["error"]["code"] == "no-such-run", name
        await client.send("ping")
        while "pong" not in (message := await client.read()).get("result", {}):
            said.append(message)
    assert HIDDEN not in json.dumps(said).lower()
    assert "Pub" in json.dumps(said)


@pytest.mark.parametrize("output", ["json", "pretty", "table"])
async def test_who_holds_what_a_run_waits_for_is_named_to_those_only_who_may_see_it(tmp_path, output):
    """`explain` told "held by zzhidden#1/zzhidden", and `deregister require_idle` which runs needed a bundle."""

    def taking(name, task):
        return {"format": 1, "name": name, "tasks": {name: {"task": task, "pool": "db"}}}

    async with served(tmp_path, pools={"db": 1}) as front:
        front.tokens["nightly"] = front.file.create(
            "nightly", Role.ADMIN, patterns=("job:nightly", "bundle:app")
        )
        async with front.client() as admin, front.client("nightly") as client:
            for job in (taking(HIDDEN, "Forever"), taking("nightly", "Say")):
                await admin.ok("define " + json.dumps(job))
            for job in (HIDDEN, "nightly"):
                run = (await admin.ok(f"start {job}"))["run"]
            assert f"{HIDDEN}#1" in (await admin.ok(f"explain {run}"))["text"]
            await client.send(f"output {output}", f"explain {run}", f"status {run}", "runs", "logs")
            await client.send("deregister app require_idle=true", "quit")
            said = b""
            with suppress(anyio.EndOfStream):
                while True:
                    said += await client.stream.receive()
    assert b"held by another run" in said, said.decode()
    assert b"your token does not cover" in said
    assert HIDDEN.encode() not in said


async def test_a_job_with_one_task_of_its_own_name_is_no_run_of_a_task(tmp_path):
    """Its runs were seen by who covered the bundle of the task and not the job, and by nobody else."""
    async with served(tmp_path) as front:
        for user, pattern in (("code", "bundle:app"), ("job", "job:nightly")):
            front.tokens[user] = front.file.create(user, Role.VIEWER, patterns=(pattern,))
        async with front.client() as admin, front.client("code") as code, front.client("job") as job:
            nightly = {"format": 1, "name": "nightly", "tasks": {"nightly": {"task": "Say"}}}
            await admin.ok("define " + json.dumps(nightly))
            runs = [(await admin.ok(f"{line}"))["run"] for line in ("run nightly", "run-task Say")]
            assert [row["run"] for row in (await job.ok("runs"))["runs"]] == runs[:1]
            assert [row["run"] for row in (await code.ok("runs"))["runs"]] == runs[1:]
            assert await code.code(f"status {runs[0]}") == "no-such-run"


async def test_a_child_that_is_hidden_is_not_named_as_what_its_parent_waits_for(tmp_path):
    async with served(tmp_path) as front:
        patterns = ("job:nightly", "bundle:*")
        front.tokens["nightly"] = front.file.create("nightly", Role.VIEWER, patterns=patterns)
        front.server.register_tasks("std", [RunJob])
        hidden = {"format": 1, "name": HIDDEN, "tasks": {"a": {"task": "Forever"}}}
        nightly = {
            "format": 1,
            "name": "nightly",
            "tasks": {"a": {"task": "RunJob", "args": {"job": HIDDEN}}},
        }
        async with front.client() as admin, front.client("nightly") as client:
            for job in (hidden, nightly):
                await admin.ok("define " + json.dumps(job))
            await admin.ok("start nightly")
            await until(lambda: len(front.server.runs) == 2)
            assert f"waits for run 2 of {HIDDEN}" in (await admin.ok("explain 1"))["text"]
            assert "waits for another run" in (await client.ok("explain 1"))["text"]


async def test_lines_of_runs_of_tasks_that_are_gone_are_hidden_too(tmp_path):
    async with served(tmp_path) as front:
        front.tokens["jobs"] = front.file.create("jobs", Role.VIEWER, patterns=("job:*",))
        run = await front.server.start_task("Say")
        await run.wait()
        front.server._factory.runs._runs.clear()
        async with front.client("jobs") as client, front.client() as admin:
            assert (await client.ok("logs"))["lines"] == []
            assert len((await admin.ok("logs"))["lines"]) == 2


async def test_the_value_of_a_secret_parameter_is_in_nothing_that_leaves(tmp_path):
    """`rerun code=latest` told it to somebody else, when the new code wanted another type."""
    job = {
        "format": 1,
        "name": "use",
        "params": {"password": {"type": "string", "required": True, "secret": True}},
        "tasks": {"a": {"task": "Use", "args": {"password": {"$param": "password"}}}},
    }
    audit = []

    class Audit:
        def record(self, **members):
            audit.append(members)

    async with served(tmp_path, audit=Audit()) as front:
        front.server.register_tasks("mine", [Use])
        async with front.client() as owner, front.client("runner") as other:
            await owner.ok("define " + json.dumps(job))
            run = (await owner.ok(f"run use password={SECRET}"))["run"]
            await front.server.deregister("mine")
            front.server.register_tasks(
                "mine", [type("Use", (RunnableTask,), {"__annotations__": {"password": int}, "run": Use.run})]
            )
            said = [await other.ask(f"rerun {run} from_failed=false code=latest")]
            assert said[0]["error"]["problems"], said
            lines = "status 1,explain 1,logs 1,result 1,logs,runs,job use,follow 1 since=0"
            said += [await other.ask(line) for line in lines.split(",")]
            await other.send("output table", "status 1", f"rerun {run} from_failed=false code=latest", "quit")
            with suppress(anyio.EndOfStream):
                while True:
                    said.append(str(await other.stream.receive()))
            said.append(
                await owner.ask(
                    f'{{"cmd":"start","args":{{"job":"use","params":{{"password":["{SECRET}"]}}}}}}'
                )
            )
    assert SECRET not in json.dumps(said)
    assert SECRET not in str(audit)


async def test_a_secret_that_stands_in_a_definition_is_not_shown_and_its_mask_is_no_secret(tmp_path):
    """`job` showed the default of a secret parameter, and what a schedule gives for it, to each viewer."""
    job = {
        "format": 2,
        "name": "use",
        "params": {"password": {"type": "string", "default": SECRET, "secret": True}, "n": 3},
        "tasks": {"a": {"task": "Say", "args": {"text": {"$param": "password"}}}},
        "schedules": {"daily": {"every": 86_400, "params": {"password": SECRET, "n": 4}}},
    }
    async with served(tmp_path) as front, front.client("operator") as client:
        await client.ok("define " + json.dumps(job))
        shown = (await client.ok("job use"))["definition"]
        assert SECRET not in json.dumps(shown)
        assert shown["params"] == {
            "password": {"type": "string", "default": "***", "secret": True},
            "n": 3,
        }
        assert shown["schedules"]["daily"]["params"] == {"password": "***", "n": 4}
        error = (await client.ask("define replace=true " + json.dumps(shown)))["error"]
        places = [problem["path"] for problem in error["problems"]]
        assert sorted(places) == ["params.password.default", "schedules.daily.params.password"]
        run = await front.server.start("use")
        await run.wait()
        assert run.results["a"] == SECRET  # the definition itself is as it was
        wrong = {"job": "use", "params": {"password": {SECRET: [1]}}}
        assert SECRET not in json.dumps(await client.ask(json.dumps({"cmd": "start", "args": wrong})))


async def test_a_user_has_so_many_sessions_and_others_still_come_in(tmp_path):
    limits = attrs.evolve(Limits(), sessions_of_user=2)
    async with served(tmp_path, limits=limits) as front, front.client("viewer"):
        async with front.client("viewer"), connected(front.listening) as third:
            assert await third.code(f"auth {front.tokens['viewer']}") == "busy"
            await third.ok(f"auth {front.tokens['runner']}")
        await until(lambda: len(front.listening.gateway.sessions) == 1)
        async with front.client("viewer") as again:
            await again.ok("ping")

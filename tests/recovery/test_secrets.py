"""Secrets that name an `env`: who may read which, that they are written nowhere, and what a restart makes of them."""

import json
import logging
import threading

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, World

from scattersphere import (
    DefinitionError,
    EventKind,
    JobDefinition,
    RunnableTask,
    RunState,
    Server,
    SyncServer,
)
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio
VALUE = "correct horse\tbattery"
ALLOW = {"etl_*": ["DB_*"]}
TOKEN = {"secret": True, "env": "DB_PASSWORD"}


@pytest.fixture(autouse=True)
def world(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", VALUE)
    WORLD["now"] = World()
    return WORLD["now"]


class Use(RunnableTask):
    """Notes what it is given, and tells it to whoever listens."""

    token: object
    gate: str = ""
    fails: bool = False

    async def run(self, context):
        world = WORLD["now"]
        world.values.setdefault("tokens", []).append(self.token)
        context.log.info("the token is %s, %r", self.token, [self.token])
        if self.gate:
            await world.gate(self.gate).wait()
        if self.fails:
            raise RuntimeError(f"bad token {self.token!r}") from ValueError(f"not {self.token}")
        return len(str(self.token))


class Family(RunnableTask):
    """Starts the job as its child."""

    async def run(self, context):
        return (await (await context.start("etl_load")).wait()).result("use")


def job(name="etl_load", *, token=TOKEN, **args):
    tasks = {"use": {"task": "Use", "args": {"token": {"$param": "token"}, **args}}}
    return JobDefinition.loads(
        json.dumps({"format": 2, "name": name, "params": {"token": token}, "tasks": tasks})
    )


def tokens():
    return WORLD["now"].values.get("tokens", [])


async def settle():
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def opened(journal, *jobs, **options):
    options = {"secret_env": ALLOW, **options}
    return await Life(journal, classes=[Use, Family], jobs=jobs or [job()], **options).__aenter__()


# ---- at the start


async def test_a_secret_is_read_when_the_run_starts_and_shown_nowhere(monkeypatch):
    async with Server(secret_env=ALLOW) as server:
        server.register_tasks("app", [Use])
        server.define(job())
        await (await server.start("etl_load")).wait()
        monkeypatch.setenv("DB_PASSWORD", "another one")
        run = await server.start("etl_load")
        await run.wait()
        assert (run.state, tokens()) == (RunState.SUCCEEDED, [VALUE, "another one"])
        assert run.params == {"token": "***"}
        assert [line.message for line in run.logs(task="use")] == ["the token is ***, ['***']"]


async def test_a_secret_that_was_given_is_not_read(monkeypatch):
    monkeypatch.delenv("DB_PASSWORD")
    async with Server() as server:
        server.register_tasks("app", [Use])
        server.define(job())
        await (await server.start("etl_load", {"token": "by value"})).wait()
    assert tokens() == ["by value"]


async def refusal(server, *args):
    with pytest.raises(DefinitionError) as caught:
        await server.start(*args)
    assert VALUE not in str(caught.value)
    (problem,) = caught.value.problems
    return str(problem)


async def test_what_a_job_may_not_read_is_refused_with_what_to_write():
    async with Server(secret_env=ALLOW) as server:
        server.register_tasks("app", [Use])
        server.define(job("mail"))
        server.define(job("etl_other", token={"secret": True, "env": "AWS_KEY"}))
        assert await refusal(server, "mail") == (
            "params.token  job 'mail' may not read the environment variable DB_PASSWORD; allow it with "
            'Server(secret_env={"mail": ["DB_PASSWORD"]}), or give the value at the start'
        )
        assert "may not read the environment variable AWS_KEY" in await refusal(server, "etl_other")
        assert not server.runs


async def test_a_variable_that_is_not_there_is_refused_or_has_its_default(monkeypatch):
    monkeypatch.delenv("DB_PASSWORD")
    async with Server(secret_env=ALLOW) as server:
        server.register_tasks("app", [Use])
        server.define(job())
        server.define(job("etl_default", token={**TOKEN, "default": "for tests"}))
        assert await refusal(server, "etl_load") == (
            "params.token  the environment does not have DB_PASSWORD: set it there, or give the value at the start"
        )
        await (await server.start("etl_default")).wait()
    assert tokens() == ["for tests"]


async def test_a_variable_is_read_as_what_the_parameter_is(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "123456789")
    async with Server(secret_env=ALLOW) as server:
        server.register_tasks("app", [Use])
        server.define(job(token={**TOKEN, "type": "integer", "required": True}))
        await (await server.start("etl_load")).wait()
        assert tokens() == [123456789]
        monkeypatch.setenv("DB_PASSWORD", "twelve thousand")
        with pytest.raises(DefinitionError) as caught:
            await server.start("etl_load")
        assert "must be of type integer; the value is not" in str(caught.value)
        assert "twelve" not in str(caught.value)


async def test_the_provider_is_asked_in_a_thread_for_what_the_environment_may_not_give():
    asked = []

    def provider(name, variable):
        asked.append((name, variable, threading.current_thread() is threading.main_thread()))
        return {"DB_PASSWORD": "of the vault"}.get(variable)

    async with Server(secrets=provider) as server:
        server.register_tasks("app", [Use, Family])
        server.define(job())
        server.define(job("lost", token={"secret": True, "env": "OTHER"}))
        server.define(JobDefinition.build("family").task("family", "Family").done())
        assert await (await server.start("family")).wait() is not None
        assert tokens() == ["of the vault"]
        assert asked == [("etl_load", "DB_PASSWORD", False)]
        assert "the provider (secrets=) does not have OTHER" in await refusal(server, "lost")


@pytest.mark.parametrize("error", [OSError, SystemExit])
async def test_a_provider_that_fails_refuses_the_start_without_its_words(error):
    def provider(name, variable):
        raise error(f"{VALUE} was not taken")

    async with Server(secrets=provider) as server:
        server.register_tasks("app", [Use])
        server.define(job())
        assert f"the provider of secrets has failed for DB_PASSWORD ({error.__name__})" in await refusal(
            server, "etl_load"
        )


@pytest.mark.parametrize("way", ["provider", "env"])
async def test_a_schedule_starts_runs_whose_secrets_are_read(way):
    options = {"secret_env": ALLOW} if way == "env" else {"secrets": lambda *_: VALUE}
    text = json.loads(job(token={**TOKEN, "required": True}).dumps())
    text["schedules"] = {"often": {"every": 1, "params": {}}}
    async with Server(**options) as server:
        server.register_tasks("app", [Use])
        server.define(JobDefinition.loads(json.dumps(text)))
        await (await server.schedules["etl_load", "often"].run_now()).wait()
        with anyio.fail_after(PATIENCE):
            async for event in server.events():
                if event.kind is EventKind.SCHEDULE_FIRED:
                    break
            await server.runs[event.run].wait()
            server.undefine("etl_load")
    assert set(tokens()) == {VALUE}


async def test_a_key_stands_for_its_run_though_the_secret_has_changed(monkeypatch):
    async with Server(secret_env=ALLOW) as server:
        server.register_tasks("app", [Use])
        server.define(job())
        run = await server.start("etl_load", key="today")
        monkeypatch.setenv("DB_PASSWORD", "another one")
        assert await server.start("etl_load", key="today") is run


def test_the_options_take_patterns_and_a_function_only():
    for wrong in ({"etl_*": "DB_*"}, {"etl_*": [3]}, ["DB_*"]):
        with pytest.raises(TypeError, match="secret_env"):
            Server(secret_env=wrong)
    with pytest.raises(TypeError, match="secrets is a function of job and name"):
        Server(secrets={"DB_PASSWORD": "x"})
    assert SyncServer(secret_env=ALLOW).options.secret_env == {"etl_*": ("DB_*",)}


# ---- where values do not come to


BUNDLE = '''
from scattersphere import RunnableTask

class Use(RunnableTask):
    """Fail with the token, far away."""

    token: str

    def run(self, context):
        context.log.info("the token is %s", self.token)
        print("printed", self.token)
        if len(self.token) == 21:
            raise RuntimeError(f"bad token {self.token!r}")
'''


async def test_a_process_gets_the_value_and_what_it_says_of_it_is_masked(tmp_path):
    (tmp_path / "work.py").write_text(BUNDLE)
    assert len(VALUE) == 21
    tasks = {"use": {"task": "work.Use", "args": {"token": {"$param": "token"}}, "backend": "process"}}
    text = json.dumps({"format": 2, "name": "etl_far", "params": {"token": TOKEN}, "tasks": tasks})
    async with Server(secret_env=ALLOW, processes=1, capture_print=True) as server:
        await server.register(tmp_path / "work.py")
        server.define(JobDefinition.loads(text))
        run = await (await server.start("etl_far")).wait(PATIENCE)
        assert run.tasks["use"].failure.message == "bad token '***'"
        lines = [line.message for line in run.logs(task="use")]
        assert lines[:2] == ["the token is ***", "printed ***"]
        assert "battery" not in repr(lines) + run.tasks["use"].failure.traceback + str(run.failures["use"])


async def test_a_failure_does_not_say_the_secret_anywhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    place = tmp_path / "journal.db"
    async with Server(secret_env=ALLOW, journal=place, log_folder=tmp_path / "logs") as server:
        server.register_tasks("app", [Use])
        server.define(job(fails=True))
        run = await server.start("etl_load")
        await run.wait()
        failure = run.tasks["use"].failure
        assert failure.message == "bad token '***'"
        assert "ValueError: not ***" in failure.traceback
        assert isinstance(run.failures["use"], RuntimeError)
        told = [str(failure), failure.traceback, repr(run.failures), str(run.failures["use"]), run.explain()]
        told += [repr(run.as_dict()), json.dumps(server.definitions["etl_load"].dumps())]
        told += [line.message for line in run.logs()]
        events = [event async for event in run.events()]
        told += [repr(events), *(record.getMessage() + str(record.exc_text) for record in caplog.records)]
    for text in told:
        assert not any(part in text for part in ("correct horse", "battery"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert place in written
    for path in written:
        assert b"correct horse" not in path.read_bytes(), path


# ---- restarts


@pytest.mark.parametrize("queued", [False, True])
async def test_a_run_goes_on_with_the_secret_of_now(monkeypatch, queued):
    journal = MemoryJournal()
    life = await opened(journal, job(gate="first"), max_runs=1)
    runs = [await life.server.start("etl_load") for _ in range(1 + queued)]
    await settle()
    number = runs[-1].id
    after = await life.crash()
    monkeypatch.setenv("DB_PASSWORD", "of the second life")
    WORLD["now"] = World()
    life = await opened(after, job(gate="first"), max_runs=1)
    WORLD["now"].gate("first").set()
    run = life.server.runs[number]
    with anyio.fail_after(PATIENCE):
        await run.wait()
    assert run.state is RunState.SUCCEEDED
    assert set(tokens()) == {"of the second life"}
    assert run.params == {"token": "***"}
    assert "second life" not in repr([line.message for line in run.logs()])
    again = await life.server.rerun(number)
    await again.wait()
    assert set(tokens()) == {"of the second life"}
    await life.server.aclose()


async def test_a_run_survives_the_close_of_the_server(world):
    journal = MemoryJournal()
    life = await opened(journal, job(gate="never"))
    run = await life.server.start("etl_load")
    await settle()
    assert not [line for line in run.logs() if "by value" in line.message]
    await life.server.aclose(finish=0)
    assert run.state is RunState.RUNNING
    life = await opened(journal, job(gate="never"))
    world.gate("never").set()
    with anyio.fail_after(PATIENCE):
        await life.server.runs[run.id].wait()
    assert life.server.runs[run.id].state is RunState.SUCCEEDED
    await life.server.aclose()


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("why", ["gone", "forbidden"])
async def test_a_run_whose_secret_is_gone_has_crashed_and_says_which(monkeypatch, why, queued):
    journal = MemoryJournal()
    life = await opened(journal, job(gate="never"), max_runs=1)
    runs = [await life.server.start("etl_load") for _ in range(1 + queued)]
    await settle()
    number = runs[-1].id
    after = await life.crash()
    if why == "gone":
        monkeypatch.delenv("DB_PASSWORD")
    life = await opened(after, job(gate="never"), secret_env=ALLOW if why == "gone" else {})
    run = life.server.runs[number]
    with anyio.fail_after(PATIENCE):
        await run.wait()
    assert run.state is RunState.CRASHED
    words = run.explain()
    assert "a secret that it needs is gone: params.token" in str(words)
    assert "DB_PASSWORD" in str(words)
    assert len(tokens()) == 1
    await life.server.aclose()


async def test_the_provider_is_asked_again_at_a_restart():
    journal = MemoryJournal()
    life = await opened(journal, job(gate="first"), secret_env={}, secrets=lambda *_: "first life")
    run = await life.server.start("etl_load")
    await settle()
    after = await life.crash()
    WORLD["now"] = World()
    life = await opened(after, job(gate="first"), secret_env={}, secrets=lambda *_: "second life")
    WORLD["now"].gate("first").set()
    with anyio.fail_after(PATIENCE):
        await life.server.runs[run.id].wait()
    assert tokens() == ["second life"]
    await life.server.aclose()

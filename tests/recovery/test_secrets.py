"""Secrets that name an `env`: who may read which, that they are written nowhere, and what a restart makes of them."""

import itertools
import json
import logging
import threading

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, World
from virtualtime import virtually

from scattersphere import (
    BusyError,
    ClosedError,
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


CUT = '''
from scattersphere import RunnableTask, task

@task
def shout(context, token: str):
    """Say the token where a text is cut, in whatever way."""
    for before in range(0, 24):
        long = "x" * (8_180 + before) + token + "y" * 30_000
        context.log.info(long)
        context.progress(1, 2, "x" * (220 + before) + token + "y" * 600)
    raise RuntimeError("x" * (1_970 + 10) + token + "y" * 30_000) from ValueError("x" * 7_980 + token + "y" * 30_000)
'''


@pytest.mark.parametrize("backend", ["thread", "process"])
async def test_no_part_of_a_secret_is_said_where_a_text_is_too_long(tmp_path, monkeypatch, backend):
    """A worker shortened it before the secret was looked for: half of it was left. Progress was not looked through."""
    value = "QWERTY UIOP\tASDFGH-JK"  # nothing of it is in any other text
    monkeypatch.setenv("DB_PASSWORD", value)
    (tmp_path / "work.py").write_text(CUT)
    tasks = {"use": {"task": "work.shout", "args": {"token": {"$param": "token"}}, "backend": backend}}
    text = json.dumps({"format": 2, "name": "etl_far", "params": {"token": TOKEN}, "tasks": tasks})
    async with Server(secret_env=ALLOW, processes=1) as server:
        await server.register(tmp_path / "work.py")
        server.define(JobDefinition.loads(text))
        run = await (await server.start("etl_far")).wait(PATIENCE)
        told = [line.message for line in run.logs()] + [run.explain(), repr(run.failures)]
        told += [repr(event) async for event in run.events()]
        failure = run.tasks["use"].failure
        told += [failure.message, failure.traceback, str(run.failures["use"]), *run.failures["use"].__notes__]
    assert "left out" in failure.traceback
    for said in told:
        assert not any(value[start : start + 3] in said for start in range(len(value) - 2)), said


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


async def crashed(*jobs, runs=1, **options):
    """Return a journal in which runs 1 to `runs` have not ended."""
    life = await opened(MemoryJournal(), *jobs, **options)
    for _ in range(runs):
        await life.server.start("etl_load")
    await settle()
    return await life.crash()


@pytest.mark.parametrize("queued", [False, True])
async def test_a_run_goes_on_with_the_secret_of_now(monkeypatch, queued):
    number = 1 + queued
    after = await crashed(job(gate="first"), runs=number, max_runs=1)
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
    number = 1 + queued
    after = await crashed(job(gate="never"), runs=number, max_runs=1)
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
    after = await crashed(job(gate="first"), secret_env={}, secrets=lambda *_: "first life")
    WORLD["now"] = World()
    life = await opened(after, job(gate="first"), secret_env={}, secrets=lambda *_: "second life")
    WORLD["now"].gate("first").set()
    with anyio.fail_after(PATIENCE):
        await life.server.runs[1].wait()
    assert tokens() == ["second life"]
    await life.server.aclose()


# ---- a provider that is down


class Vault:
    """A provider that is down for some questions, and says when it was asked."""

    def __init__(self, *, down):
        self.down, self.asked = down, []

    def __call__(self, name, variable):
        self.asked.append((name, variable))
        if len(self.asked) <= self.down:
            raise ConnectionError(f"{VALUE} was not taken")
        return "of the vault"


async def crashed_with(*jobs, runs=1, **options):
    """Return a journal in which runs have not ended whose secrets came from a provider."""
    after = await crashed(*jobs, runs=runs, secret_env={}, secrets=lambda *_: VALUE, **options)
    WORLD["now"] = World()
    WORLD["now"].gate("go").set()
    return after


@pytest.fixture
def at_once(monkeypatch):
    """Have the provider asked without a thread: in virtual time the clock would jump meanwhile."""

    async def run_sync(work, *args, **_):
        await anyio.lowlevel.checkpoint()  # an answer never comes in the turn of its question
        return work(*args)

    monkeypatch.setattr("scattersphere.jobs.secrets.anyio.to_thread.run_sync", run_sync)


@virtually
async def test_a_run_waits_for_its_provider_and_asks_again_after_growing_gaps(at_once):
    after = await crashed_with(job(gate="go"), runs=3)
    vault, times = Vault(down=8), []

    def provider(*args):
        times.append(anyio.current_time())
        return vault(*args)

    life = await opened(after, job(gate="go"), secret_env={}, secrets=provider)
    runs = list(life.server.runs.values())
    await anyio.sleep(0.5)  # their code comes after the opening
    assert [run.state.ended for run in runs] == [False] * 3
    words = "its secrets: params.token the provider of secrets has failed for DB_PASSWORD (ConnectionError)"
    for run in runs:
        assert run.waits_for.startswith(words)
        assert words in str(run.explain())
        assert VALUE not in str(run.explain())
    for run in runs:
        await run.wait()
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3
    assert tokens() == ["of the vault"] * 3
    gaps = [round(after - before) for before, after in itertools.pairwise(times)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60]
    await life.server.aclose()


@virtually
async def test_a_run_that_waits_for_its_provider_can_be_cancelled_and_its_secret_is_not_asked_for_any_more(
    at_once,
):
    after = await crashed_with(job(gate="go"))
    vault = Vault(down=99)
    life = await opened(after, job(gate="go"), secret_env={}, secrets=vault)
    (run,) = life.server.runs.values()
    run.cancel("not needed")
    await run.wait()
    assert run.state is RunState.CANCELLED
    asked = len(vault.asked)
    await anyio.sleep(600)
    assert len(vault.asked) == asked
    await life.server.aclose()


@virtually
async def test_a_run_that_waits_for_its_provider_survives_the_next_close(at_once):
    journal = await crashed_with(job(gate="go"))
    for _ in range(2):
        life = await opened(journal, job(gate="go"), secret_env={}, secrets=Vault(down=99))
        await anyio.sleep(100)
        await life.server.drain()
        await life.server.aclose()
    life = await opened(journal, job(gate="go"), secret_env={}, secrets=Vault(down=0))
    (run,) = life.server.runs.values()
    await run.wait()
    assert (run.state, tokens()) == (RunState.SUCCEEDED, ["of the vault"])
    await life.server.aclose()


@pytest.fixture
def silence():
    """A provider that does not answer before the end of the test."""
    may_answer = threading.Event()

    def provider(name, variable):
        provider.asked.append((name, variable))
        provider.is_asked.set()
        may_answer.wait(PATIENCE)
        return VALUE

    provider.asked, provider.is_asked = [], threading.Event()
    yield provider
    may_answer.set()


async def test_a_provider_that_never_answers_holds_up_no_other_run_and_no_close(silence):
    journal = MemoryJournal()
    other = json.loads(job("other", gate="go").dumps())
    other = JobDefinition.loads(json.dumps({**other, "params": {"token": "x"}}))
    life = await opened(journal, job(gate="go"), other, secret_env={}, secrets=lambda *_: VALUE)
    secret, plain = await life.server.start("etl_load"), await life.server.start("other")
    await settle()
    after = await life.crash()
    WORLD["now"] = World()
    WORLD["now"].gate("go").set()
    with anyio.fail_after(PATIENCE):
        life = await opened(after, job(gate="go"), other, secret_env={}, secrets=silence, load_timeout=0.01)
        await life.server.runs[plain.id].wait()
        assert life.server.runs[plain.id].state is RunState.SUCCEEDED
        await anyio.to_thread.run_sync(silence.is_asked.wait)
        run = life.server.runs[secret.id]
        assert run.waits_for == "its secrets"
        await life.server.aclose()
    assert run.state is RunState.RUNNING
    assert tokens() == ["x"]


async def test_whoever_starts_a_run_is_told_that_the_server_was_closed_while_the_provider_was_asked(
    silence,
):
    async def start():
        with pytest.raises(ClosedError, match="while the provider of secrets was asked"):
            await server.start("etl_load")

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group, Server(secrets=silence) as server:
            server.register_tasks("app", [Use])
            server.define(job())
            group.start_soon(start)
            await anyio.to_thread.run_sync(silence.is_asked.wait)


async def test_a_secret_that_the_provider_does_not_have_any_more_still_ends_the_run():
    after = await crashed_with(job(gate="go"))
    life = await opened(after, job(gate="go"), secret_env={}, secrets=lambda *_: None)
    (run,) = life.server.runs.values()
    with anyio.fail_after(PATIENCE):
        await run.wait()
    assert run.state is RunState.CRASHED
    assert "a secret that it needs is gone: params.token the provider (secrets=) does not have" in str(
        run.explain()
    )
    await life.server.aclose()


# ---- secrets that were read for a run of a schedule


def often(name="etl_load"):
    text = json.loads(job(name, token={**TOKEN, "required": True}).dumps())
    text["schedules"] = {"often": {"every": 60, "params": {}, "missed": "last", "catch_up_within": 3600}}
    return JobDefinition.loads(json.dumps(text))


@virtually
async def test_a_secret_that_was_read_for_a_run_that_was_not_started_is_forgotten(at_once):
    vault = Vault(down=0)
    async with Server(secrets=vault) as server:
        server.register_tasks("app", [Use])
        server.define(often())
        server.undefine("etl_load")
        server.define(often().evolve(schedules={}))
        factory = server._parts.factory
        await factory.read_early("etl_load", {})
        assert factory.early._found
        await anyio.sleep(120)
        assert not factory.early._found
        await factory.read_early("etl_load", {})
    assert not factory.early._found


@virtually
async def test_a_schedule_starts_its_run_when_the_provider_is_there_again(at_once):
    vault = Vault(down=3)
    async with Server(secrets=vault) as server:
        server.register_tasks("app", [Use])
        server.define(often())
        async for event in server.events():
            if event.kind is EventKind.SCHEDULE_FIRED:
                break
        run = server.runs[event.run]
        await run.wait()
        assert run.state is RunState.SUCCEEDED
    assert vault.asked[:4] == [("etl_load", "DB_PASSWORD")] * 4


async def test_a_provider_that_takes_its_time_is_asked_once_for_a_schedule_and_holds_up_no_close(
    silence,
):
    with anyio.fail_after(PATIENCE):
        async with Server(secrets=silence) as server:
            server.register_tasks("app", [Use])
            server.define(often())
            for _ in range(5):
                with pytest.raises(BusyError, match="its secrets are being read"):
                    server._parts.factory.start_scheduled("etl_load", {}, None, None, None)
                await settle()
            await anyio.to_thread.run_sync(silence.is_asked.wait)
    assert silence.asked == [("etl_load", "DB_PASSWORD")]

"""Definitions of thousands of tasks: the event loop goes on while they are checked, defined, compiled."""

from __future__ import annotations

import json
import threading

import anyio
import pytest
from livebundles import QUICK
from patience import PATIENCE

from scattersphere import DefinitionError, JobDefinition, RunnableTask, Server, UnresolvedError
from scattersphere._json_words import MOST_PROBLEMS
from scattersphere.jobs import claims as claims_module
from scattersphere.jobs import jobs as jobs_module

pytestmark = pytest.mark.anyio
COUNT = jobs_module.LARGE + 1


class Say(RunnableTask):
    number: int = 0

    async def run(self):
        return self.number


class Other(RunnableTask):
    async def run(self):
        return None


def tasks(count=COUNT, **more):
    # one runs; the others would take the test's time
    return {
        f"t{number}": {"task": "Say", "args": {"number": number}, "run_if": not number, **more}
        for number in range(count)
    }


def text(count=COUNT, **more):
    return json.dumps({"name": "big", "tasks": tasks(count, **more)})


@pytest.fixture
def threads(monkeypatch):
    """Where large work was done: names of functions, and whether that was the loop's own thread."""
    loop, seen = threading.get_ident(), {}
    for name in ("checked", "read_definition", "compile_plan", "code_problems", "placed"):
        real = getattr(jobs_module, name)

        def watched(*args, name=name, real=real, **more):
            seen.setdefault(name, set()).add(threading.get_ident() == loop)
            return real(*args, **more)

        monkeypatch.setattr(jobs_module, name, watched)
    return seen


async def test_a_large_definition_is_defined_validated_and_compiled_off_the_loop(threads):
    async with Server() as server:
        server.register_tasks("app", [Say])
        made = JobDefinition(name="big", tasks=dict(JobDefinition.loads(text()).tasks))
        defined = await server.adefine(made)
        assert defined is server.definitions["big"]
        assert {task.bundle for task in defined.tasks.values()} == {"app"}
        assert await server.avalidate(made) == await server.avalidate(text()) == []
        run = await server.run("big", timeout=PATIENCE)
        assert run.results["t0"] == 0
        assert list(threads.values()) == 5 * [{False}]
        again = await server.start("big")
        assert again.plan is run.plan
        await again.wait(PATIENCE)


async def test_a_small_one_is_defined_without_a_turn_of_the_loop(threads):
    async with Server() as server:
        server.register_tasks("app", [Say])
        await server.adefine(JobDefinition.build("small").task("only", Say).done())
        assert await server.avalidate(text(3)) == []
        await (await server.start("small")).wait(PATIENCE)
        assert set(map(frozenset, threads.values())) == {frozenset([True])}


async def test_what_is_wrong_with_a_large_definition_is_told_as_of_a_small_one():
    wrong = tasks()
    wrong["t7"] |= {"args": {"number": "seven"}, "pool": "none"}
    wrong["t9"] |= {"task": "Sya"}
    async with Server() as server:
        server.register_tasks("app", [Say])
        for given in (
            json.dumps({"name": "big", "tasks": wrong}, indent=1),
            JobDefinition.loads(json.dumps({"name": "big", "tasks": wrong})),
        ):
            told = await server.avalidate(given)
            assert told == server.validate(given)
            assert len(told) == 3
        with pytest.raises(DefinitionError) as async_way:
            await server.adefine(given)
        with pytest.raises(DefinitionError) as sync_way:
            server.define(given)
        assert str(async_way.value) == str(sync_way.value)
        assert await server.avalidate("{" + " " * jobs_module.LONG) == server.validate(
            "{" + " " * jobs_module.LONG
        )
        del wrong["t7"]
        await server.adefine(JobDefinition.loads(json.dumps({"name": "big", "tasks": wrong})))
        with pytest.raises(UnresolvedError, match="Sya"):
            await server.start("big")
        assert "Sya" in str(server.unresolved["big"])


async def test_code_that_comes_while_a_large_definition_is_judged_is_the_code_it_gets(monkeypatch):
    async with Server(watch=QUICK) as server:
        real, turns = jobs_module.in_thread, []

        async def in_thread(work):
            turns.append(1)
            if len(turns) == 2:  # the first is the definition alone
                server.register_tasks("app", [Say])
            return await real(work)

        monkeypatch.setattr(jobs_module, "in_thread", in_thread)
        defined = await server.adefine(JobDefinition.loads(text()))
        assert {task.bundle for task in defined.tasks.values()} == {"app"}
        assert len(turns) == 3


async def test_a_server_that_is_closed_meanwhile_starts_nothing(monkeypatch):
    async with Server() as server:
        server.register_tasks("app", [Say])
        await server.adefine(JobDefinition.loads(text()))
        real = jobs_module.in_thread

        async def in_thread(work):
            await server.aclose()
            return await real(work)

        monkeypatch.setattr(jobs_module, "in_thread", in_thread)
        with pytest.raises(jobs_module.ScattersphereError, match="takes no new work"):
            await server.start("big")
        assert not server.runs


async def test_one_job_is_judged_and_not_all_when_one_is_asked_for(monkeypatch):
    """`job NAME` compiled every job of the Server."""
    async with Server() as server:
        for number in range(5):
            server.define(JobDefinition.build(f"j{number}").task("only", "Missing").done())
        looked = []
        real = jobs_module.Jobs.lacking
        monkeypatch.setattr(
            jobs_module.Jobs, "lacking", lambda jobs, name: (looked.append(name), real(jobs, name))[1]
        )
        assert server.unresolved.get("j3")
        assert server.unresolved.get("none") is None
        assert looked == ["j3"]
        assert list(server.unresolved) == [f"j{number}" for number in range(5)]
        assert len(server.unresolved) == 5
        await anyio.lowlevel.checkpoint()


async def test_a_definition_that_is_wrong_a_thousand_times_is_looked_at_no_further():
    most = MOST_PROBLEMS
    wrong = json.dumps({"name": "big", "tasks": tasks(2 * most, pool=5)})
    absent = json.dumps(
        {"name": "big", "tasks": {"a": {"task": "Say", "depends_on": list(map(str, range(2 * most)))}}}
    )
    no_names = json.dumps(
        {"name": "big", "tasks": {"a": {"task": "Say", "depends_on": list(range(2 * most))}}}
    )
    no_code = json.dumps({"name": "big", "tasks": tasks(2 * most, task="Sya")})
    async with Server() as server:
        server.register_tasks("app", [Say])
        for given in (wrong, absent, no_names, no_code):
            told = await server.avalidate(given)
            assert most <= len(told) <= most + 10
            assert told == server.validate(given)


@pytest.mark.parametrize("task", ["Say", "Absent"])
async def test_what_a_large_job_lacks_is_found_in_a_thread_before_a_page_or_a_list_asks(threads, task):
    async with Server() as server:
        server.register_tasks("app", [Say])
        await server.adefine(JobDefinition.loads(text(task=task)))
        threads.clear()
        await server.unresolved.judge()
        assert threads["compile_plan"] == {False}
        assert ("big" in server.unresolved) == (task == "Absent")
        assert dict(server.unresolved).keys() == ({"big"} if task == "Absent" else set())
        await server.unresolved.judge("big", "none")
        assert threads["compile_plan"] == {False}
        server.register_tasks("more", [type("Absent", (Say,), {})])
        await server.unresolved.judge()
        assert server.unresolved == {}


async def test_what_a_replaced_or_undefined_job_has_held_is_freed_in_a_thread(monkeypatch):
    freed = []
    monkeypatch.setattr(claims_module, "free", lambda held: freed.append((threading.get_ident(), list(held))))
    monkeypatch.setattr(jobs_module, "free", claims_module.free)
    async with Server() as server:
        first = await server.adefine(JobDefinition.loads(text()))
        assert "big" in server.unresolved  # its code is not here, and that is remembered
        second = await server.adefine(JobDefinition.loads(text()), replace=True)
        assert any(held is first for held in freed[-1][1])
        assert "big" in server.unresolved
        await server.aundefine("big")
        assert "big" not in server.definitions
        assert any(held is second for held in freed[-1][1])
        # The problems that were found hold the definition, too: they are not left behind.
        assert any(isinstance(held, tuple) and held[0] is second for held in freed[-1][1])
    assert {thread == threading.get_ident() for thread, _ in freed} == {False}


async def test_a_small_job_is_undefined_without_a_thread(monkeypatch):
    monkeypatch.setattr(claims_module, "in_thread", None)
    async with Server() as server:
        server.define(JobDefinition.build("small").task("only", Say).done())
        await server.aundefine("small")
        assert not server.definitions


async def test_code_that_no_waiting_job_names_is_there_without_a_look_at_their_tasks(monkeypatch):
    async with Server() as server:
        await server.adefine(JobDefinition.loads(text()))
        looked = []
        real = jobs_module.Jobs._resolve
        monkeypatch.setattr(jobs_module.Jobs, "_resolve", lambda *args: looked.append(1) or real(*args))
        server.register_tasks("other", [Other])
        assert not looked
        assert server.definitions["big"].tasks["t0"].bundle is None
        server.register_tasks("app", [Say])
        assert looked
        assert server.definitions["big"].tasks["t0"].bundle == "app"

"""Values that are computed once: a thread that computes one, and waits for its turn, keeps nobody else from another."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, Parameter, Server, TaskDefinition, _turns
from scattersphere.commands import views
from scattersphere.commands.views import digest_of

CACHED = [name for name, of in vars(JobDefinition).items() if isinstance(of, functools.cached_property)]  # noqa: TID251 - ours is one


def job(name="small", tasks=1, **more):
    return JobDefinition(
        name=name, tasks={f"t{at}": TaskDefinition(task="x.Y") for at in range(tasks)}, **more
    )


@pytest.mark.parametrize("name", CACHED)
@pytest.mark.parametrize("params", [{}, {"token": Parameter(secret=True)}])
def test_what_a_thread_computes_of_one_definition_waits_for_turns_while_others_ask_the_same_of_another(
    name, params
):
    inside, leave = threading.Event(), threading.Event()

    def stand():
        inside.set()
        assert leave.wait(PATIENCE)

    large, giving = job("large", 3, params=params), copy_context()
    giving.run(_turns.let_others_wait, stand)
    with ThreadPoolExecutor(1) as pool:
        computed = pool.submit(giving.run, getattr, large, name)
        assert inside.wait(PATIENCE)
        assert getattr(job(params=params), name)
        assert not computed.done()
        leave.set()
        assert computed.result(PATIENCE)


@pytest.mark.anyio
async def test_a_server_defines_a_job_while_a_thread_finds_the_digest_of_another(monkeypatch):
    inside, leave, real = anyio.Event(), threading.Event(), views.in_thread

    async def in_thread(work):
        def within():
            way = _turns.WAY.get()

            def stand():
                if not inside.is_set():
                    anyio.from_thread.run_sync(inside.set)
                    assert leave.wait(PATIENCE)
                way()

            _turns.let_others_wait(stand)
            return work()

        return await real(within)

    monkeypatch.setattr(views, "in_thread", in_thread)
    async with Server() as server:
        large = await server.adefine(job("large", views.MANY_TASKS + 1))
        vars(large).pop("digest", None)
        vars(large).pop("shown_digest", None)
        async with anyio.create_task_group() as group:
            group.start_soon(digest_of, large)
            with anyio.fail_after(PATIENCE):
                await inside.wait()
            server.define(job(), replace=True)
            assert "shown_digest" not in vars(large)
            leave.set()
        assert vars(large)["shown_digest"] == job("large", views.MANY_TASKS + 1).digest

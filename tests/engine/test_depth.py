"""What the stack, memory or Ctrl-C makes of a call of the context is the body's own failure, and no defect of ours."""

import logging
import sys

import anyio
import pytest
from patience import PATIENCE

from scattersphere import RunnableTask, RunState, Server
from scattersphere.engine.callbacks import BodyCallbacks
from scattersphere.engine.execution import Execution
from scattersphere.engine.holds import Holds
from scattersphere.engine.progress import Gauge
from scattersphere.engine.reports import Reports


class OnLoop(RunnableTask):
    """Call all that the context has, on the loop."""

    async def run(self, context):
        context.log.info("here")
        context.progress(1, 2)
        context.on_cancel(lambda: None)
        await context.checkpoint()


class InThread(RunnableTask):
    """Call what a thread may call."""

    def run(self, context):
        context.log.info("here")
        context.progress(1, 2)
        context.on_cancel(lambda: None)


class Sleeps(RunnableTask):
    """Never end."""

    async def run(self, context):
        await anyio.sleep_forever()


ANYWHERE = [(Reports, "progress"), (Gauge, "report"), (Reports, "make_log"), (BodyCallbacks, "of")]
ON_LOOP = [(Gauge, "_look"), (Gauge, "_tell_latest"), (Reports, "_line_written"), (Holds, "_hold_task")]
PLACES = [*((OnLoop, *each) for each in (*ANYWHERE, *ON_LOOP)), *((InThread, *each) for each in ANYWHERE)]
OWN = [RecursionError, MemoryError, KeyboardInterrupt]


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize(
    ("body", "owner", "name"), PLACES, ids=lambda value: getattr(value, "__name__", value)
)
@pytest.mark.anyio
async def test_what_a_call_of_the_context_could_not_do_is_the_bodys_failure(
    body, owner, name, kind, monkeypatch, caplog
):
    caplog.set_level(logging.CRITICAL, "scattersphere.engine")
    real, left = getattr(owner, name), [1]

    def broken(*args, **kwargs):
        if left and left.pop():
            raise kind("no room")
        return real(*args, **kwargs)

    async with Server(grace=0.1) as server:
        server.register_tasks("app", [OnLoop, InThread])
        monkeypatch.setattr(owner, name, broken)
        run = await (await server.start_task(body.__name__)).wait(PATIENCE)
        assert not left
        assert run.state is RunState.FAILED, run.explain()
        assert kind.__name__ in run.explain()
        assert (await (await server.start_task(body.__name__)).wait(PATIENCE)).succeeded


class Goes(RunnableTask):
    """Report after a report that could not be made."""

    async def run(self, context):
        try:
            context.progress(1)
        except RecursionError:
            context.progress(2)


@pytest.mark.anyio
async def test_a_report_that_could_not_be_made_does_not_keep_the_next_from_being_told(monkeypatch):
    real, left, told = Gauge._tell_latest, [1], []

    def broken(gauge):
        if left and left.pop():
            raise RecursionError
        real(gauge)

    def closed(gauge):
        told.append(gauge._told)

    monkeypatch.setattr(Gauge, "_tell_latest", broken)
    monkeypatch.setattr(Gauge, "close", closed)
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Goes])
        assert (await (await server.start_task("Goes")).wait(PATIENCE)).succeeded
    assert [report[0] for report in told] == [2]


BELOW = {"now": 0}


def depth():
    """Return how many frames there are."""
    frame, number = sys._getframe(), 0
    while frame:
        frame, number = frame.f_back, number + 1
    return number


def reports_deep(context, frames):
    """Report so many frames further down."""
    if frames > 0:
        reports_deep(context, frames - 1)
    else:
        context.progress(1)


class Deep(RunnableTask):
    """Report so many frames above the end of the stack."""

    async def run(self, context):
        reports_deep(context, sys.getrecursionlimit() - depth() - BELOW["now"])


@pytest.mark.anyio
async def test_a_report_near_the_end_of_the_stack_fails_or_succeeds_and_its_run_ends(caplog):
    caplog.set_level(logging.CRITICAL, "scattersphere.engine")
    states = set()
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Deep])
        for BELOW["now"] in range(3, 40):
            states.add((await (await server.start_task("Deep")).wait(PATIENCE)).state)
    assert states == {RunState.FAILED, RunState.SUCCEEDED}


@pytest.mark.anyio
async def test_a_defect_at_the_end_of_the_stack_ends_the_run_from_a_stack_that_has_room(monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, "scattersphere.engine")
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Sleeps])
        run = await server.start_task("Sleeps")
        execution, real, full = run._execution, Execution.tell_end, [True]

        def tell_end(each):
            if full[0]:
                raise RecursionError
            real(each)

        monkeypatch.setattr(Execution, "tell_end", tell_end)
        server._executor.defect(execution, RecursionError("no room"))
        full[0] = False  # the body's frames are left
        assert (await run.wait(PATIENCE)).state is RunState.CRASHED


class Broken(logging.Handler):
    """Fail at each line."""

    def handle(self, record):
        raise RecursionError("no room to log")


@pytest.mark.anyio
async def test_a_crash_that_cannot_be_logged_ends_its_run_and_a_second_one_is_heard():
    log, handler = logging.getLogger("scattersphere.engine"), Broken()
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Sleeps])
        run, other = await server.start_task("Sleeps"), await server.start_task("Sleeps")
        log.addHandler(handler)
        try:
            server._executor.crash_run(run._execution, ZeroDivisionError("first"))
            server._executor.crash_run(other._execution, ZeroDivisionError("second"))
        finally:
            log.removeHandler(handler)
        assert not server._executor.defects._crashing
        for each in (run, other):
            assert (await each.wait(PATIENCE)).state is RunState.CRASHED

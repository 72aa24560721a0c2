"""What worker processes promise beyond the contract: crashes, kills, what crosses the pipes, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import anyio
import pytest
from patience import PATIENCE

from scattersphere.abc.backend import Backend, OutcomeKind
from scattersphere.engine.backends import workerprocess
from scattersphere.engine.backends.processes import ProcessBackend, core_count
from scattersphere.errors import NonRetryableError
from scattersphere.runnable import RunnableTask
from scattersphere.testing.backends import CheckContext, Stage
from scattersphere.testing.bodies import Echo, Obey, Refuse
from scattersphere.worker.pipes import Kind
from scattersphere.worker.process import WorkerProcess

sys.path.insert(0, str(Path(__file__).parent))

import process_bodies as bodies

pytestmark = pytest.mark.anyio


def one() -> Stage:
    return Stage(partial(ProcessBackend, 1))


def is_running(pid: int) -> bool:
    """Whether any thread of the process is there: the first may have gone while another holds the pipes."""
    try:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except OSError:
        return Path(f"/proc/{pid}/task").exists()  # a thread went while we looked: look again
    return any(state not in "ZX" for state in states)


def open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


async def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await anyio.sleep(0.005)  # what is waited for happens in another process


def said(call) -> list[str]:
    return [line.message for line in call.context.run_log.lines()]


def test_it_is_a_backend_as_wide_as_the_machine():
    assert isinstance(ProcessBackend(), Backend)
    assert ProcessBackend().limit == core_count() == len(os.sched_getaffinity(0))


# -- deaths


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "killed by SIGSEGV"),
        ("exit", "exit code 3"),
        ("kill", "killed by SIGKILL (out of memory?)"),
        ("abort", "killed by SIGABRT"),
    ],
)
async def test_a_death_is_told_by_signal_or_exit_code_and_a_new_process_goes_on(how, words):
    async with one() as stage:
        outcome = await stage.run(bodies.Die, how=how)
        assert outcome.kind is OutcomeKind.DIED
        assert str(outcome.error) == words
        assert (await stage.run(Echo, value=1)).value == 1


@pytest.mark.parametrize("how", ["close", "garbage", "exec"])
async def test_a_process_that_breaks_its_pipes_is_ended(how):
    async with one() as stage:
        outcome = await stage.run(bodies.Die, how=how)
        assert outcome.kind is OutcomeKind.DIED
        assert (await stage.run(Echo, value=1)).value == 1


async def test_a_kill_ends_one_call_and_the_neighbour_goes_on(tmp_path):
    go = tmp_path / "go"
    async with Stage(partial(ProcessBackend, 2)) as stage:
        victim, neighbour = (stage.start(Refuse, until=str(go)) for _ in range(2))
        await victim.begun()
        await neighbour.begun()
        victim.handle.kill()
        outcome = await victim.outcome()
        assert outcome.kind is OutcomeKind.DIED
        assert str(outcome.error) == "killed by SIGKILL"
        assert (await stage.run(Echo, value=1)).value == 1  # the lane has a new process
        go.touch()
        assert (await neighbour.outcome()).kind is OutcomeKind.VALUE


async def test_a_call_killed_before_it_began_never_begins(tmp_path):
    go = tmp_path / "go"
    async with one() as stage:
        first = stage.start(Refuse, until=str(go))
        await first.begun()
        waiting = stage.start(Refuse, until=str(tmp_path / "never"))
        waiting.handle.kill()
        go.touch()
        assert (await waiting.outcome()).kind is OutcomeKind.DIED
        assert waiting.context.progress_made == []


@pytest.mark.parametrize("fork", [False, True])
async def test_a_kill_reaches_what_the_body_has_started(fork):
    async with one() as stage:
        call = stage.start(bodies.StartOther, fork=fork)
        await call.begun()
        child = int(call.context.progress_made[0][0])
        assert is_running(child)
        call.handle.kill()
        await call.outcome()
        await wait_until(lambda: not is_running(child))


async def test_a_forked_child_does_not_hide_the_death_of_its_parent():
    async with one() as stage:
        call = stage.start(bodies.ForkAndDie)
        outcome = await call.outcome()
        assert str(outcome.error) == "exit code 3"
        child = int(call.context.progress_made[0][0])
        await wait_until(lambda: not is_running(child))


def test_a_kill_meant_for_an_earlier_call_does_not_reach_a_later_one():
    earlier, later = object(), object()
    worker = WorkerProcess({})
    worker.begin(later)
    worker.kill(earlier)
    assert worker.replies.receive() == (Kind.READY, b"")
    worker.kill(later)
    assert worker.replies.receive() is None
    assert worker.reap() == "killed by SIGKILL"


async def test_calls_go_on_in_warm_workers_while_a_killed_one_is_replaced():
    async with Stage(lambda: ProcessBackend(2)) as stage:
        victim, other = stage.start(bodies.AsyncWait), stage.start(bodies.AsyncWait)
        for call in (victim, other):
            await call.begun()
        warm = other.handle.worker.pid
        other.cancel()
        await other.outcome()
        victim.handle.kill()
        await victim.outcome()
        assert [(await stage.run(bodies.Who)).value for _ in range(50)] == [warm] * 50


async def test_a_worker_that_died_while_it_was_idle_costs_no_call():
    async with one() as stage:
        pid = (await stage.run(bodies.Who)).value
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not is_running(pid))
        outcome = await stage.run(bodies.Who)
        assert outcome.kind is OutcomeKind.VALUE
        assert outcome.value != pid


async def test_a_worker_that_cannot_start_fails_the_call_and_is_not_tried_for_ever(monkeypatch):
    monkeypatch.setattr("scattersphere.worker.process._BOOTSTRAP", "raise SystemExit(9)")
    async with one() as stage:
        for _ in range(2):
            outcome = await stage.run(Echo)
            assert outcome.kind is OutcomeKind.DIED
            assert "did not start: exit code 9" in str(outcome.error)


async def test_without_a_python_the_call_fails_and_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    async with one() as stage:
        outcome = await stage.run(Echo)
    assert outcome.kind is OutcomeKind.EXCEPTION
    assert isinstance(outcome.error, FileNotFoundError)


# -- what crosses the pipes


@pytest.mark.parametrize(
    ("kind", "name", "base", "message"),
    [
        ("night", "NightError", LookupError, "Monday: no data"),
        ("final", "NonRetryableError", NonRetryableError, "never again"),
        ("unicode", "UnicodeDecodeError", UnicodeDecodeError, "'utf-8' codec can't decode byte 0xff"),
        ("group", "ExceptionGroup", Exception, "several (1 sub-exception)"),
        ("oserror", "FileNotFoundError", OSError, "[Errno 2] No such file or directory: '/nonexistent/x'"),
        ("key", "KeyError", KeyError, "'k'"),
    ],
)
async def test_an_exception_comes_back_by_name_bases_and_message(kind, name, base, message):
    async with one() as stage:
        outcome = await stage.run(bodies.RaiseStrange, kind=kind)
    error = outcome.error
    assert type(error).__qualname__ == name
    assert isinstance(error, base)
    assert str(error).startswith(message)
    assert "process_bodies.py" in outcome.traceback


async def test_the_line_of_bases_of_an_exception_is_kept():
    async with one() as stage:
        outcome = await stage.run(bodies.RaiseStrange, kind="night")
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(outcome.error).__mro__]
    assert names[:2] == ["process_bodies.NightError", "process_bodies.DataError"]
    assert "builtins.LookupError" in names


@pytest.mark.parametrize("what", ["lambda", "lock"])
async def test_a_result_that_cannot_be_sent_is_a_clear_failure(what):
    async with one() as stage:
        outcome = await stage.run(bodies.Return, what=what)
    assert outcome.kind is OutcomeKind.EXCEPTION
    assert isinstance(outcome.error, TypeError)
    assert "its result (a " in str(outcome.error)
    assert 'use backend "thread"' in str(outcome.error)


async def test_a_result_that_cannot_be_read_is_a_clear_failure():
    async with one() as stage:
        outcome = await stage.run(bodies.Return, what="trap")
        assert (await stage.run(Echo, value=1)).value == 1
    assert "its result arrived from the worker process but cannot be read: snapped" in str(outcome.error)


async def test_an_argument_that_cannot_be_sent_is_named():
    async with one() as stage:
        outcome = await stage.run(Echo, value=threading.Lock())
    assert "the argument 'value' (a lock) cannot be sent" in str(outcome.error)
    assert outcome.traceback.startswith("TypeError: check#1/Echo: the argument 'value'")


async def test_large_values_cross_in_both_directions():
    big = b"y" * 3_000_000
    async with one() as stage:
        assert (await stage.run(Echo, value=big)).value == big
        assert len((await stage.run(bodies.Return, what="big")).value) == 5_000_000


async def test_results_of_upstreams_parameters_and_key_are_there():
    async with one() as stage:
        outcome = await stage.run(bodies.Results)
    assert outcome.value == ({"upstream": 1}, {}, "check/1")


async def test_results_of_upstreams_that_cannot_be_sent_fail_only_who_asks(monkeypatch):
    monkeypatch.setattr(CheckContext, "results", property(lambda self: {"lock": threading.Lock()}))
    async with one() as stage:
        assert (await stage.run(Echo, value=1)).value == 1
        outcome = await stage.run(bodies.Results)
    assert "the results of the upstream tasks cannot be sent" in str(outcome.error)


class InFunction:
    @staticmethod
    def make():
        class Local(RunnableTask):
            def run(self, context):
                pass

        return Local


async def test_a_class_that_no_other_process_could_find_is_refused_at_once(monkeypatch):
    async with one() as stage:
        with pytest.raises(TypeError, match="defined inside a function"):
            stage.start(InFunction.make())
        monkeypatch.setattr(bodies.Who, "__module__", "__main__")
        with pytest.raises(TypeError, match="defined in the program itself"):
            stage.start(bodies.Who)


async def test_a_class_that_has_gone_from_its_module_fails_the_call():
    class Gone(RunnableTask):
        def run(self, context):
            pass

    Gone.__module__, Gone.__qualname__ = bodies.__name__, "Gone"
    async with one() as stage:
        outcome = await stage.run(Gone)
    assert isinstance(outcome.error, AttributeError)
    assert "Gone" in str(outcome.error)


async def test_log_lines_of_all_kinds_reach_the_run(capfd):
    async with one() as stage:
        stage.takes_prints = True
        call = stage.start(bodies.Write)
        await call.outcome()
    lines = call.context.run_log.lines()
    assert [(line.logger, line.message) for line in lines[:3]] == [
        ("b.mod", "from the bundle's logger"),
        ("print", "printed"),
        ("task", "from a thread"),
    ]
    assert lines[3].message.startswith("handled\nTraceback")
    assert lines[3].message.endswith("KeyError: 'inner'")
    assert {(line.task, line.attempt) for line in lines} == {("Write", 1)}
    assert capfd.readouterr() == ("", "")


async def test_prints_are_the_processs_own_unless_they_are_asked_for(capfd):
    async with one() as stage:
        call = stage.start(bodies.Write)
        await call.outcome()
    assert "printed" not in said(call)


async def test_a_line_of_a_call_that_has_ended_lands_in_its_own_run(tmp_path):
    until = tmp_path / "go"
    async with one() as stage:
        old = stage.start(bodies.Straggle, until=str(until))
        await old.outcome()
        new = stage.start(Refuse, until=f"{until}.said")
        await new.begun()
        until.touch()
        await new.outcome()
    assert said(new) == []
    assert said(old) == ["from a call that has ended"]


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (False, ["finished", "running -> succeeded", "clean"]),
        (True, ["exception x", "running -> failed", "clean"]),
    ],
)
async def test_hooks_run_in_the_process(fail, expected):
    async with one() as stage:
        call = stage.start(bodies.Hooked, fail=fail)
        await call.outcome()
    assert said(call) == expected


async def test_the_environment_of_the_moment_reaches_the_worker():
    variables = {"SCATTERSPHERE_TEST": "one"}
    async with Stage(lambda: ProcessBackend(1, environment=lambda: variables)) as stage:
        assert (await stage.run(bodies.Environment, name="SCATTERSPHERE_TEST")).value == "one"
        variables["SCATTERSPHERE_TEST"] = "two"
        assert (await stage.run(bodies.Environment, name="SCATTERSPHERE_TEST")).value == "two"
    assert "SCATTERSPHERE_TEST" not in os.environ


# -- pause and cancel


async def test_a_body_is_held_at_its_check_until_the_engine_lets_it_go_on(monkeypatch):
    reached, go = threading.Event(), threading.Event()

    def check(self):
        reached.set()
        assert go.wait(PATIENCE)

    monkeypatch.setattr(CheckContext, "check", check)
    async with one() as stage:
        call = stage.start(bodies.Checks)
        await wait_until(reached.is_set)
        await anyio.sleep(0.05)
        assert not call.outcomes
        go.set()
        assert (await call.outcome()).value == "went on"


async def test_a_cancel_before_the_process_has_begun_is_not_lost():
    async with one() as stage:
        for _ in range(20):
            call = stage.start(Obey)
            call.cancel()
            assert (await call.outcome()).kind is OutcomeKind.CANCELLED


@pytest.mark.parametrize("body", [bodies.AsyncWait, bodies.AsyncCheckpoints])
async def test_an_async_body_is_cancelled_where_it_waits(body):
    async with one() as stage:
        call = stage.start(body)
        await call.begun()
        call.cancel()
        assert (await call.outcome()).kind is OutcomeKind.CANCELLED
        if body is bodies.AsyncWait:
            assert said(call) == ["tidied"]


async def test_a_cancel_before_an_async_body_has_begun_is_not_lost(tmp_path):
    go = tmp_path / "go"
    async with one() as stage:
        for early in range(2):  # while the process starts; while the lane is busy with another call
            before = stage.start(Refuse, until=str(go)) if early else None
            call = stage.start(bodies.AsyncWait)
            call.cancel()
            go.touch()
            if before is not None:
                await before.outcome()
            assert (await call.outcome()).kind is OutcomeKind.CANCELLED


async def test_an_async_body_returns_a_value():
    async with one() as stage:
        assert (await stage.run(bodies.AsyncEcho, value=5)).value == (5, 1)


async def test_an_async_body_is_named_by_the_line_where_it_waits():
    async with one() as stage:
        call = stage.start(bodies.AsyncWait)
        await call.begun()
        await wait_until(lambda: "process_bodies.py:" in call.handle.where())
        assert f"(process {call.handle.worker.pid})" in call.handle.where()
        call.cancel()
        await call.outcome()
    assert call.handle.where() == ""


async def test_child_runs_are_refused_with_advice():
    async with one() as stage:
        outcome = await stage.run(bodies.AsyncStart)
    assert 'give the task the backend "loop"' in str(outcome.error)


# -- life


async def test_workers_are_kept_warm():
    async with one() as stage:
        pids = {(await stage.run(bodies.Who)).value for _ in range(5)}
    assert len(pids) == 1


async def test_a_worker_that_has_loaded_many_versions_is_replaced(monkeypatch):
    monkeypatch.setattr(workerprocess, "VERSIONS_KEPT", 0)
    async with one() as stage:
        first = (await stage.run(bodies.Who)).value
        second = (await stage.run(bodies.Who)).value
        assert first != second
        await wait_until(lambda: not is_running(first))


async def test_closing_leaves_no_process_thread_or_descriptor_behind(tmp_path):
    before = open_files()
    async with Stage(partial(ProcessBackend, 3)) as stage:
        busy = [stage.start(Refuse, until=str(tmp_path / "never")) for _ in range(2)]
        for call in busy:
            await call.begun()
        idle = (await stage.run(bodies.Who)).value
        workers = [call.handle.worker.pid for call in busy]
        await stage.backend.aclose()
        for call in busy:
            assert (await call.outcome()).kind is OutcomeKind.DIED
        for pid in [idle, *workers]:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)  # not even a zombie
    assert open_files() <= before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scattersphere-process")]


def test_workers_end_when_their_engine_is_killed(tmp_path):
    import subprocess

    program = f"""
import anyio, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Refuse
import process_bodies as bodies

async def main():
    async with Stage(lambda: ProcessBackend(2)) as stage:
        busy = stage.start(Refuse, until="/nonexistent")
        await busy.begun()
        idle = await stage.run(bodies.Who)
        print(busy.handle.worker.pid, idle.value, flush=True)
        await anyio.sleep_forever()

if __name__ == "__main__":
    anyio.run(main)
"""
    engine = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with engine:
        pids = [int(pid) for pid in engine.stdout.readline().split()]
        assert all(is_running(pid) for pid in pids)
        engine.kill()
    deadline = time.monotonic() + PATIENCE
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_the_hosts_main_program_is_not_run_again(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, sys
print("main runs", flush=True)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import anyio
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Echo

async def main():
    async with Stage(lambda: ProcessBackend(1)) as stage:
        print((await stage.run(Echo, value=5)).value)

anyio.run(main)
""")
    ended = await anyio.run_process([sys.executable, str(program)])
    assert ended.stdout.decode().splitlines() == ["main runs", "5"]

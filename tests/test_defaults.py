"""The defaults and limits that users meet, line by line: each is what the contract says, and each is met.

What is configurable has its own tests with other values elsewhere; here nothing is configured.
"""

import contextlib
import json
import os
import threading
import time

import anyio
import pytest
from virtualtime import both_loops, run_virtually

from scattersphere import (
    BusyError,
    DefinitionError,
    EventKind,
    JobDefinition,
    RetryPolicy,
    RunnableTask,
    RunState,
    Server,
    SourceLimits,
    WatchDelays,
)

DAY = 24 * 3600


class Refuses(RunnableTask):
    """Swallow every cancel for an hour."""

    async def run(self, context):
        end = anyio.current_time() + 3600
        while (left := end - anyio.current_time()) > 0:
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep(left)


class Sleeps(RunnableTask):
    """Sleep, an hour where nothing is said."""

    seconds: float = 3600.0

    async def run(self, context):
        await anyio.sleep(self.seconds)


class CleansForHours(RunnableTask):
    async def run(self, context):
        return "done"

    async def clean_up(self):
        await anyio.sleep(3 * 3600)


class Nothing(RunnableTask):
    async def run(self, context):
        return 1


async def entered(main, *tasks, **options):
    async with Server(watch=False, **options) as server:
        server.register_tasks("app", [Refuses, Sleeps, CleansForHours, Nothing, *tasks])
        await main(server)


# ---- grace of a cancel 10 s; timeout of finally-tasks 60 s and of clean_up 10 s


@both_loops
def test_an_attempt_that_does_not_end_is_given_up_ten_seconds_after_its_cancel(backend):
    async def main(server):
        run = await server.start_task("Refuses")
        await anyio.sleep(1)
        begun = anyio.current_time()
        run.cancel()
        await run.wait()
        assert anyio.current_time() - begun == pytest.approx(10, abs=0.5)
        assert list(run.stuck)

    run_virtually(backend, entered, main, Refuses)


@both_loops
def test_finally_tasks_have_a_minute_after_a_cancel(backend):
    async def main(server):
        job = JobDefinition.build("j").task("work", "Sleeps").task("tidy", "Sleeps", finally_=True)
        server.define(job.done())
        run = await server.start("j")
        await anyio.sleep(1)
        begun = anyio.current_time()
        run.cancel()
        await run.wait()
        assert anyio.current_time() - begun == pytest.approx(60, abs=0.5)
        assert run.tasks["tidy"].failure.message == "the finally-tasks took too long"

    run_virtually(backend, entered, main)


@both_loops
def test_clean_up_has_ten_seconds(backend):
    async def main(server):
        begun = anyio.current_time()
        run = await (await server.start_task("CleansForHours")).wait()
        assert anyio.current_time() - begun == pytest.approx(10, abs=0.5)
        assert run.tasks["CleansForHours"].failure.message == "clean_up took longer than 10 s"

    run_virtually(backend, entered, main)


# ---- max_parallel: none; 40 threads; as many processes as cores


PEAK = {"now": 0, "most": 0}
GUARD = threading.Lock()


class CountsOnLoop(RunnableTask):
    number: int

    async def run(self, context):
        PEAK["now"] += 1
        PEAK["most"] = max(PEAK["most"], PEAK["now"])
        await anyio.sleep(10)
        PEAK["now"] -= 1


class CountsInThread(RunnableTask):
    number: int

    def run(self, context):
        with GUARD:
            PEAK["now"] += 1
            PEAK["most"] = max(PEAK["most"], PEAK["now"])
        until = time.monotonic() + 0.05
        while time.monotonic() < until and PEAK["most"] < 41:
            time.sleep(0.001)
        with GUARD:
            PEAK["now"] -= 1


@both_loops
def test_any_number_of_tasks_may_be_on_the_loop_at_once(backend):
    async def main(server):
        PEAK.update(now=0, most=0)
        job = JobDefinition.build("j").task("t", "CountsOnLoop", map={"number": list(range(500))})
        server.define(job.done())
        run = await (await server.start("j")).wait()
        assert run.succeeded
        assert PEAK["most"] == 500

    run_virtually(backend, entered, main, CountsOnLoop)


@pytest.mark.anyio
async def test_forty_tasks_may_be_in_threads_at_once():
    async with Server(watch=False) as server:
        server.register_tasks("app", [CountsInThread])
        PEAK.update(now=0, most=0)
        job = JobDefinition.build("j").task("t", "CountsInThread", map={"number": list(range(200))})
        server.define(job.done())
        run = await (await server.start("j")).wait()
        assert run.succeeded
        assert 1 < PEAK["most"] <= 40
        assert server._executor.backends["thread"].limit == 40


def test_there_are_as_many_processes_as_cores():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert Server()._executor.backends["process"].limit == cores


# ---- max_runs of the server: none; 10,000 queued runs


@both_loops
def test_any_number_of_runs_may_be_live_and_ten_thousand_of_a_job_may_wait(backend):
    async def main(server):
        server.define(JobDefinition.build("j").task("t", "Sleeps").done())
        for _ in range(1_000):
            await server.start("j")
        await anyio.sleep(1)
        assert {run.state for run in server.runs.values()} == {RunState.RUNNING}
        server.define(JobDefinition.build("one", max_runs=1).task("t", "Sleeps").done())
        for _ in range(10_001):
            await server.start("one")
        with pytest.raises(BusyError, match="10000 runs are queued"):
            await server.start("one")
        for run in server.runs.values():
            run.kill()
        await server.drain()

    run_virtually(backend, entered, main)


# ---- history: 1,000 ended runs, 24 h


@both_loops
def test_a_thousand_ended_runs_are_kept_for_a_day(backend):
    async def main(server):
        server.define(JobDefinition.build("j").task("t", "Nothing").done())
        for _ in range(1_001):
            await (await server.start("j")).wait()
        assert list(server.runs) == list(range(2, 1_002))
        await anyio.sleep(DAY - 60)
        assert len(server.runs) == 1_000
        await anyio.sleep(120)
        assert len(server.runs) == 0

    run_virtually(backend, entered, main)


# ---- log of a run: 1 MiB in memory, oldest dropped with a marker; a line 16 KiB


class Talks(RunnableTask):
    async def run(self, context):
        for number in range(3_000):
            context.log.info("%04d %s", number, "x" * 1_000)
        context.log.info("y" * 20_000)


@pytest.mark.anyio
async def test_a_log_has_a_mebibyte_and_a_line_16_kibibytes():
    async with Server(watch=False) as server:
        server.register_tasks("app", [Talks])
        run = await (await server.start_task("Talks")).wait()
        marker, *kept, long = run.logs()
        assert "older lines dropped; the limit is 1048576 bytes" in marker.message
        assert kept[-1].message.startswith("2999 ")
        assert 1 << 19 < run.execution.log.size <= 1 << 20
        assert len(long.message) == 16 * 1024
        assert "characters left out" in long.message


# ---- events kept of a run: 10,000 (log and progress)


class Reports(RunnableTask):
    async def run(self, context):
        for number in range(10_100):
            context.progress(number)
            await anyio.sleep(1)


@both_loops
def test_ten_thousand_reports_and_all_moves_of_a_run_are_kept(backend):
    async def main(server):
        run = await (await server.start_task("Reports")).wait()
        kinds = [event.kind async for event in run.events()]
        assert kinds.count(EventKind.TASK_PROGRESS) == 10_000
        assert kinds.count(EventKind.LAGGED) == 1
        assert {EventKind.TASK_STARTED, EventKind.TASK_ENDED, EventKind.RUN_ENDED} <= set(kinds)

    run_virtually(backend, entered, main, Reports)


# ---- retry: max_attempts 1, delay 0, backoff 2, max_delay 300, jitter, every Exception


class Fails(RunnableTask):
    async def run(self, context):
        raise LookupError("no")


@both_loops
def test_an_attempt_is_made_once_and_waits_of_retries_grow_up_to_five_minutes(backend):
    async def main(server):
        run = await (await server.start_task("Fails")).wait()
        assert run.tasks["Fails"].attempts == 1
        for jitter, expected in ((False, 100 + 200 + 300 + 300), (True, 0)):
            retry = {"max_attempts": 5, "delay": 100} | ({} if jitter else {"jitter": False})
            server.define(JobDefinition.build("j").task("t", "Fails", retry=retry).done(), replace=True)
            begun = anyio.current_time()
            run = await (await server.start("j")).wait()
            took = anyio.current_time() - begun
            assert run.tasks["t"].attempts == 5
            assert took == pytest.approx(expected, abs=1) if not jitter else 0 < took < 900
        begun = anyio.current_time()
        job = JobDefinition.build("j").task("t", "Fails", retry={"max_attempts": 3})
        server.define(job.done(), replace=True)
        run = await (await server.start("j")).wait()
        assert (run.tasks["t"].attempts, anyio.current_time() - begun) == (3, pytest.approx(0, abs=0.5))

    run_virtually(backend, entered, main, Fails)


def test_a_retry_policy_has_the_defaults_of_the_contract():
    assert RetryPolicy() == RetryPolicy(
        max_attempts=1, delay=0, backoff=2, max_delay=300, jitter=True, retry_on=()
    )


# ---- definition: file 64 MiB, 200,000 tasks, 1,000,000 edges, depth 64, one string 16 MiB


def definition(**parts):
    return json.dumps({"format": 1, "name": "j", "tasks": {"t": {"task": "T", "args": {}}}} | parts)


def refused(text):
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(text)
    return str(caught.value)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return definition(tasks={"t": {"task": "T", "args": {"a": value}}})


def test_a_definition_is_at_most_64_mebibytes_long():
    text = definition()
    assert JobDefinition.loads(text + " " * ((64 << 20) - len(text))).name == "j"
    assert "larger than 67,108,864 bytes" in refused(text + " " * (64 << 20))


def test_a_definition_has_at_most_200_000_tasks():
    def of(count):
        tasks = ",".join(f'"t{number}":{{"task":"T"}}' for number in range(count))
        return f'{{"format":1,"name":"j","tasks":{{{tasks}}}}}'

    assert "200,001 tasks are more than 200,000" in refused(of(200_001))
    assert len(JobDefinition.loads(of(200_000)).tasks) == 200_000


def test_a_definition_has_at_most_a_million_edges():
    def of(extra):
        first = ",".join(f'"a{number}":{{"task":"T"}}' for number in range(1_000))
        upstreams = json.dumps([f"a{number}" for number in range(1_000)])
        second = ",".join(f'"b{number}":{{"task":"T","depends_on":{upstreams}}}' for number in range(1_000))
        more = ',"c":{"task":"T","depends_on":["a0"]}' * extra
        return f'{{"format":1,"name":"j","tasks":{{{first},{second}{more}}}}}'

    assert "more than 1,000,000 dependencies" in refused(of(1))
    assert len(JobDefinition.loads(of(0)).tasks) == 2_000


def test_lists_and_objects_stand_at_most_64_inside_one_another():
    assert JobDefinition.loads(nested(60)).name == "j"
    assert "64" in refused(nested(61))


def test_a_string_has_at_most_16_mebibytes():
    longest = "x" * (16 << 20)
    assert JobDefinition.loads(definition(description=longest)).description == longest
    assert "longer than 16,777,216 characters" in refused(definition(description=f"{longest}x"))


# ---- bundle: 256 MiB unpacked, 20,000 entries, ratio 200; load time limit 60 s; settle time 0.2 s; poll 2 s


def test_limits_of_bundles_and_times_of_watching_are_those_of_the_contract():
    limits, delays = SourceLimits(), WatchDelays()
    assert (limits.unpacked, limits.entries, limits.ratio) == (256 << 20, 20_000, 200)
    assert (delays.settle, delays.poll) == (0.2, 2.0)


@pytest.mark.anyio
async def test_a_bundle_has_at_most_20_000_entries(tmp_path):
    bundle = tmp_path / "many"

    def write():
        bundle.mkdir()
        (bundle / "__init__.py").touch()
        for number in range(20_000):
            (bundle / f"f{number}.txt").touch()

    await anyio.to_thread.run_sync(write)
    async with Server(watch=False) as server:
        with pytest.raises(Exception, match=r"20,?000"):
            await server.register(bundle)


@pytest.mark.anyio
async def test_a_bundle_has_at_most_256_mebibytes(tmp_path):
    bundle = tmp_path / "large"
    bundle.mkdir()
    (bundle / "__init__.py").touch()
    with (bundle / "data.bin").open("wb") as file:
        file.truncate((256 << 20) + 1)  # a hole: it takes no room
    async with Server(watch=False) as server:
        with pytest.raises(Exception, match=r"SourceLimits\.unpacked"):
            await server.register(bundle)


def test_a_bundle_has_a_minute_to_load():
    assert Server().options.load_timeout == 60.0

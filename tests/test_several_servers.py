"""Several Servers in one process share nothing but the finder for bundles; a Server's threads delay no exit."""

import subprocess
import sys
import threading

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, NoSuchJobError, RunnableTask, Server
from scattersphere.sync import SyncServer

BUNDLE = '''
from scattersphere import RunnableTask

calls = []

class Count(RunnableTask):
    """Count how often this module was called."""

    def run(self, context):
        context.log.info("from %s", context.job)
        calls.append(context.run_id)
        return len(calls)
'''


class Hold(RunnableTask):
    """Occupy a thread until the event is set."""

    async def run(self, context):
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_servers_on_one_loop_have_their_own_code_jobs_runs_limits_and_events(tmp_path):
    path = tmp_path / "count.py"
    path.write_text(BUNDLE)
    async with Server(max_runs=1, grace=0.1) as first, Server(grace=0.1) as second:
        for server in (first, second):
            await server.register(path)
            server.register_tasks("app", [Hold])
        first.define(JobDefinition.build("j").task("t", "count.Count").done())
        with pytest.raises(NoSuchJobError):
            await second.start("j")
        second.define(JobDefinition.build("j").task("t", "count.Count").done())
        one = await (await first.start("j")).wait(PATIENCE)
        other = await (await second.start("j")).wait(PATIENCE)
        # The same file, the same name and digest, and yet two copies of the module.
        assert (one.id, other.id) == (1, 1)
        assert (one.results["t"], other.results["t"]) == (1, 1)
        # A full Server fills no other one.
        await first.start_task("Hold")
        assert str((await first.start_task("count.Count")).state) == "queued"
        assert (await (await second.start_task("count.Count")).wait(PATIENCE)).results["count.Count"] == 2
        assert {event.job async for event in until_last(second)} == {None, "j", "count.Count"}
    assert not [name for name in sys.modules if name.startswith("scattersphere.bundles.count")]


async def until_last(server):
    async for event in server.events():
        yield event
        if event.seq == server.last_event:
            return


def test_servers_in_threads_of_their_own_run_side_by_side(tmp_path):
    path = tmp_path / "count.py"
    path.write_text(BUNDLE)
    found, barrier = [], threading.Barrier(4)

    def serve():
        with SyncServer() as server:
            server.register(path)
            server.define(JobDefinition.build("j").task("t", "count.Count").done())
            barrier.wait(PATIENCE)
            runs = [server.start("j") for _ in range(20)]
            found.append([run.wait(PATIENCE).results["t"] for run in runs])
            assert all([line.run for line in run.logs()] == [run.id] for run in runs)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sorted(results) for results in found] == [list(range(1, 21))] * 4


PROGRAM = '''
import threading, time
import anyio
from scattersphere import RunnableTask, Server

class Never(RunnableTask):
    """Never end."""

    def run(self, context):
        print("ready", flush=True)
        while True:
            time.sleep(3600)

async def main():
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Never])
        run = await server.start_task("Never")
        await anyio.sleep(0.1)
    print(run.state, *server.stuck, flush=True)

anyio.run(main)
print("left", flush=True)
'''


def test_a_thread_that_never_ends_delays_neither_the_close_nor_the_exit_of_the_process(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines() == ["ready", "cancelled Never#1/Never", "left"]

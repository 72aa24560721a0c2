"""A real Ctrl-C reaches the host, whatever a task does when it comes."""

import os
import signal
import subprocess
import sys

import pytest
from patience import PATIENCE

HOST = '''
import os, sys, threading, time
import anyio
from scattersphere import RunnableTask, RunState, Server

started = threading.Event()

class Say(RunnableTask):
    """Tell the test that it executes."""

    def say(self):
        print("ready", flush=True)

class Await(Say):
    async def run(self, context):
        self.say()
        await anyio.sleep(3600)

class Compute(Say):
    """Keep the processor busy in short steps."""

    async def run(self, context):
        self.say()
        while True:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            await anyio.lowlevel.checkpoint()

class ComputeInChild(Say):
    """The same in a task of its own."""

    async def run(self, context):
        async with anyio.create_task_group() as group:
            group.start_soon(Compute().run, context)

class InThread(Say):
    def run(self, context):
        self.say()
        while True:
            context.check()
            time.sleep(0.005)

async def main():
    async with Server(grace=0.3) as server:
        server.register_tasks("app", [Await, Compute, ComputeInChild, InThread])
        run = await server.start_task(sys.argv[2])
        try:
            await run.wait(600)
            await anyio.sleep(600)
        finally:
            print("interrupted in the host", flush=True)
    print(run.state, flush=True)

try:
    anyio.run(main, backend=sys.argv[1])
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
    raise SystemExit(130)
'''


@pytest.mark.parametrize("task", ["Await", "Compute", "ComputeInChild", "InThread"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_real_ctrl_c_reaches_the_host(tmp_path, loop, task):
    if loop == "trio":
        pytest.importorskip("trio")
    script = tmp_path / "host.py"
    script.write_text(HOST)
    with subprocess.Popen(
        [sys.executable, str(script), loop, task], stdout=subprocess.PIPE, text=True, process_group=0
    ) as host:
        assert host.stdout.readline() == "ready\n"
        os.killpg(host.pid, signal.SIGINT)  # as a terminal does it: to the whole group
        try:
            said, _ = host.communicate(timeout=PATIENCE)
        finally:
            host.kill()
    lines = said.splitlines()
    assert lines[0] == "interrupted in the host"
    assert lines[-1] == "KeyboardInterrupt"
    assert host.returncode == 130

"""A host that is killed with SIGKILL leaves no process behind, busy or idle, nor what those have started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from patience import PATIENCE

BUNDLE = '''
import os, subprocess, sys, threading, time
from scattersphere import RunnableTask

def child():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid

class Busy(RunnableTask):
    """Never end."""

    def run(self, context):
        context.log.info("%d %d", os.getpid(), child())
        while True:
            time.sleep(0.05)

class Leave(RunnableTask):
    """Leave a process and a thread behind that never end."""

    def run(self, context):
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return [os.getpid(), child()]
'''

HOST = """
import sys
import anyio
from scattersphere import JobDefinition, Server

async def main():
    async with Server(processes=2) as server:
        await server.register(sys.argv[1])
        for name in ("Busy", "Leave"):
            server.define(JobDefinition.build(name).task("t", f"work.{name}", backend="process").done())
        busy = await server.start("Busy")
        left = await (await server.start("Leave")).wait(60)
        while not busy.logs():
            await anyio.sleep(0.01)
        print(busy.logs()[0].message, *left.results["t"], flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return fields[0] != "Z"  # nobody has reaped it yet
    except FileNotFoundError:
        return sys.platform != "linux"


def test_a_host_that_is_killed_leaves_no_process_behind(tmp_path):
    bundle, host = tmp_path / "work.py", tmp_path / "host.py"
    bundle.write_text(BUNDLE)
    host.write_text(HOST)
    command = [sys.executable, str(host), str(bundle)]
    # What it leaves in its temporary folder the next Server sweeps away; here there is none.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(set(pids)) == 4
        assert all(is_running(pid) for pid in pids)
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.01)

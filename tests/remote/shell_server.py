"""A server as a shell would start it, for tests that use real clients of the line protocol."""

import os
import subprocess
import sys
from contextlib import contextmanager

from scattersphere.remote.serve import create_token

GREETINGS = '''
"""Tasks for the documentation."""
from scattersphere import RunnableTask


class Greet(RunnableTask):
    """Say hello."""

    name: str

    async def run(self, context):
        context.log.info("greeting %s", self.name)
        return f"hello {self.name}"


class Slowly(RunnableTask):
    """Take many small steps."""

    steps: int = 1000

    async def run(self, context):
        import anyio

        for step in range(self.steps):
            context.progress(step, self.steps)
            await context.checkpoint()
            await anyio.sleep(0.01)


class Trip(RunnableTask):
    """Fail."""

    async def run(self, context):
        raise ValueError("a stone")
'''
STUBBORN = '''
from scattersphere import RunnableTask


class Stubborn(RunnableTask):
    """Be slow to clean up."""

    async def run(self, context):
        import anyio

        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3600)
'''
MORE = '''
from scattersphere import RunnableTask


class More(RunnableTask):
    """One more."""

    async def run(self, context):
        return 1
'''
LATER = '''

class Later(RunnableTask):
    """Added later."""

    async def run(self, context):
        return 2
'''


def write(place, text):
    place.write_text(text)
    place.chmod(0o644)


class ShellServer:
    """The process, its folders and its addresses."""

    def __init__(self, process, folder, token):
        self.process = process
        self.bundles = folder / "bundles"
        self.jobs = folder / "jobs"
        self.unix = folder / "run" / "socket"
        self.token = token
        self.said = [process.stdout.readline().strip() for _ in range(3)]
        self.port = int(self.said[0].rpartition(":")[2])


@contextmanager
def shell_server(folder, *more, tcp="127.0.0.1:0"):
    for name in ("bundles", "jobs"):
        (folder / name).mkdir(mode=0o755)
    write(folder / "bundles" / "greetings.py", GREETINGS)
    token = create_token(folder / "tokens.json", "ann", "admin")
    with shell_server_again(folder, tcp, token, *more) as server:
        yield server


@contextmanager
def shell_server_again(folder, tcp, token, *more):
    """Start the command with the flags that the documentation names, in folders that are there."""
    flags = {
        "--bundles": folder / "bundles",
        "--jobs": folder / "jobs",
        "--tcp": tcp,
        "--unix": folder / "run" / "socket",
        "--tokens": folder / "tokens.json",
    }
    words = [str(word) for pair in flags.items() for word in pair] + [str(word) for word in more]
    process = subprocess.Popen(
        [sys.executable, "-m", "scattersphere", "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    with process:
        try:
            yield ShellServer(process, folder, token)
        finally:
            process.kill()

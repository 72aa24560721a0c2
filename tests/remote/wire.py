"""What tests of real sockets share: tasks, a client that reads lines, and a served Server."""

import json
from contextlib import asynccontextmanager

import anyio
from patience import PATIENCE

from scattersphere import RunnableTask, Server
from scattersphere.remote import Role, TokenFile

TELNET_ANSWER = b"\xff\xfc\x06"
"""What telnet is told at Ctrl-C: we mark no time."""


class Say(RunnableTask):
    """Say something."""

    text: str = "hello"

    async def run(self, context):
        context.log.info("said %s", self.text)
        context.progress(1, 2, "half")
        return self.text


class Talk(RunnableTask):
    """Log so many lines, with a turn for others after each hundred."""

    lines: int = 100

    async def run(self, context):
        for number in range(self.lines):
            context.log.info("line %d", number)
            if number % 100 == 99:
                await anyio.sleep(0.001)


class Boom(RunnableTask):
    """Fail."""

    async def run(self, context):
        raise ValueError("boom")


class Forever(RunnableTask):
    """Go on until cancelled."""

    async def run(self, context):
        while True:
            await context.checkpoint()
            await anyio.sleep(0.005)


TASKS = [Say, Talk, Boom, Forever]


def job(name, task="Say", **args):
    return {"format": 1, "name": name, "tasks": {"only": {"task": task, "args": args}}}


class Client:
    """Lines to and from a stream."""

    def __init__(self, stream):
        self.stream = stream
        self.rest = b""
        self.greeting = None

    async def line(self):
        with anyio.fail_after(PATIENCE):
            while b"\n" not in self.rest:
                self.rest += await self.stream.receive()
        line, self.rest = self.rest.split(b"\n", 1)
        return line

    async def read(self):
        return json.loads(await self.line())

    async def send(self, *lines):
        await self.stream.send("".join(f"{line}\n" for line in lines).encode())

    async def ask(self, line):
        """Send one request, and return its reply; events that come in between are dropped."""
        await self.send(line)
        while "n" not in (message := await self.read()):
            pass
        return message

    async def ok(self, line):
        message = await self.ask(line)
        assert "result" in message, message
        return message["result"]

    async def code(self, line):
        return (await self.ask(line))["error"]["code"]

    async def rest_of_it(self):
        """Return all that comes until the server closes."""
        data = self.rest
        with anyio.fail_after(PATIENCE):
            try:
                while True:
                    data += await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return [json.loads(line) for line in data.replace(TELNET_ANSWER, b"").splitlines()]


async def until(condition):
    """Wait for what another task brings about; there is no event to wait for across a socket."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.005)


async def closed(stream):
    """Wait until the server has closed."""
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return


def port_of(listening):
    return int(listening.addresses[0].rpartition(":")[2])


@asynccontextmanager
async def raw(listening):
    """Connect, and say and read nothing."""
    async with await anyio.connect_tcp("127.0.0.1", port_of(listening)) as stream:
        yield stream


@asynccontextmanager
async def over_unix(path):
    async with await anyio.connect_unix(path) as stream:
        client = Client(stream)
        client.greeting = await client.read()
        yield client


@asynccontextmanager
async def connected(listening, token=None, **tls):
    async with await anyio.connect_tcp("127.0.0.1", port_of(listening), **tls) as stream:
        client = Client(stream)
        client.greeting = await client.read()
        if token is not None:
            await client.ok(f"auth {token}")
        yield client


class Served:
    """A Server with a listener on loopback, and a token for each role."""

    def __init__(self, server, listening, tokens, file):
        self.server = server
        self.listening = listening
        self.tokens = tokens
        self.file = file

    def client(self, role="admin"):
        return connected(self.listening, self.tokens.get(role))


@asynccontextmanager
async def served(folder, journal=None, pools=None, secret_env=None, **options):
    file = TokenFile(folder / "tokens.json")
    tokens = {str(role): file.create(f"a-{role}", role) for role in Role}
    tokens["bounded"] = file.create("bounded", Role.ADMIN, patterns=("job:nightly*", "bundle:etl"))
    async with Server(grace=0.3, journal=journal, pools=pools, secret_env=secret_env or {}) as server:
        server.register_tasks("app", TASKS)
        async with server.listen(tcp="127.0.0.1:0", tokens=file, **options) as listening:
            yield Served(server, listening, tokens, file)

"""A backend of nodes: processes that are spoken with over a duplex connection, as a small cluster would be.

Written against the public names of `scattersphere.abc` and `scattersphere.worker` only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from itertools import count
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any

from scattersphere.abc import Backend, BackendHost, Call, Handle, Outcome, OutcomeKind
from scattersphere.worker import CallChannel, CallMessage, Reply

if TYPE_CHECKING:
    from collections.abc import Callable


class NodeBackend(Backend):
    """Runs calls on `limit` nodes, each of which has one at a time."""

    runs_async = True
    kill_grace = 5.0

    def __init__(self, limit: int = 2) -> None:
        self.limit: int | None = limit
        self.nodes: list[Node] = []
        self._waiting: deque[NodeHandle] = deque()
        self._idle: list[Node] = []
        self._numbers = count(1)
        self._host: BackendHost | None = None
        self._library = "asyncio"

    async def open(self, host: BackendHost) -> None:
        """Get ready; nodes are started when they are needed."""
        self._host = host
        self._library = (
            "trio" if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_task() else "asyncio"
        )

    def start(self, call: Call, done: Callable[[Outcome], None]) -> NodeHandle:
        """Hand a call to an idle node, or let it wait for one."""
        if self._host is None:
            raise RuntimeError("the backend is not open")
        handle = NodeHandle(call, done, CallMessage.of(call, next(self._numbers), self._library))
        self._waiting.append(handle)
        self._next()
        return handle

    def _next(self) -> None:
        host = self._host
        while host is not None and self._waiting:
            if not self._idle:
                if len(self.nodes) >= (self.limit or 1):
                    return
                node = Node(host, self._freed, self._gone)
                self.nodes.append(node)
                self._idle.append(node)
            node = self._idle.pop()
            handle = self._waiting.popleft()
            host.note_where(handle.call, f"node {node.process.pid}")
            node.begin(handle)

    def _freed(self, node: Node, handle: NodeHandle, outcome: Outcome) -> None:
        self._idle.append(node)
        self._next()
        handle.done(outcome)

    def _gone(self, node: Node, handle: NodeHandle | None) -> None:
        """A node is gone. One that was killed took its call with it; else that may be made again elsewhere."""
        self.nodes.remove(node)
        if node in self._idle:
            self._idle.remove(node)
        self._next()
        if handle is not None:
            kind = OutcomeKind.DIED if handle.killed else OutcomeKind.LOST
            handle.done(Outcome(kind, error=ConnectionError(f"node {node.process.pid} is gone")))

    async def aclose(self) -> None:
        """Kill the nodes; what waits for one ends as cancelled."""
        host, self._host = self._host, None
        if host is None:
            return
        while self._waiting:
            host.soon(self._waiting.popleft().done, Outcome(OutcomeKind.CANCELLED))
        for node in list(self.nodes):
            node.close()


class NodeHandle(Handle):
    """One call."""

    def __init__(self, call: Call, done: Callable[[Outcome], None], message: CallMessage) -> None:
        self.call = call
        self.message = message
        self.channel = CallChannel(call)
        self.killed = False
        self.node: Node | None = None
        self._done = done
        self._asked: list[str] = []
        self._place = ""
        self._answered = threading.Event()

    def cancel(self) -> None:
        """Ask it to end."""
        self._ask("cancel")

    def pause(self) -> None:
        """Have what it has registered held."""
        self._ask("pause")

    def resume(self) -> None:
        """Have that go on."""
        self._ask("resume")

    def kill(self) -> None:
        """Kill its node."""
        self.killed = True
        if self.node is not None:
            self.node.process.kill()

    def where(self) -> str:
        """Ask its node at which line it is."""
        if self.node is None:
            return ""
        self._answered.clear()
        self._ask("where")
        self._answered.wait(0.5)
        return self._place

    def located(self, place: str) -> None:
        """Take the answer; in the node's thread."""
        self._place = place
        self._answered.set()

    def entered(self, node: Node) -> None:
        """Be on a node, and catch up with what was asked before."""
        self.node = node
        for verb in self._asked:
            node.send(verb, self.message.number)
        if self.killed:
            node.process.kill()

    def done(self, outcome: Outcome) -> None:
        """Be on no node any more, and tell the outcome."""
        self.node = None
        self._done(outcome)

    def _ask(self, verb: str) -> None:
        if self.node is not None:
            self.node.send(verb, self.message.number)
        else:
            self._asked.append(verb)


class Node:
    """A process, and the thread that listens to it."""

    def __init__(
        self,
        host: BackendHost,
        freed: Callable[[Node, NodeHandle, Outcome], None],
        gone: Callable[[Node, NodeHandle | None], None],
    ) -> None:
        self._host = host
        self._freed = freed
        self._gone = gone
        self._handle: NodeHandle | None = None
        self._guard = threading.Lock()
        ours, theirs = Pipe()
        self._connection: Connection[Any, Any] = ours
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outside_backend.node", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self, handle: NodeHandle) -> None:
        """Send a call; in a thread, because a pause may hold it before its first step, and its arguments may be large."""
        self._handle = handle
        threading.Thread(target=self._begin, args=(handle,), daemon=True).start()

    def _begin(self, handle: NodeHandle) -> None:
        if not handle.call.begins():
            self._host.soon(self._end, handle, Outcome(OutcomeKind.CANCELLED))
            return
        try:
            payload = handle.message.pack(handle.call)
        except TypeError as exc:
            self._host.soon(self._end, handle, Outcome(OutcomeKind.EXCEPTION, error=exc, traceback=str(exc)))
            return
        self.send("call", payload)
        self._host.soon(handle.entered, self)

    def send(self, *message: Any) -> None:
        """Send; nothing happens where the node is gone."""
        with self._guard, contextlib.suppress(OSError):
            self._connection.send(message)

    def close(self) -> None:
        """Kill the process."""
        if self._handle is not None:
            self._handle.killed = True
        self.process.kill()

    def _listen(self) -> None:
        try:
            while True:
                word, *content = self._connection.recv()
                self._take(word, content)
        except (EOFError, OSError):
            self.process.kill()
            self.process.wait()
            self._connection.close()
            self._host.soon(self._lost)

    def _take(self, word: str, content: list[Any]) -> None:
        handle = self._handle
        if handle is None:  # a thread that has outlived its call
            return
        match word:
            case "reply":
                number, reply = content
                if number == handle.message.number:
                    self._host.soon(self._end, handle, Reply(*reply).outcome(handle.call.name))
            case "check" | "results":  # they may take long
                threading.Thread(target=self._answer, args=(handle, word), daemon=True).start()
            case "where":
                handle.located(*content)
            case _:
                getattr(handle.channel, word)(*content)

    def _answer(self, handle: NodeHandle, word: str) -> None:
        try:
            answer = getattr(handle.channel, word)()
            self.send("answer", dict(answer) if word == "results" else answer, "")
        except Exception as exc:  # noqa: BLE001 - what a result does when it is sent
            self.send("answer", None, str(exc))

    def _end(self, handle: NodeHandle, outcome: Outcome) -> None:
        if self._handle is handle:
            self._handle = None
            self._freed(self, handle, outcome)

    def _lost(self) -> None:
        handle, self._handle = self._handle, None
        self._gone(self, handle)

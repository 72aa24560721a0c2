"""The program of a node: carries out one call after the other."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from scattersphere.worker import CallControl, CallMessage, run_call


class NodeChannel:
    """How a call speaks with the engine (`scattersphere.worker.Channel`)."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._guard = threading.Lock()
        self._asking = threading.Lock()
        self.answers: SimpleQueue[tuple[Any, str]] = SimpleQueue()
        self.control: CallControl | None = None
        self.number = 0
        self.asked: dict[int, list[str]] = {}
        """What was asked of calls that have not begun here."""

    def send(self, *message: Any) -> None:
        with self._guard:
            self._connection.send(message)

    def begun(self, control: CallControl) -> None:
        self.control = control
        for verb in self.asked.pop(self.number, ()):
            getattr(control, verb)()

    def log(self, level: int, message: str, logger: str, ago: float) -> None:
        self.send("log", level, message, logger, ago)

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.send("progress", done, total, message)

    def held(self) -> None:
        self.send("held")

    def check(self) -> str | None:
        return self._ask("check")

    def results(self) -> dict[str, Any]:
        return self._ask("results")

    def _ask(self, word: str) -> Any:
        with self._asking:
            self.send(word)
            answer, error = self.answers.get()
        if error:
            raise TypeError(error)
        return answer


def listen(connection: Connection[Any, Any], channel: NodeChannel, calls: SimpleQueue[bytes]) -> None:
    """Take what the engine says; when that is gone, end."""
    try:
        while True:
            word, *content = connection.recv()
            if word == "call":
                calls.put(*content)
            elif word == "answer":
                channel.answers.put(tuple(content))
            elif channel.control is not None and channel.number == content[0]:
                if word == "where":
                    channel.send("where", channel.control.where())
                else:
                    getattr(channel.control, word)()
            elif word == "where":
                channel.send("where", "")
            else:
                channel.asked.setdefault(content[0], []).append(word)
    finally:
        os._exit(0)


def main() -> None:
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    channel, calls = NodeChannel(connection), SimpleQueue()
    threading.Thread(target=listen, args=(connection, channel, calls), daemon=True).start()
    while True:
        message = CallMessage.read(calls.get())
        channel.number = message.number
        reply = run_call(message, channel)
        channel.control = None
        channel.send("reply", message.number, tuple(reply))


if __name__ == "__main__":
    main()

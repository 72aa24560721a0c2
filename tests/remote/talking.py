"""A program that people have, as a client: what a page of the documentation shows is typed into it."""

import queue
import re
import subprocess
import threading
from collections import deque

import pytest
from patience import PATIENCE


class Talk:
    """A client program: lines in, lines out."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.replies, self.events = deque(), deque()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\r\n"))

    def type(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def next(self, *, event):
        """Return the next line of a reply, or the next event: they come at their own times."""
        ready, other = (self.events, self.replies) if event else (self.replies, self.events)
        while not ready:
            line = self.lines.get(timeout=PATIENCE)
            (ready if line.startswith("* ") == event else other).append(line)
        return ready.popleft()

    def expect(self, wanted):
        """Read until a line fits; an ellipsis in it stands for anything."""
        pattern = ".*".join(re.escape(part) for part in wanted.split("..."))
        seen = []
        while not seen or not re.fullmatch(pattern, seen[-1]):
            try:
                seen.append(self.next(event=wanted.startswith("* ")))
            except queue.Empty:
                pytest.fail(f"waited for {wanted!r}, saw {seen}")
        return seen

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

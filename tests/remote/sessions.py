"""A session to be driven by tests, and what it said."""

import json

from scattersphere.commands.access import Principal, Role
from scattersphere.commands.limits import Limits
from scattersphere.remote.session import LongLine, Session

TOKENS = {f"{role}-token": Principal(user=f"a-{role}", role=role) for role in Role}
TOKENS["bounded-token"] = Principal(user="bounded", role=Role.ADMIN, patterns=("job:nightly*", "bundle:etl"))

DEFAULTS = Limits()


class FakeGate:
    """Knows the tokens above; `revoked` users are out."""

    def __init__(self):
        self.failures = 0
        self.wait = 0.0
        self.revoked = set()

    def blocked(self):
        return self.wait

    def authenticate(self, token):
        found = TOKENS.get(token)
        self.failures += found is None
        return found

    def current(self, principal):
        return principal.user not in self.revoked


class Driver:
    """Feeds a pure session and answers its calls with their own names and arguments."""

    def __init__(self, role=None, limits=DEFAULTS, *, answering=True):
        self.gate = FakeGate()
        self.now = 0.0
        self.calls = []
        self.said = b""
        self.answering = answering
        principal = TOKENS[f"{role}-token"] if role else None
        self.session = Session(
            name="s1", instance="i1", gate=self.gate, limits=limits, now=0.0, principal=principal
        )
        self.greeting = self.messages()[0]

    def pump(self):
        while (call := self.session.next_call(self.now)) is not None:
            if isinstance(call, LongLine):
                self.session.take_up(call, call.read(), self.now)
                continue
            self.calls.append(call)
            if not self.answering:
                break
            self.session.answer(call, {"did": call.command.name}, self.now)
        self.said += self.session.take()

    def feed(self, data):
        self.session.receive(data, self.now)
        self.pump()

    def end(self):
        self.session.end_input()
        self.pump()

    def messages(self):
        self.said += self.session.take()
        said, self.said = self.said, b""
        return [json.loads(line) for line in said.splitlines()]

    def say(self, *lines):
        self.feed("".join(f"{line}\n" for line in lines).encode())
        return self.messages()


def codes(messages):
    return [message["error"]["code"] if "error" in message else next(iter(message)) for message in messages]

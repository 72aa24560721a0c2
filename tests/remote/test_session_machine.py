"""State machines on the framer and the session: no input, in any order, at any time, breaks the protocol.

What must never happen: a traceback, a hang (a whole request that waits though nothing keeps it), silence
(a request or a close without a word) or a second reply.
"""

import json

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sessions import TOKENS, FakeGate

from scattersphere.commands.errors import CODES, RequestError
from scattersphere.commands.limits import Limits
from scattersphere.remote.framing import Fault, Framer, Ignored, Line
from scattersphere.remote.session import Session

LIMITS = attrs.evolve(
    Limits(),
    line_before_auth=64,
    line=200,
    definition=1_000,
    rate=5.0,
    burst=12,
    overruns=8,
    follows=3,
    output=2_000,
    read_ahead=4,
)
ENDS = CODES | {"quit", "end", "idle"}

WORDS = [
    "ping",
    "auth",
    "admin-token",
    "viewer-token",
    "whoami",
    "runs",
    "run",
    "wait",
    "1",
    "follow",
    "help",
]
WORDS += [
    "output",
    "table",
    "json",
    "pretty",
    "drop",
    "viewer",
    "quit",
    "define",
    '{"format":1}',
    "a=1",
    "b:=[",
]
JSON = ['{"cmd":"ping","id":"x"}', '{"cmd":"wait","args":{"run":1},"id":7}', '{"cmd":"ping","id":1e400}']
JSON += [
    '{"cmd":"nonsense"}',
    '{"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[',
    '{"cmd":"ping","cmd":"quit"}',
    "[1]",
    "# x",
]
LINES = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join) | st.sampled_from(JSON)
BYTES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xe2\x82", b"\xef\xbb\xbf", b"'", b'"', b"\\"]
)
CHUNKS = st.one_of(
    LINES.map(lambda line: line.encode() + b"\n"),
    LINES.map(str.encode),
    BYTES,
    st.binary(max_size=8),
    st.integers(1, 1_500).map(lambda count: b"a" * count),
)


class SessionMachine(RuleBasedStateMachine):
    """A session, whoever talks to it, and a driver that answers when it likes."""

    @initialize(role=st.sampled_from([None, "viewer", "operator", "admin"]))
    def begin(self, role):
        self.gate = FakeGate()
        self.now = 100.0
        self.session = Session(
            name="s",
            instance="i",
            gate=self.gate,
            limits=LIMITS,
            now=self.now,
            principal=TOKENS[f"{role}-token"] if role else None,
        )
        self.call = None
        self.fed = b""
        self.ended = False
        self.replies = 0
        self.subscriptions = set()
        self.as_lines = True
        self.last_words = None
        self.read()

    # ---- what may happen, in any order

    @rule(chunk=CHUNKS)
    def feed(self, chunk):
        self.give(chunk)

    @rule(lines=st.lists(LINES, min_size=1, max_size=6), cut=st.integers(1, 30))
    def feed_lines_in_pieces(self, lines, cut):
        data = "".join(f"{line}\n" for line in lines).encode()
        for at in range(0, len(data), cut):
            self.give(data[at : at + cut])

    @rule()
    def end_input(self):
        self.ended = True
        self.session.end_input()
        self.advance()

    @precondition(lambda self: self.call is not None)
    @rule(size=st.sampled_from([1, 100, 5_000]))
    def answer(self, size):
        call, self.call = self.call, None
        if call.command.name == "follow" and self.session.closed is None:
            try:
                self.subscriptions.add(self.session.subscribe())
            except RequestError:
                assert len(self.subscriptions) == LIMITS.follows
        self.session.answer(call, {"text": "x" * size}, self.now)
        self.session.answer(call, {"again": True}, self.now)  # a second one is dropped
        self.advance()

    @precondition(lambda self: self.call is not None)
    @rule()
    def refuse(self):
        call, self.call = self.call, None
        self.session.refuse(call, {"code": "conflict", "message": "no"}, self.now)
        self.session.answer(call, {"late": True}, self.now)
        self.advance()

    @precondition(lambda self: self.subscriptions)
    @rule(end=st.booleans())
    def event(self, end):
        number = min(self.subscriptions)
        self.session.event(number, {"event": "end" if end else "log", "sub": number}, self.now)
        if end:
            self.subscriptions.discard(number)

    @rule(seconds=st.sampled_from([0.01, 1.0, 11.0, 400.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.session.tick(self.now)
        self.advance()

    @rule()
    def revoke(self):
        self.gate.revoked |= {principal.user for principal in TOKENS.values()}

    @rule()
    def close(self):
        self.session.close("shutting-down")
        self.advance()

    @rule()
    def read(self):
        """The peer reads: judge what was said since."""
        said = self.session.take()
        assert said.isascii()
        assert not said or said.endswith(b"\n")
        if not self.as_lines or b"{\n" in said or b"\n\n" in said:
            self.as_lines = False  # output for people is judged in test_render.py
            return
        for line in said.splitlines():
            self.judge(json.loads(line))

    # ---- the driver and the judge

    def give(self, chunk):
        if not self.ended and self.session.wants_input:
            self.fed += chunk
            self.session.receive(chunk, self.now)
            self.advance()

    def advance(self):
        if self.call is None:
            self.call = self.session.next_call(self.now)
            if self.session.backlog > LIMITS.output and self.session.closed is None:
                self.read()
                self.advance()
        if self.session.closed is not None:
            self.call = None
            self.subscriptions.clear()

    def judge(self, message):
        assert self.last_words is None, "nothing follows the last words"
        if "bye" in message:
            assert message["bye"]["code"] in ENDS
            self.last_words = message["bye"]["code"]
        elif "event" in message:
            assert message["sub"] <= 1_000
        elif "scattersphere" not in message:
            self.replies += 1
            assert message["n"] == self.replies, "one reply for each request, in order"
            assert ("result" in message) != ("error" in message)
            assert "error" not in message or message["error"]["code"] in CODES
            assert "error" not in message or "Traceback" not in message["error"]["message"]

    def teardown(self):
        if not hasattr(self, "session"):
            return
        self.session.close("shutting-down")
        self.read()
        if self.as_lines:
            assert self.replies == self.session.requests, "no request without its reply"
            assert self.last_words is not None, "no close without a word"

    # ---- what always holds

    @invariant()
    def no_request_waits_for_nothing(self):
        session = self.session
        if session.closed is None and self.call is None and session.backlog <= LIMITS.output:
            assert session._framer.lines == 0

    @invariant()
    def each_line_is_a_request_or_was_to_be_ignored(self):
        lines = [line.lstrip(b" \t\r") for line in self.fed.split(b"\n")]
        asked = sum(bool(line) and not line.startswith(b"#") for line in lines)
        assert self.session.requests <= asked

    @invariant()
    def memory_is_bounded(self):
        assert self.session._framer.size <= LIMITS.definition + 1 + 1_500
        assert self.session.backlog <= 3 * LIMITS.output + 50_000

    @invariant()
    def a_deadline_is_never_forgotten(self):
        session = self.session
        if session.closed is None and session.follows == 0 and self.call is None:
            assert session.deadline() is not None


class FramerMachine(RuleBasedStateMachine):
    """The same bytes in one piece and in many, asked for at any time, give the same frames."""

    def __init__(self):
        super().__init__()
        self.framer = Framer()
        self.frames = []
        self.data = b""

    @rule(chunk=CHUNKS)
    def feed(self, chunk):
        if not fatal(self.frames):
            self.data += chunk
            self.framer.feed(chunk)

    @rule()
    def drain(self):
        drain(self.framer, self.frames)
        assert self.framer.lines == 0
        assert self.framer.size <= LIMIT + 1

    def teardown(self):
        whole, expected = Framer(), []
        whole.feed(self.data)
        for framer, frames in ((whole, expected), (self.framer, self.frames)):
            drain(framer, frames)
            framer.end()
            drain(framer, frames)
            assert framer.exhausted
        assert self.frames == expected
        assert all(isinstance(frame, Line | Fault | Ignored) for frame in expected)
        assert all(len(frame.text) <= LIMIT for frame in expected if isinstance(frame, Line))


LIMIT = 64


def fatal(frames):
    return bool(frames) and isinstance(frames[-1], Fault) and frames[-1].fatal


def drain(framer, frames):
    while not fatal(frames) and (frame := framer.next(LIMIT)) is not None:
        frames.append(frame)


TestSession = SessionMachine.TestCase
TestFramer = FramerMachine.TestCase

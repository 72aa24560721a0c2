"""`run_call`: the half of a backend that runs elsewhere, over a channel that is made of nothing."""

import pickle
import threading
from types import SimpleNamespace

import pytest
from patience import PATIENCE

from scattersphere.abc import OutcomeKind
from scattersphere.testing import bodies
from scattersphere.testing.backends import VALUE
from scattersphere.worker import CallMessage, run_call


class Memory:
    """A channel that keeps what it is told."""

    def __init__(self):
        self.said = []
        self.on_begun = lambda control: None
        self.on_progress = lambda: None
        self.reason = None

    def begun(self, control):
        self.control = control
        self.on_begun(control)

    def log(self, level, message, logger, ago):
        self.said.append((message, logger))

    def progress(self, done, total, message):
        self.said.append(("progress", done, total, message))
        self.on_progress()

    def held(self):
        self.said.append("held")

    def check(self):
        return self.reason

    def results(self):
        return {"upstream": 3}


def message(cls, arguments=None, **fields):
    known = {
        "number": 1,
        "module": cls.__module__,
        "qualname": cls.__qualname__,
        "is_async": False,
        "hooks": (),
        "name": "check#1/t",
        "run_id": 1,
        "job": "check",
        "task": "t",
        "instance": None,
        "attempt": 1,
        "idempotency_key": "k",
        "level": 0,
        "max_attempts": 1,
        "retry_on": (),
        "library": "asyncio",
        "captures_print": False,
        "arguments": pickle.dumps((arguments or {}, {})),
    }
    return CallMessage(**{**known, **fields})


def outcome_of(call, channel=None):
    return run_call(call, channel or Memory()).outcome("check#1/t")


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_what_a_body_returns_comes_back(library):
    if library == "trio":
        pytest.importorskip("trio")
    assert outcome_of(message(bodies.Echo, {"value": VALUE})).value == VALUE
    call = message(bodies.AsyncEcho, {"value": VALUE}, is_async=True, library=library)
    assert outcome_of(call).value == VALUE


def test_what_a_body_says_goes_through_its_channel_in_order():
    channel = Memory()
    outcome_of(message(bodies.Talk, {"word": "w", "lines": 1}), channel)
    assert channel.said == [("w 0", "task"), ("progress", 1, 1, "w")]


def test_what_a_body_prints_goes_there_too():
    channel = Memory()
    assert outcome_of(message(Prints, captures_print=True), channel).kind is OutcomeKind.VALUE
    assert [line[0] for line in channel.said] == ["printed", "and not ended"]


class Prints(bodies.RunnableTask):
    """Print."""

    def run(self):
        print("printed")  # noqa: T201
        print("and not ended", end="")  # noqa: T201


def test_a_failure_keeps_type_message_and_source():
    outcome = outcome_of(message(bodies.Fail, {"kind": "ValueError", "message": "no such day"}))
    assert isinstance(outcome.error, ValueError)
    assert str(outcome.error) == "no such day"
    assert "raise EXCEPTIONS[self.kind](self.message)" in outcome.traceback


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (message(bodies.Echo, module="no_such_module"), "no_such_module"),
        (message(bodies.Echo, qualname="Gone"), "Gone"),
        (
            message(bodies.Echo, arguments=None)._replace(arguments=b"junk"),
            "cannot be read in a worker process",
        ),
        (
            message(bodies.Echo, {"value": None}, qualname="Lambda", module=__name__),
            "cannot be sent from the worker",
        ),
    ],
    ids=["module", "class", "arguments", "result"],
)
def test_what_never_comes_to_its_code_or_never_gets_back_is_a_failure_with_words(call, words):
    outcome = outcome_of(call)
    assert outcome.kind is OutcomeKind.EXCEPTION
    assert words in str(outcome.error)


class Lambda(bodies.Echo):
    """Return what cannot be pickled."""

    def run(self, context):
        return lambda: None


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancel_that_comes_before_the_first_step_ends_it(is_async):
    channel = Memory()
    channel.on_begun = lambda control: control.cancel()
    cls = bodies.AsyncEcho if is_async else bodies.Obey
    assert outcome_of(message(cls, is_async=is_async), channel).kind is OutcomeKind.CANCELLED


def test_a_check_that_says_why_ends_it():
    channel = Memory()
    channel.reason = "cancel"
    assert outcome_of(message(bodies.Obey), channel).kind is OutcomeKind.CANCELLED


def test_a_body_that_speaks_stands_at_its_own_line_and_not_at_its_channels():
    channel, places = Memory(), []

    def locate():
        asking = threading.Thread(target=lambda: places.append(channel.control.where()))
        asking.start()
        asking.join(PATIENCE)

    channel.on_progress = locate
    outcome_of(message(bodies.Talk, {"word": "w", "lines": 1}), channel)
    assert "bodies.py:" in places[0]
    assert "in run" in places[0]


def test_after_its_end_a_control_does_nothing():
    channel = Memory()
    outcome_of(message(bodies.Echo), channel)
    for verb in ("cancel", "pause", "resume", "where"):
        getattr(channel.control, verb)()
    assert channel.said == []


def test_a_message_survives_its_journey():
    call = SimpleNamespace(
        arguments={"value": 3}, task_context=SimpleNamespace(params={"day": 1}), name="check#1/t"
    )
    sent = message(bodies.Echo)
    read = CallMessage.read(sent.pack(call, {"A": "b"}))
    assert read._replace(arguments=b"", environment=None) == sent._replace(arguments=b"")
    assert pickle.loads(read.arguments) == ({"value": 3}, {"day": 1})
    assert read.environment == {"A": "b"}

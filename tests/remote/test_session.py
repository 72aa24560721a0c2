"""The protocol of one connection, without a connection."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import Driver, codes

from scattersphere.commands.access import Role
from scattersphere.commands.errors import CODES, RequestError
from scattersphere.commands.limits import Limits
from scattersphere.commands.table import COMMANDS
from scattersphere.remote import session as session_module
from scattersphere.remote.requests import Request
from scattersphere.remote.session import LONG, LongLine

FEW = attrs.evolve(Limits(), rate=10.0, burst=3, overruns=4)


def test_the_greeting_says_what_is_spoken_and_what_is_needed():
    assert Driver().greeting == {
        "scattersphere": {
            "protocol": [2],
            "auth": ["token"],
            "session": "s1",
            "instance": "i1",
            "limits": {"line": 4096},
        },
        "hint": "type: help",
    }
    assert Driver("admin").greeting["scattersphere"]["auth"] == []


def test_every_request_gets_one_reply_in_order_with_its_id_and_number():
    driver = Driver("admin")
    said = driver.say(
        '{"cmd":"ping","id":"x"}', "# no reply", "ping", "", '{"cmd":"runs","id":7}', "nonsense"
    )
    assert [(m.get("id"), m["n"]) for m in said] == [("x", 1), (None, 2), (7, 3), (None, 4)]


def test_before_authentication_every_other_command_needs_it():
    for name, command in COMMANDS.items():
        driver = Driver()
        said = driver.say(name, json.dumps({"cmd": name, "args": {"nonsense": 1}}))
        if not command.before_auth:
            assert codes(said) == ["auth-required"] * 2, name
        assert driver.calls == []


def test_authentication_opens_the_session_and_tells_the_role():
    driver = Driver()
    said = driver.say("auth runner-token", "whoami", "hello")
    assert said[0]["result"] == {"user": "a-runner", "role": "runner"}
    assert said[1]["result"] == {"user": "a-runner", "role": "runner", "patterns": []}
    assert said[2]["result"]["user"] == "a-runner"


def test_three_wrong_tokens_end_the_session():
    driver = Driver()
    said = driver.say("auth a", "auth b", "auth c", "ping")
    assert codes(said) == ["auth-failed"] * 3 + ["bye"]
    assert driver.gate.failures == 3


def test_a_blocked_source_is_told_to_wait_even_with_the_right_token():
    driver = Driver()
    driver.gate.wait = 8.0
    said = driver.say("auth admin-token", "jobs")
    assert codes(said) == ["rate-limited", "auth-required"]
    assert said[0]["error"]["retry_after"] == 8.0


def test_a_token_is_in_no_reply_error_or_repr():
    driver = Driver(answering=False)
    said = driver.say("auth sekrit-token extra", '{"cmd":"auth","args":{"token":["sekrit"]}}', "auth sekrit")
    driver.say('{"cmd":"auth","args":{"token":"sekrit"},"sekrit":1}')
    assert "sekrit" not in json.dumps(said[:3]).replace("extra", "")


@pytest.mark.parametrize("role", Role)
def test_each_role_may_do_what_its_rank_covers_and_nothing_else(role):
    for name, command in COMMANDS.items():
        if command.in_session or command.role is None:
            continue
        driver = Driver(role)
        (said,) = driver.say(command.example)
        if role.covers(command.role):
            assert said["result"] == {"did": name}
        else:
            assert said["error"]["code"] == "forbidden"
            assert driver.calls == []


def test_rights_are_judged_before_arguments_are_read():
    assert codes(Driver("viewer").say("register", '{"cmd":"kill","args":{"x":1}}')) == ["forbidden"] * 2


def test_dropped_rights_do_not_come_back():
    driver = Driver()
    said = driver.say("auth admin-token", "drop viewer", "drop admin", "auth admin-token", "shutdown")
    assert [m.get("result") for m in said[1:3]] == [{"role": "viewer"}] * 2
    assert codes(said[3:]) == ["conflict", "forbidden"]


def test_patterns_shut_out_of_the_server_as_a_whole():
    driver = Driver()
    said = driver.say("auth bounded-token", "stats", "sessions", "shutdown", "commands")
    assert codes(said[1:4]) == ["forbidden"] * 3
    assert "shutdown" not in {row["name"] for row in said[4]["result"]["commands"]}


def test_a_revoked_token_ends_the_session_at_the_next_command_and_at_the_next_tick():
    driver = Driver("admin")
    driver.gate.revoked.add("a-admin")
    assert codes(driver.say("runs", "runs")) == ["auth-failed", "bye"]
    assert driver.calls == []
    driver = Driver("admin")
    driver.gate.revoked.add("a-admin")
    driver.session.tick(1.0)
    assert driver.messages()[-1]["bye"]["code"] == "auth-failed"


def test_calls_are_made_one_at_a_time():
    driver = Driver("admin", answering=False)
    driver.feed(b"reload a\nruns\nping\n")
    assert [call.command.name for call in driver.calls] == ["reload"]
    assert driver.messages() == []
    driver.session.answer(driver.calls[0], {}, 1.0)
    driver.pump()
    driver.session.answer(driver.calls[1], {}, 1.0)
    driver.pump()
    assert [m["n"] for m in driver.messages()] == [1, 2, 3]


def test_no_more_is_read_while_much_waits():
    driver = Driver("admin", attrs.evolve(Limits(), read_ahead=4), answering=False)
    driver.feed(b"reload a\n" + b"ping\n" * 3)
    assert driver.session.wants_input
    driver.feed(b"ping\n")
    assert not driver.session.wants_input


def test_requests_wait_while_the_client_does_not_read():
    driver = Driver("admin", attrs.evolve(Limits(), output=500))
    driver.session.receive(b"help\n" * 20, 0.0)
    driver.session.next_call(0.0)
    assert 500 < driver.session.backlog < 10_000
    assert not driver.session.wants_input


def test_what_waits_to_be_sent_is_at_most_one_reply_more_than_the_limit():
    driver = Driver("admin", attrs.evolve(Limits(), output=500))
    driver.session.receive(b"ping\n" * 40, 0.0)
    driver.pump()
    replies = driver.said.splitlines(keepends=True)
    assert len(replies) < 40
    assert len(b"".join(replies[:-1])) <= 500 < len(driver.said)


def test_a_reply_may_be_as_long_as_the_output_and_not_one_byte_longer():
    whole = Driver("admin")
    whole.feed(b"whoami\n")
    size = len(whole.said.splitlines(keepends=True)[-1])
    for short in (0, 1):
        driver = Driver("admin", attrs.evolve(Limits(), output=size - short))
        driver.feed(b"whoami\n")
        (reply,) = driver.messages()
        assert ("result" in reply, reply.get("error", {}).get("code")) == [
            (True, None),
            (False, "too-large"),
        ][short]


def test_a_session_goes_on_at_its_limits_and_waits_above_them():
    once = Driver("admin")
    once.feed(b"ping\n")
    driver = Driver("admin", attrs.evolve(Limits(), output=len(once.said)))
    driver.feed(b"ping\n" * 3)
    assert driver.said.count(b"\n") == 2
    for size, wants in ((1, True), (2, False)):
        session = Driver("admin").session
        session.receive(b"x" * (session.line_limit + size), 0.0)
        assert session.wants_input == wants


def test_a_reply_that_cannot_be_written_is_an_error_that_says_why():
    driver = Driver("admin")
    render = driver.session.render

    def too_large(message):
        if "result" in message:
            raise RequestError("too-large", "ask for less")
        return render(message)

    driver.session.render = too_large
    (said,) = driver.say('{"cmd":"ping","id":"x"}')
    assert said == {"id": "x", "n": 1, "error": {"code": "too-large", "message": "ask for less"}}


def test_a_half_close_lets_everything_be_answered_first():
    driver = Driver("admin")
    driver.feed(b"start a\nruns\n")
    driver.end()
    said = driver.messages()
    assert codes(said) == ["n", "n", "bye"]
    assert said[-1] == {"bye": {"code": "end"}}


def test_a_half_close_waits_for_the_call_that_is_under_way():
    driver = Driver("admin", answering=False)
    driver.feed(b"reload a\n")
    driver.end()
    assert driver.session.closed is None
    driver.session.answer(driver.calls[0], {}, 0.0)
    driver.pump()
    assert codes(driver.messages()) == ["n", "bye"]


def test_a_last_line_without_newline_is_done_if_it_is_a_whole_object():
    for text, wanted in [
        (b'{"cmd":"ping"}', "n"),
        (b'{"cmd":"pi', "truncated"),
        (b"stop 12", "truncated"),
        (b'{"cmd":"stop","args":{"run":12}', "truncated"),
    ]:
        driver = Driver("admin")
        driver.feed(text)
        driver.end()
        assert codes(driver.messages()) == [wanted, "bye"]
        assert driver.calls == []


def test_deadlines_for_authentication_for_a_line_and_for_idleness():
    assert Driver().session.deadline() == (10.0, "auth-required")
    driver = Driver("admin")
    assert driver.session.deadline() == (300.0, "idle")
    driver.now = 5.0
    driver.feed(b"pi")
    assert driver.session.deadline() == (15.0, "timeout")
    driver.now = 9.0
    driver.feed(b"n")
    assert driver.session.deadline() == (15.0, "timeout")
    driver.feed(b"g\n")
    assert driver.session.deadline() == (309.0, "idle")
    driver.session.tick(309.0)
    assert driver.messages()[-1] == {"bye": {"code": "idle"}}


def test_idle_time_does_not_run_while_a_long_line_is_read_and_counts_from_its_end():
    driver = Driver("admin")
    driver.session.receive(b"x" * (LONG + 1) + b"\n", 5.0)
    line = driver.session.next_call(5.0)
    assert driver.session.deadline() is None
    driver.session.take_up(line, line.read(), 400.0)
    assert driver.session.next_call(400.0) is None
    assert driver.session.deadline() == (700.0, "idle")


def test_idle_time_does_not_run_under_a_call_and_under_follow():
    driver = Driver("admin", answering=False)
    driver.feed(b"reload a\n")
    assert driver.session.deadline() is None
    driver.session.answer(driver.calls[0], {}, 7.0)
    assert driver.session.deadline() == (307.0, "idle")
    driver.session.subscribe()
    assert driver.session.deadline() is None


def test_lines_above_the_rate_are_refused_with_their_id_and_comments_count():
    driver = Driver("admin", FEW)
    said = driver.say("ping", "# x", "", '{"cmd":"ping","id":"late"}')
    assert codes(said) == ["n", "rate-limited"]
    assert [message["n"] for message in said] == [1, 2]
    assert said[1]["id"] == "late"
    assert 0 < said[1]["error"]["retry_after"] <= 0.1
    driver.now += 0.1
    assert codes(driver.say("ping")) == ["n"]


@pytest.mark.parametrize("principal", [None, "admin"])
@pytest.mark.parametrize(
    "line",
    ['{"args":{"definition":', '{"id":1,"cmd":"define","args":{"definition":', '{"args":{"definition": '],
)
def test_a_line_that_ends_where_a_definition_should_begin_is_answered(principal, line):
    driver = Driver(principal)
    assert codes(driver.say(line, "ping")) == ["bad-request", "n"]
    driver = Driver("admin", FEW)
    assert codes(driver.say(*["ping"] * FEW.burst, line))[-1] == "rate-limited"


@pytest.mark.parametrize(
    "line", ["ping", '{"cmd":"define","args":{"definition":{' + " " * session_module.LONG + "}}}"]
)
@pytest.mark.parametrize("where", ["line", "arguments"])
def test_a_defect_of_reading_is_told_as_one_and_the_session_lives(monkeypatch, line, where):
    def fails(*_args, **_options):
        raise IndexError("sekrit")

    if where == "line":
        monkeypatch.setattr(session_module, "read_request", fails)
    else:
        monkeypatch.setattr(session_module.Request, "arguments", fails)
        monkeypatch.setattr(session_module.Request, "prepare", fails)
    driver = Driver("admin", FEW)
    said = driver.say(line)
    said += driver.say(*["ping"] * FEW.burst)
    assert codes(said)[:2] == ["internal", "internal"]
    assert codes(said)[-1] == "rate-limited"
    assert "sekrit" not in json.dumps(said)
    monkeypatch.undo()
    driver.now += 1
    assert codes(driver.say("ping")) == ["n"]


def test_a_flood_ends_the_session():
    said = Driver("admin", FEW).say(*["#"] * 20)
    assert said == [{"bye": {"code": "rate-limited"}}]


def test_memory_before_authentication_is_bounded_by_a_short_line():
    """The incident class: memory that strangers may fill."""
    driver = Driver()
    driver.feed(b"auth " + b"x" * 5000)
    assert codes(driver.messages()) == ["line-too-long", "bye"]


def test_long_lines_are_for_definitions_and_for_those_who_may_define():
    big = "x" * 70_000
    assert codes(Driver("runner").say(f"cancel 1 {big}", "ping")) == ["line-too-long", "n"]
    assert codes(Driver("admin").say(f"cancel 1 {big}", "ping")) == ["line-too-long", "n"]
    assert codes(Driver("operator").say(f'define {{"x": "{big}"}}')) == ["n"]


def test_strange_bytes_close_on_the_first_line_and_are_refused_on_later_ones():
    assert codes(Driver().say("GET / HTTP/1.1", "Host: x", "ping")) == ["bad-frame", "bye"]
    assert codes(Driver("admin").say("ping", "GET / HTTP/1.1", "[1]", "ping")) == [
        "n",
        "bad-request",
        "bad-request",
        "n",
    ]


def test_a_close_answers_the_call_that_is_under_way_and_drops_its_late_answer():
    driver = Driver("admin", answering=False)
    driver.feed(b"reload a\n")
    driver.session.close("shutting-down")
    driver.session.answer(driver.calls[0], {}, 0.0)
    driver.session.event(1, {"event": "x", "sub": 1}, 0.0)
    assert codes(driver.messages()) == ["shutting-down", "bye"]


def test_subscriptions_have_numbers_a_limit_and_an_end():
    driver = Driver("admin", attrs.evolve(Limits(), follows=2))
    session = driver.session
    assert [session.subscribe(), session.subscribe()] == [1, 2]
    with pytest.raises(RequestError, match="at once"):
        session.subscribe()
    session.event(1, {"event": "end", "sub": 1}, 0.0)
    session.event(1, {"event": "late", "sub": 1}, 0.0)
    assert session.subscribe() == 3
    assert [m["event"] for m in driver.messages()] == ["end"]
    with pytest.raises(RequestError, match="no subscription 9"):
        session.unsubscribe(9)


def test_output_for_people_is_asked_for():
    driver = Driver("admin")
    driver.feed(b"output table\nwhoami\nnonsense\n")
    text = driver.said.decode() + driver.session.take().decode()
    assert "-- 2\nuser: a-admin\nrole: admin\n" in text
    assert "-- 3 unknown-command: no command 'nonsense'" in text
    driver = Driver("admin")
    driver.feed(b"output pretty\nwhoami\n")
    assert '\n    "user": "a-admin",\n' in driver.said.decode()


SCRIPT = (
    b'\xef\xbb\xbfping\r\n\n# note\nauth wrong\n{"cmd":"auth","args":{"token":"admin-token"},"id":"a"}\n'
    b'start nightly day=1 n:=2\n{"cmd":"define","args":{"definition":{"name":"\xc3\xa9"}}}\n'
    b'define {"format": 1}\nfollow 17 kinds=log\n\x00\nstop "a b\nbad \xff\n'
    b"output table\nruns\nhelp run\nstop 12"
)


def test_the_reply_does_not_depend_on_how_the_bytes_are_cut():
    def replies(chunks):
        driver = Driver()
        for chunk in chunks:
            driver.feed(chunk)
        driver.end()
        return driver.said

    whole = replies([SCRIPT])
    assert whole.count(b"\n") > 14
    for cut in range(len(SCRIPT)):
        assert replies([SCRIPT[:cut], SCRIPT[cut:]]) == whole
    assert replies([SCRIPT[at : at + 1] for at in range(len(SCRIPT))]) == whole


WORDS = st.sampled_from(
    [
        b"ping",
        b"auth admin-token",
        b"{",
        b"}",
        b'"cmd"',
        b":",
        b'"ping"',
        b" ",
        b"\n",
        b"\n",
        b"\xff",
        b"\x00",
        b"run ",
        b"x",
        b"=",
        b":=",
        b"'",
        b'"',
        b"\\",
        b"[",
        b"1e999",
        b"NaN",
        b"quit",
        b"#",
        b"\r\n",
        b"\xe2\x80\xa8",
    ]
)


@given(st.lists(WORDS, max_size=30).map(b"".join), st.sampled_from([None, "viewer", "admin"]), st.booleans())
def test_no_input_gives_a_traceback_or_silence_or_a_second_reply(data, role, end):
    driver = Driver(role)
    driver.feed(data)
    if end:
        driver.end()
    said = driver.messages()
    numbers = [message["n"] for message in said if "n" in message]
    assert numbers == list(range(1, driver.session.requests + 1))
    assert all(code in CODES for code in codes(said) if code not in {"n", "id", "bye"})
    if end or driver.session.closed:
        assert list(said[-1]) == ["bye"]
        assert sum("bye" in message for message in said) == 1


def test_schema_alone_describes_every_command_that_is_allowed_and_the_definition():
    viewer, admin = (Driver(role).say("schema", "schema definition") for role in ("viewer", "admin"))
    assert set(admin[0]["result"]["commands"]) == set(COMMANDS)
    assert "shutdown" not in viewer[0]["result"]["commands"]
    definition = admin[0]["result"]["definition"]
    assert definition["properties"]["tasks"]
    assert admin[1]["result"]["schema"] == definition


@pytest.mark.parametrize("role", [None, "runner", "admin"])
def test_a_line_of_exactly_the_limit_is_read_to_its_end(role):
    """At the limit itself there must be room for the newline: else it is never read, and the session hangs."""
    driver = Driver(role, attrs.evolve(Limits(), definition=Limits().line))
    limit = driver.session.line_limit
    line = b"ping" + b" " * (limit - 4)
    for ending in (b"\n", b"\r\n"):
        driver.feed(line)
        assert driver.session.wants_input
        driver.feed(ending[:-1])
        assert driver.session.wants_input
        driver.feed(ending[-1:])
        assert codes(driver.messages()) == ["n"]
    driver.feed(line)
    driver.feed(b" ")
    assert codes(driver.messages()) == ["line-too-long"] + ["bye"] * (role is None)


def test_a_new_line_has_all_its_time_though_the_one_before_was_slow():
    driver = Driver("admin")
    driver.feed(b"pi")
    driver.now = 9.0
    driver.feed(b"ng\npin")
    assert driver.session.deadline() == (19.0, "timeout")
    driver.now = 18.0
    driver.feed(b"g\n\npi")  # two lines end, a third one begins
    assert driver.session.deadline() == (28.0, "timeout")


def test_who_does_not_read_is_not_blamed_for_a_slow_line():
    """While nothing is received, because much waits to be sent, the rest of a line cannot come."""
    driver = Driver("admin", attrs.evolve(Limits(), output=500, idle=1000.0))
    driver.session.receive(b"help\n" * 20 + b"pi", 0.0)
    driver.session.next_call(0.0)
    assert driver.session.backlog > 500
    assert driver.session.deadline() == (1000.0, "idle")
    driver.session.tick(500.0)
    assert driver.session.closed is None


def test_lonely_overruns_do_not_add_up_to_a_close():
    driver = Driver("admin", FEW)
    for _ in range(5 * FEW.overruns):
        said = driver.say(*["ping"] * (FEW.burst + 1))
        assert codes(said) == ["n"] * FEW.burst + ["rate-limited"]
        driver.now += 100.0


def test_exactly_the_allowed_overruns_in_a_row_are_forgiven_and_one_more_is_not():
    allowed = ["ping"] * (FEW.burst + FEW.overruns)
    driver = Driver("admin", FEW)
    assert "bye" not in codes(driver.say(*allowed))
    driver.now += 100.0
    assert codes(driver.say("ping")) == ["n"]
    assert codes(Driver("admin", FEW).say(*allowed, "ping"))[-2:] == ["rate-limited", "bye"]


def test_idle_time_counts_from_the_last_event_of_a_subscription():
    driver = Driver("admin")
    number = driver.session.subscribe()
    driver.session.event(number, {"event": "end", "sub": number}, 70.0)
    assert driver.session.deadline() == (370.0, "idle")


def test_nothing_is_sent_to_a_subscription_after_the_close():
    driver = Driver("admin")
    number = driver.session.subscribe()
    driver.session.close("idle")
    driver.session.event(number, {"event": "log", "sub": number}, 0.0)
    assert driver.session.follows == 0
    assert codes(driver.messages()) == ["bye"]


def test_run_and_wait_may_be_answered_after_later_requests_and_all_others_are_in_order():
    driver = Driver("admin", answering=False)
    driver.feed(b"run a\nwait 1\nruns\nping\n")
    assert [call.command.name for call in driver.calls] == ["run"]
    driver.pump()
    driver.pump()
    assert [call.command.name for call in driver.calls] == ["run", "wait", "runs"]
    driver.session.answer(driver.calls[2], {}, 1.0)
    driver.pump()
    driver.session.answer(driver.calls[1], {}, 1.0)
    driver.session.answer(driver.calls[0], {}, 1.0)
    assert [m["n"] for m in driver.messages()] == [3, 4, 2, 1]


def test_so_many_late_requests_are_under_way_at_once_and_the_next_is_busy():
    driver = Driver("admin", attrs.evolve(Limits(), late=2), answering=False)
    driver.feed(b"wait 1\nwait 2\nwait 3\nping\n")
    for _ in range(3):
        driver.pump()
    assert codes(driver.messages()) == ["busy", "n"]
    driver.session.answer(driver.calls[0], {}, 1.0)
    driver.feed(b"wait 4\n")
    assert [call.arguments["run"] for call in driver.calls] == [1, 2, 4]


def test_a_half_close_waits_for_late_replies_and_quit_cancels_them():
    driver = Driver("admin", answering=False)
    driver.feed(b"wait 1\n")
    driver.end()
    assert driver.session.closed is None
    driver.session.answer(driver.calls[0], {}, 1.0)
    driver.pump()
    assert codes(driver.messages()) == ["n", "bye"]
    driver = Driver("admin", answering=False)
    driver.feed(b"wait 1\nrun a\nquit\n")
    for _ in range(3):
        driver.pump()
    said = driver.messages()
    assert codes(said) == ["n", "cancelled", "cancelled", "bye"]
    assert [m["n"] for m in said[:3]] == [3, 1, 2]
    driver.session.answer(driver.calls[0], {}, 1.0)
    assert driver.messages() == []


def test_rights_are_looked_at_again_when_a_late_reply_is_made():
    driver = Driver("admin", answering=False)
    driver.feed(b"run a\ndrop viewer\n")
    driver.pump()
    driver.session.answer(driver.calls[0], {"secret": 1}, 1.0)
    said = driver.messages()
    assert codes(said) == ["n", "forbidden"]
    assert "secret" not in json.dumps(said)


def test_who_waits_is_not_idle():
    driver = Driver("admin", answering=False)
    driver.feed(b"wait 1\n")
    driver.session.tick(100_000.0)
    assert driver.session.closed is None
    driver.session.answer(driver.calls[0], {}, 100_000.0)
    driver.session.tick(200_000.0)
    assert driver.session.closed == "idle"


def test_protocol_1_is_told_what_is_spoken():
    assert codes(Driver().say("hello 1", "hello 2")) == ["unsupported", "n"]


@pytest.mark.parametrize(
    ("typed", "code"), [("?", "n"), ("? run", "n"), ("?run", "n"), ("exit", "n"), ("logout", "n")]
)
def test_what_people_type_in_other_programs_is_known(typed, code):
    said = Driver("viewer").say("ping", typed)
    assert codes(said)[:2] == ["n", code]
    if "?" in typed:
        assert said[1]["result"]["help"]
    else:
        assert said[-1] == {"bye": {"code": "quit"}}


TELNET_CTRL_C = b"\xff\xf4\xff\xfd\x06"


@pytest.mark.parametrize(
    "after", [TELNET_CTRL_C, TELNET_CTRL_C + b"\xff", b"half a li" + TELNET_CTRL_C + b"\xff\xf2"]
)
def test_ctrl_c_in_telnet_drops_the_line_and_is_answered_so_that_it_shows_replies_again(after):
    driver = Driver("viewer")
    driver.feed(b"ping\r\n" + after + b"ping\r\n")
    replies = driver.said.replace(b"\xff\xfc\x06", b"")
    assert driver.said.count(b"\xff\xfc\x06") == 1
    assert replies.splitlines() == [b'{"n":1,"result":{"pong":true}}', b'{"n":2,"result":{"pong":true}}']


def test_what_is_refused_is_audited_with_what_it_was_about():
    driver = Driver("viewer")
    seen = []
    driver.session._observe = lambda name, arguments, outcome, _: seen.append((name, arguments, outcome))
    driver.say(
        "cancel 7 'because'", '{"cmd":"deregister","args":{"name":"etl"}}', "deregister", "auth sekrit"
    )
    assert [(name, outcome) for name, _, outcome in seen] == [
        ("cancel", "forbidden"),
        ("deregister", "forbidden"),
        ("deregister", "forbidden"),
        ("auth", "conflict"),
    ]
    assert [arguments and arguments.get("run", arguments.get("name")) for _, arguments, _ in seen] == [
        7,
        "etl",
        None,
        None,
    ]


# ---- long lines


def long_definition(size=session_module.LONG):
    tasks = {"a": {"task": "Greet", "description": "x" * size}}
    return {"cmd": "define", "args": {"definition": {"name": "big", "tasks": tasks}}, "id": 7}


def test_a_long_line_is_read_elsewhere_and_answered_in_its_turn():
    driver = Driver("operator")
    line = json.dumps(long_definition())
    driver.session.receive(f"{line}\nping\n".encode(), 0.0)
    found = driver.session.next_call(0.0)
    assert isinstance(found, LongLine)
    assert driver.session.next_call(0.0) is None  # the next request has to wait
    read = found.read()
    driver.session.take_up(found, read, 0.0)
    call = driver.session.next_call(0.0)
    assert (call.command.name, call.id) == ("define", 7)
    definition = call.arguments["definition"]
    assert json.loads(definition.text) == long_definition()["args"]["definition"]
    assert definition.column == line.index('{"name"') + 1
    driver.session.answer(call, {"job": "big"}, 0.0)
    driver.pump()
    assert [message["n"] for message in driver.messages()] == [1, 2]


def test_only_the_arguments_of_a_line_that_is_longer_than_long_are_read_before_they_are_asked_for(
    monkeypatch,
):
    prepared = []
    monkeypatch.setattr(Request, "prepare", lambda request: prepared.append(request.command.name))
    for size in (session_module.LONG, session_module.LONG + 1):
        driver = Driver("operator")
        line = json.dumps(long_definition(0))
        driver.session.receive(line.replace('{"cmd"', "{" + " " * (size - len(line)) + '"cmd"').encode(), 0.0)
        driver.session.receive(b"\n", 0.0)
        found = driver.session.next_call(0.0)
        assert isinstance(found, LongLine) == (size > session_module.LONG)
        if isinstance(found, LongLine):
            assert isinstance(found.read(), Request)
    assert prepared == ["define"]


@pytest.mark.parametrize("twist", ["no JSON", "twice", "no such argument"])
def test_what_is_wrong_with_a_long_line_is_told_as_of_a_short_one(twist):
    told = []
    for size in (10, session_module.LONG):
        request = long_definition(size)
        if twist == "no such argument":
            request["args"]["replcae"] = True
        line = json.dumps(request)
        line = {"no JSON": line[:-1], "twice": line.replace('"id": 7', '"id": 7, "id": 7')}.get(twist, line)
        (message,) = Driver("operator").say(line)
        told.append({key: value for key, value in message["error"].items() if key != "message"})
        assert "result" not in message
    assert told[0] == told[1]


def test_a_session_that_is_closed_while_a_long_line_is_read_answers_it_and_drops_what_comes_of_it():
    driver = Driver("operator")
    driver.session.receive(json.dumps(long_definition()).encode() + b"\n", 0.0)
    line = driver.session.next_call(0.0)
    assert driver.session.deadline() is None  # it is not idle
    driver.session.close("shutting-down")
    driver.session.take_up(line, line.read(), 0.0)
    assert driver.session.next_call(0.0) is None
    error, bye = driver.messages()
    assert (error["n"], error["error"]["code"], bye) == (
        1,
        "shutting-down",
        {"bye": {"code": "shutting-down"}},
    )

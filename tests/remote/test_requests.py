"""JSON requests and word commands: strict, equal in meaning, nothing expanded."""

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import _json
from scattersphere._turns import WAY
from scattersphere.commands.arguments import Definition
from scattersphere.commands.errors import RequestError
from scattersphere.commands.table import COMMANDS
from scattersphere.remote import requests
from scattersphere.remote.requests import (
    NamedRequestError,
    Word,
    _find_definition,
    parse,
    read_request,
    split,
)


def arguments(line):
    return read_request(line, depth=32).arguments()


def error(line, **more):
    with pytest.raises(RequestError) as caught:
        read_request(line, depth=32, **more).arguments()
    return caught.value


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (
            "start nightly day=2026-11-23 retries:=3",
            {"job": "nightly", "params": {"day": "2026-11-23", "retries": 3}},
        ),
        (
            "start nightly key=k x:='{\"a\": [1, 2]}'",
            {"job": "nightly", "key": "k", "params": {"x": {"a": [1, 2]}}},
        ),
        ("start 'two words' say=\"a 'b' \\\"c\\\"\"", {"job": "two words", "params": {"say": "a 'b' \"c\""}}),
        ("runs nightly failed limit=5", {"job": "nightly", "state": "failed", "limit": 5}),
        ("deregister etl force", {"name": "etl", "force": True}),
        ("deregister etl require_idle=true", {"name": "etl", "require_idle": True}),
        ("cancel 7 'enough' 2.5", {"run": 7, "reason": "enough", "grace": 2.5}),
        ("follow 17 state,log 4", {"run": 17, "kinds": ["state", "log"], "since": 4}),
        ("follow", {}),
        ("wait 17 timeout=600", {"run": 17, "timeout": 600}),
        ("ping", {}),
    ],
)
def test_words_mean_the_same_as_json(words, args):
    request = json.dumps({"cmd": words.split()[0], "args": args})
    assert arguments(words) == arguments(request)


def test_a_definition_is_read_from_its_own_characters():
    text = '{"name": "a",  "x": [1, {"y": "}"}]}'
    line = (
        json.dumps({"cmd": "define", "id": 1})[:-1]
        + ', "args": { "replace": true, "definition": '
        + text
        + "}}"
    )
    read = arguments(line)
    assert read["definition"] == Definition(text, line.index(text) + 1)
    assert read["replace"] is True
    line = "define  replace=true   " + text + "  "
    assert arguments(line) == {"definition": Definition(text, line.index(text) + 1), "replace": True}


@pytest.mark.parametrize(
    ("line", "word", "field"),
    [
        ('{"cmd":"ping","x":1}', "bad-request", None),
        ('{"cmd":"ping","cmd":"quit"}', "bad-request", None),
        ('{"cmd":"status","args":{"run":1,"run":2}}', "bad-request", None),
        ('{"cmd":"ping","id":NaN}', "bad-request", None),
        ('{"cmd":"wait","args":{"run":1,"timeout":1e400}}', "bad-request", None),
        ('{"cmd":"wait","args":{"run":1,"timeout":-Infinity}}', "bad-request", None),
        ('{"cmd":"status","args":{"run":' + "9" * 5000 + "}}", "bad-request", None),
        ('{"cmd":"job","args":{"name":"\\ud800"}}', "bad-request", None),
        ('{"cmd":"ping","id":null}', "bad-request", "id"),
        ('{"cmd":"ping","id":1.5}', "bad-request", "id"),
        ('{"cmd":"ping","id":true}', "bad-request", "id"),
        ('{"cmd":"ping","id":9007199254740993}', "bad-request", "id"),
        ('{"cmd":"ping","id":"' + "x" * 65 + '"}', "bad-request", "id"),
        ('{"cmd":["ping"]}', "bad-request", "cmd"),
        ("{}", "bad-request", "cmd"),
        ('{"cmd":"ping","args":[]}', "bad-request", "args"),
        ('{"cmd":"ping"} x', "bad-request", None),
        ('{"cmd":"ping",}', "bad-request", None),
        ('{"cmd":"run","args":{"job":"a","params":' + '{"a":' * 40 + "1" + "}" * 40 + "}}", "too-deep", None),
        ('{"cmd":"ping' + "[" * 100_000, "bad-request", None),
        ('{"x":' + "[" * 100_000, "too-deep", None),
        ('{"cmd":"status"}', "bad-args", "run"),
        ('{"cmd":"status","args":{"run":"17"}}', "bad-args", "run"),
        ('{"cmd":"status","args":{"run":true}}', "bad-args", "run"),
        ('{"cmd":"status","args":{"run":1.0}}', "bad-args", "run"),
        ('{"cmd":"status","args":{"run":0}}', "bad-args", "run"),
        ('{"cmd":"status","args":{"rum":1}}', "bad-args", "rum"),
        ('{"cmd":"run","args":{"job":1}}', "bad-args", "job"),
        ('{"cmd":"run","args":{"job":"a","params":[]}}', "bad-args", "params"),
        ('{"cmd":"define","args":{"definition":"x"}}', "bad-args", "definition"),
        ('{"cmd":"deregister","args":{"name":"a","force":"yes"}}', "bad-args", "force"),
        ('{"cmd":"output","args":{"format":"xml"}}', "bad-args", "format"),
        ('{"cmd":"follow","args":{"kinds":["logs"]}}', "bad-args", "kinds"),
        ('{"cmd":"wait","args":{"run":1,"timeout":4000}}', "bad-args", "timeout"),
        ("status \uff11\uff17", "bad-args", "run"),
        ("status 1_7", "bad-args", "run"),
        ("status 17 18", "bad-args", None),
        ("status run=17 run=17", "bad-args", "run"),
        ("start a x=1 x=2", "bad-args", "x"),
        ("start a x:={", "bad-request", None),
        ("start a params=x", "bad-args", "params"),
        ("stop 17 'open", "bad-request", None),
        ("stop 17 a\\", "bad-request", None),
        ("define", "bad-args", "definition"),
        ("define nightly", "bad-args", "definition"),
        ("tsaks", "unknown-command", None),
        ("__class__", "bad-request", None),
        ("run.__globals__", "unknown-command", None),
    ],
)
def test_what_is_wrong_is_told_with_its_code_and_field(line, word, field):
    found = error(line)
    assert (found.code, found.more.get("field")) == (word, field)


def test_the_id_of_a_wrong_request_is_read_if_it_can_be():
    with pytest.raises(NamedRequestError) as caught:
        read_request('{"id":"a1","cmd":"rnu"}', depth=32)
    assert caught.value.id == "a1"
    assert "did you mean 'run'" in str(caught.value)


def test_names_from_clients_are_keys_of_the_table_and_never_attributes():
    """The incident class: attribute dispatch."""
    for name in ("__init__", "ping.__class__", "_reply", "close", "arguments", "keys", "ping "):
        found = error(json.dumps({"cmd": name}))
        assert found.code == "unknown-command"


def test_nothing_in_words_is_expanded():
    """The incident class: argument expansion."""
    text = "$HOME ${X} $(id) `id` ~ * ? {a,b} !! @f %x% \\$y"
    assert [word.text for word in split(text)] == [*text.split()[:-1], "$y"]
    assert arguments("stop 1 '$(id) `id` {a,b}'")["reason"] == "$(id) `id` {a,b}"
    assert arguments("start a x=@/etc/passwd y=~ z=*")["params"] == {"x": "@/etc/passwd", "y": "~", "z": "*"}


def test_a_quoted_word_is_positional_even_with_an_equals_sign():
    assert split("a'b'c") == [Word("abc", 1)]
    assert arguments("stop 1 'a=b'")["reason"] == "a=b"
    assert arguments("start a x='y=z'")["params"] == {"x": "y=z"}


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8), max_size=6))
def test_quoting_as_a_shell_does_comes_back(texts):
    import shlex

    assert [word.text for word in split(" ".join(map(shlex.quote, texts)))] == texts


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_valid_json_is_read_as_python_reads_it(value):
    text = json.dumps(value)
    assert parse(text, 32) == json.loads(text)


MEMBERS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=4)


@given(MEMBERS, MEMBERS, MEMBERS, st.sampled_from([None, 1]), st.booleans())
def test_a_definition_is_found_wherever_it_stands_and_read_by_nobody_else(
    definition, args, members, indent, ascii_only
):
    asked = members | {"args": args | {"definition": definition} | args}
    asked["args"]["definition"] = definition
    text = json.dumps(asked | members | {"args": asked["args"]}, indent=indent, ensure_ascii=ascii_only)
    found = _find_definition(text)
    assert json.loads(found.text) == definition
    assert text[found.column - 1 :].startswith(found.text)


def as_asked(text):
    """What a line asks, or None where it is refused."""
    try:
        request = read_request(text, depth=32)
        return request.command.name, request.id, request.arguments()
    except RequestError:
        return None


PIECE = 8
TOKENS = st.sampled_from(
    [
        '"args"',
        '"defin\\u0069tion"',
        '"definition"',
        '"a\\"b"',
        '"\\ud83d\\ude00"',
        '"\\x"',
        '"\x01"',
        '"',
        "\\",
        *"{}[]:,01",
        " " * 20,
        '"' + "\\n" * 20 + '"',
        '"' + "\\u00e9" * 9 + '"',
        "1" * 20,
        "é" * 9,
        "null",
        "\t",
        "\x0b",
        "\u00a0",
    ]
)


@given(
    st.lists(TOKENS, max_size=12).map("".join), st.sampled_from(["", "}", "}}", ',"x":1}}']), st.booleans()
)
def test_what_is_read_piece_by_piece_is_read_as_it_is_in_one(text, end, inside):
    line = '{"cmd":"define","args":{"definition":' * inside + text + end
    whole = as_asked(line)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(requests, "STEP", PIECE)
        patched.setattr(_json, "STEP", PIECE)
        assert as_asked(line) == whole


@given(st.lists(TOKENS, max_size=12).map("".join))
def test_a_string_ends_where_the_stdlib_says(text):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(requests, "STEP", PIECE)
        try:
            end = requests._scan_string(text, 0)[1]
        except ValueError:
            with pytest.raises(ValueError, match="no string"):
                requests._end_of_string(text, 0)
        else:
            assert requests._end_of_string(text, 0) == end


PIECES = 40
MUCH = requests.STEP * PIECES


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"' + "x" * MUCH + '"}',
        '{"id":"' + "\\n" * (MUCH // 2) + '"}',
        '{"' + "x" * MUCH + '":1,"id":1}',
        '{"id":' + "1" * MUCH + "}",
        '{"id":1' + " " * MUCH + "}",
        " " * MUCH + '{"id":1}',
        '{"cmd":"define","args":{"definition":{"a":' + " " * MUCH + "1}}}",
        '{"cmd":"define","args":{"definition":{"a":"' + "\\u00e9" * (MUCH // 6) + '"}}}',
        '{"cmd":"define","args":{"definition":{"a":' + "1" * MUCH + "}}}",
    ],
    ids=[
        "text",
        "escapes",
        "name",
        "digits",
        "blanks",
        "margin",
        "blanks inside",
        "text inside",
        "digits inside",
    ],
)
def test_no_part_of_a_long_line_is_looked_at_in_one_go(line):
    """One call over ten megabytes holds the interpreter's lock, and so every loop of the process."""
    turns = []
    token = WAY.set(lambda: turns.append(1))
    try:
        with suppress(RequestError):
            read_request(line, depth=32, limit=1 << 16).arguments()
    finally:
        WAY.reset(token)
    assert len(turns) >= PIECES - 1


def test_brackets_inside_strings_are_no_depth():
    assert parse(json.dumps(["[" * 100]), 2) == ["[" * 100]


def test_every_example_of_the_table_is_a_request():
    for name, command in COMMANDS.items():
        request = read_request(command.example, depth=32)
        assert request.command.name == name
        request.arguments()


def lines_of(command):
    """The example of a command as it stands in the table, and as JSON with the definition in its own characters."""
    args = {
        name: "@" if isinstance(value, Definition) else value
        for name, value in arguments(command.example).items()
    }
    text = json.dumps({"args": args, "cmd": command.name, "id": 1})
    return command.example, text.replace('"@"', '{"format": 1, "name": "a\\u0062", "x": [1, {}]}')


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_beginning_of_a_line_is_a_request_or_answered_with_words(name):
    for line in lines_of(COMMANDS[name]):
        for end in range(1, len(line) + 1):
            for limit in (math.inf, 8):
                with suppress(RequestError):  # and nothing else may come
                    read_request(line[:end], depth=32, limit=limit).arguments()
        assert read_request(line, depth=32).command.name == name


DEFINE = '{"cmd":"define","id":"a1","args":{"definition":%s,"replace":true}}'


@pytest.mark.parametrize(
    ("line", "from_its_end"),
    [(DEFINE % '{"name": "a"}' + " x", 1), (DEFINE.replace("true", "tru") % '{"name": "a"}', len("tru}}"))],
)
def test_what_is_wrong_around_a_definition_is_told_with_its_place(line, from_its_end):
    assert f"at character {len(line) - from_its_end + 1}" in str(error(line))


@pytest.mark.parametrize("name", ["definition", "args"])
def test_a_member_that_stands_twice_is_no_way_to_a_second_definition(name):
    twice = {"definition": ('"replace"', '"definition":{},"replace"'), "args": ('"id"', '"args":{},"id"')}
    for line in (DEFINE % "{}", DEFINE % '{"a": 1}'):
        assert f"the member {name!r} stands there twice" in str(error(line.replace(*twice[name])))


def test_what_is_wrong_inside_a_definition_is_for_who_reads_it():
    assert arguments(DEFINE % '{"a": nothing}')["definition"].text == '{"a": nothing}'
    assert (
        arguments(DEFINE.replace("definition", "defin\\u0069tion") % '{"a": 1}')["definition"].text
        == '{"a": 1}'
    )


@pytest.mark.parametrize(
    "line",
    [
        '{"cmd":"define","id":"a1","args":{"definition":{},"replace":[' + "[]," * 1_000 + "1]}}",
        '{"id":"a1","cmd":"ping","args":{"x":"%s"}}' % ("x" * 1_000),
        '{"id":"a1","cmd":"ping","args":{"x":%s}}' % ("[" * 1_000 + "]" * 1_000),
        '{"id":"a1","cmd":"ping","args":{"x":%s' % ("{" * 1_000),
        "start job x=" + "y" * 1_000,
    ],
)
def test_a_request_that_is_too_long_without_its_definition_is_not_read_at_all(line, monkeypatch):
    read = []
    real = requests._DECODER.decode

    class Watched:
        def decode(self, text):
            read.append(len(text))
            return real(text)

    monkeypatch.setattr(requests, "_DECODER", Watched())
    with pytest.raises(NamedRequestError) as caught:
        read_request(line, depth=32, limit=500)
    assert caught.value.code == "line-too-long"
    assert caught.value.id == ("a1" if line.startswith("{") else None)
    assert sum(read) < 500


def test_a_long_request_whose_definition_is_most_of_it_is_read_without_it():
    text = json.dumps({"name": "a", "description": "x" * 5_000})
    read = read_request(DEFINE % text, depth=32, limit=500)
    assert read.id == "a1"
    assert read.arguments()["definition"] == Definition(text, (DEFINE % text).index(text) + 1)

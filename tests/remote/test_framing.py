"""Bytes to lines: equal frames however the bytes are cut, and no byte that is read twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.remote.framing import IGNORED, Fault, Framer, Line

LIMIT = 16


def frames_of(chunks, limit=LIMIT, *, end=False):
    framer, found = Framer(), []

    def collect():
        while (frame := framer.next(limit)) is not None:
            found.append(frame)
            if isinstance(frame, Fault) and frame.fatal:
                return True
        return False

    for chunk in chunks:
        framer.feed(chunk)
        if collect():
            return found
    if end:
        framer.end()
        collect()
        assert framer.exhausted
    return found


def codes(frames):
    return [frame.code if isinstance(frame, Fault) else frame for frame in frames]


def test_lines_end_with_newline_and_lose_one_carriage_return():
    assert frames_of([b"a\nb\r\n"]) == [Line("a"), Line("b")]
    assert codes(frames_of([b"a\nb\r\r\n"])) == [Line("a"), "bad-frame"]


def test_other_separators_of_lines_do_not_separate():
    text = "a\u2028b\u0085c"
    assert codes(frames_of([b"x\n" + text.encode() + b"\n"])) == [Line("x"), "bad-frame"]
    assert frames_of(["a\u2028b\n".encode()]) == [Line("a\u2028b")]
    assert codes(frames_of([b"a\rb\n"])) == ["bad-frame"]


def test_blank_lines_and_comments_are_ignored_but_seen():
    assert frames_of([b"\n  \t\n# GET / HTTP/1.1\na\n"]) == [IGNORED, IGNORED, IGNORED, Line("a")]


def test_a_byte_order_mark_is_ignored_at_the_very_start_only():
    mark = b"\xef\xbb\xbf"
    assert frames_of([mark + b"a\n"]) == [Line("a")]
    assert codes(frames_of([b"a\n" + mark + b"b\n"])) == [Line("a"), Line("\ufeffb")]


@pytest.mark.parametrize("byte", [*range(9), *range(11, 32), 0x7F])
def test_control_characters_but_tab_are_an_error(byte):
    assert codes(frames_of([b"x\na" + bytes([byte]) + b"b\n"])) == [Line("x"), "bad-frame"]


def test_tab_is_a_blank():
    assert frames_of([b"a\tb\n"]) == [Line("a\tb")]


@pytest.mark.parametrize(
    "raw", [b"a\xff", b"a\xc0\x80", b"a\xed\xa0\x80", b"a\xf4\x90\x80\x80", b"a\xe2\x82"]
)
def test_what_is_no_utf8_is_an_error_and_the_next_line_lives(raw):
    assert codes(frames_of([raw + b"\nb\n"])) == ["bad-utf8", Line("b")]


def test_a_long_line_is_reported_once_and_its_tail_is_never_read_as_a_command():
    """The incident class: over-long lines that are read as commands."""
    tail = b"shutdown"
    for chunks in ([b"x" * 40 + tail + b"\nok\n"], [b"x" * 20, b"x" * 20, tail + b"\n", b"ok\n"]):
        assert codes(frames_of(chunks)) == ["line-too-long", Line("ok")]


def test_the_line_after_a_first_line_that_is_too_long_is_judged_as_a_first_line_however_it_was_cut():
    long, second = b"x" * 40 + b"\n", b"[1]" + b"a" * 40
    for chunks in ([long + second], [b"x", long, second], [b"x" * 40, b"\n" + second]):
        assert codes(frames_of(chunks)) == ["line-too-long", "bad-frame"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_limit_counts_the_line_without_its_ending(ending):
    assert frames_of([b"x" * LIMIT + ending]) == [Line("x" * LIMIT)]
    assert codes(frames_of([b"x" * (LIMIT + 1) + ending])) == ["line-too-long"]


def test_the_limit_may_grow_between_two_lines_of_one_chunk():
    framer = Framer()
    framer.feed(b"auth\n" + b"x" * 30 + b"\n")
    assert framer.next(8) == Line("auth")
    assert framer.next(64) == Line("x" * 30)


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b"POST /x HTTP/1.0\r\n\r\nshutdown\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x80\x00",
        b"[1]\n",
        b'"a"\n',
        b"  \t-1\n",
        b"\n\n#\nQUIT\n",
    ],
)
def test_other_protocols_are_sent_away_at_their_first_byte(first):
    """The incident class: requests from browsers, whose body holds commands."""
    frames = [frame for frame in frames_of([first]) if frame != IGNORED]
    assert codes(frames) == ["bad-frame"]
    assert frames[0].fatal


def test_strange_bytes_later_are_left_to_the_session():
    assert frames_of([b"a\nGET / HTTP/1.1\n"]) == [Line("a"), Line("GET / HTTP/1.1")]


def test_a_last_line_without_newline_counts_if_it_may_be_a_whole_object():
    assert frames_of([b"{}"], end=True) == [Line("{}", partial=True)]
    assert codes(frames_of([b"stop 12"], end=True)) == ["truncated"]
    assert codes(frames_of([b'{"a": "\xc3'], end=True)) == ["truncated"]
    assert frames_of([b"# x"], end=True) == [IGNORED]
    assert frames_of([b"a\n"], end=True) == [Line("a")]


PIECES = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"a",
        b"{}",
        b"#",
        b" ",
        b"\t",
        b"\x00",
        b"\xc3",
        b"\xa9",
        b"\xef\xbb\xbf",
        b"G",
        b"x" * 7,
        b" HTTP/1.1",
        b"\xe2\x80\xa8",
        b"\x7f",
        b"\xc2\x85",
    ]
)


@given(st.lists(PIECES, max_size=14).map(b"".join), st.lists(st.integers(0, 60), max_size=5), st.booleans())
def test_frames_do_not_depend_on_how_the_bytes_are_cut(text, cuts, end):
    at = sorted({min(cut, len(text)) for cut in cuts})
    chunks = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    whole = frames_of([text], end=end)
    assert frames_of(chunks, end=end) == whole
    assert frames_of([text[n : n + 1] for n in range(len(text))], end=end) == whole


@given(st.binary(max_size=400), st.integers(1, 40))
def test_a_framer_keeps_no_more_than_a_line_and_a_chunk(data, size):
    framer = Framer()
    for start in range(0, len(data), size):
        framer.feed(data[start : start + size])
        while (frame := framer.next(LIMIT)) is not None:
            if isinstance(frame, Fault) and frame.fatal:
                return
        assert framer.size <= LIMIT + 1
        assert framer.lines == 0


def test_a_comment_may_have_any_length_and_gets_no_reply():
    for cut in (1, 7, 1_000):
        framer, frames = Framer(), []
        data = b"ping\n# " + b"x" * 300 + b"\nping\n"
        for at in range(0, len(data), cut):
            framer.feed(data[at : at + cut])
            while (frame := framer.next(50)) is not None:
                frames.append(frame)
        assert frames == [Line("ping"), IGNORED, Line("ping")]
        assert framer.size == 0

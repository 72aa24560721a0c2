"""The text of a failure: the user's frames, the source that ran, and no way to break it."""

from __future__ import annotations

import linecache
import sys
import types

import pytest

from scattersphere.logs import failures
from scattersphere.logs.failures import FAILURE_LIMIT, describe, format_failure, shorten
from scattersphere.logs.masking import hide
from scattersphere.logs.runlog import RunLog


def caught(body, *args) -> BaseException:
    try:
        body(*args)
    except BaseException as exc:  # noqa: BLE001 - SystemExit is among what is raised
        return exc
    raise AssertionError("nothing was raised")


def load_bundle_module(monkeypatch, tmp_path, source: str) -> types.ModuleType:
    """Execute `source` as the registry does: under a private name, from a snapshot."""
    name = "scattersphere.bundles.etl_g7.etl.load"
    file = tmp_path / "etl" / "load.py"
    file.parent.mkdir()
    file.write_text(source)
    module = types.ModuleType(name)
    exec(compile(source, str(file), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_a_failure_shows_the_source_that_ran(tmp_path, monkeypatch):
    module = load_bundle_module(monkeypatch, tmp_path, "def run():\n    raise ValueError('no such day')\n")
    text = format_failure(caught(module.run))
    assert "raise ValueError('no such day')" in text
    assert text.endswith("ValueError: no such day")


def test_module_names_are_logical(tmp_path, monkeypatch):
    source = "class LoadError(Exception): pass\ndef run():\n    raise LoadError('x')\n"
    exc = caught(load_bundle_module(monkeypatch, tmp_path, source).run)
    assert format_failure(exc).endswith("\netl.load.LoadError: x")
    assert describe(exc) == "etl.load.LoadError: x"


def test_frames_of_the_engine_are_left_out():
    def body():
        RunLog.append(None, 20, "x")  # fails inside the engine, below the user's line

    text = format_failure(caught(body))
    assert 'RunLog.append(None, 20, "x")' in text
    assert "logs/runlog.py" not in text


def test_frames_of_the_engine_are_shown_when_there_are_no_others():
    exc = caught(RunLog.append, None, 20, "x")
    exc.__traceback__ = exc.__traceback__.tb_next  # without the frame of this file
    assert "logs/runlog.py" in format_failure(exc)


def test_of_a_body_they_are_left_out_even_then():
    exc = caught(RunLog.append, None, 20, "x")
    exc.__traceback__ = exc.__traceback__.tb_next
    assert format_failure(exc, of_body=True) == f"AttributeError: {exc}"


def test_causes_contexts_notes_and_groups_are_shown():
    def body():
        try:
            {}["inner"]
        except KeyError as inner:
            error = ExceptionGroup("several", [ValueError("one"), OSError("two")])
            error.add_note("a note")
            raise error from inner

    text = format_failure(caught(body))
    for part in ("KeyError: 'inner'", "direct cause", "several", "ValueError: one", "OSError: two", "a note"):
        assert part in text


class UnprintableError(Exception):
    def __str__(self):
        raise SystemExit("from __str__")


class LiarError(Exception):
    @property
    def __class__(self):
        raise RuntimeError("no class")

    @property
    def __cause__(self):
        raise KeyboardInterrupt


class MeddlerError(AttributeError):
    """Python looks for similar names in the object of an AttributeError, and so calls its __dir__."""

    def __init__(self):
        super().__init__("x", name="x", obj=self)

    def __dir__(self):
        raise SystemExit("from __dir__")


@pytest.mark.parametrize("kind", [UnprintableError, LiarError, MeddlerError])
def test_no_exception_can_break_its_own_formatting(kind):
    def body():
        raise kind

    exc = caught(body)
    assert kind.__name__ in format_failure(exc)
    assert kind.__name__ in describe(exc)


def test_a_huge_message_leaves_room_for_the_frames():
    def body():
        raise ValueError("x" * 10_000_000)

    text = format_failure(caught(body))
    assert len(text) <= FAILURE_LIMIT
    assert "raise ValueError(" in text
    assert "characters left out" in text


def test_endless_recursion_is_short():
    def ping(n):
        return pong(n + 1)

    def pong(n):
        return ping(n + 1)

    text = format_failure(caught(ping, 0))
    assert len(text) <= FAILURE_LIMIT
    assert "frames left out" in text
    assert "RecursionError: maximum recursion depth exceeded" in text


def test_deeply_nested_groups_do_not_break_it():
    exc: Exception = ValueError("innermost")
    for _ in range(3_000):
        exc = ExceptionGroup("level", [exc])
    text = format_failure(exc)
    assert "ExceptionGroup" in text
    assert len(text) <= FAILURE_LIMIT


def test_a_chain_of_causes_in_a_circle_ends():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    text = format_failure(one)
    assert "one" in text
    assert "two" in text


def test_the_frames_of_members_of_groups_are_cut_too():
    def body():
        RunLog.append(None, 20, "x")

    text = format_failure(ExceptionGroup("several", [caught(body)]))
    assert "logs/runlog.py" not in text


def test_describe_is_one_short_line():
    text = describe(ValueError("first\nsecond " + "x" * 5_000))
    assert "\n" not in text
    assert text.startswith("ValueError: first second")
    assert len(text) < 600


def test_describe_of_an_empty_message_is_the_name():
    assert describe(ValueError()) == "ValueError"


@pytest.mark.parametrize("limit", [0, 1, 30, 100])
def test_shorten_keeps_both_ends_and_the_limit(limit):
    text = "begin" + "x" * 200 + "end"
    short = shorten(text, limit)
    assert len(short) == limit
    if limit == 100:
        assert short.startswith("begin")
        assert short.endswith("end")
        assert "more than 108 characters left out" in short


def test_shorten_leaves_short_texts_alone():
    assert shorten("abc", 3) == "abc"


def test_what_stays_in_linecache_is_what_python_itself_keeps(tmp_path, monkeypatch):
    module = load_bundle_module(monkeypatch, tmp_path, "def run():\n    raise ValueError\n")
    format_failure(caught(module.run))
    assert linecache.getline(module.run.__code__.co_filename, 2) == "    raise ValueError\n"


def test_the_limits_fit_into_a_line_of_the_log():
    assert failures.PART_LIMIT < failures.FAILURE_LIMIT <= RunLog(1).line_limit


# ---- secrets in texts that were shortened


SECRET = "QWERTY-UIOP-ASDFGH-JKLM-1029"


@pytest.mark.parametrize("at", range(180, 320, 3))
def test_no_part_of_a_secret_is_left_where_a_text_was_cut(at):
    """A worker shortens what it sends; half of a password is most of it."""
    text = shorten("a" * at + SECRET + "z" * 700 + SECRET + "b" * at, 500)
    for shown in (
        hide(text, (SECRET,)),
        hide(shorten(text, 300), (SECRET,)),
        hide(shorten(text, 496), (SECRET,)),
    ):
        assert not any(SECRET[start : start + 3] in shown for start in range(len(SECRET) - 2)), shown
        assert "left out" in shown


def test_what_is_left_of_a_secret_between_two_cuts_is_masked():
    note = "\n... more than 7 characters left out ...\n"
    assert hide(f"x{note}ASDF{note}y", (SECRET,)) == f"x{note}***{note}y"
    assert hide(f"QWERTY-U{note}no", (SECRET,)) == f"***{note}no"
    assert hide(f"no{note}M-1029, {note}no", (SECRET,)) == f"no{note}***, {note}no"


def test_parts_of_a_secret_of_a_megabyte_are_found_without_a_look_at_each_of_its_beginnings():
    """Each was compared with the end of the piece: a megabyte took minutes, on the loop."""
    secret = "".join(f"{number:07d}" for number in range(150_000))
    note = "\n... more than 7 characters left out ...\n"
    assert hide(f"x{secret[:8_000]}{note}{secret[-8_000:]}y", (secret,)) == f"x***{note}***y"
    assert hide(f"no{note}no", (secret,)) == f"no{note}no"


def test_the_few_letters_with_which_a_secret_begins_are_no_part_of_it():
    note = "\n... more than 7 characters left out ...\n"
    assert hide(f"on /vol/e{note}and more", ("export-key-1", "xxxxxxxand")) == f"on /vol/e{note}*** more"


def test_a_text_that_is_cut_again_keeps_the_notes_of_its_cuts_whole():
    text = shorten("a" * 5_000, 1_000)
    for limit in range(900, 1_000):
        assert all(
            "characters left out ..." in part for part in shorten(text, limit).split("... more than")[1:]
        )

"""A result that a journal keeps comes back equal, in value and type, at every depth; else it is not kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import struct
import uuid
import zoneinfo
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.abc.journal import ValueForm
from scattersphere.errors import NoSuchBundleError
from scattersphere.journal.classes import Classes
from scattersphere.journal.values import DEPTH, decode, encode, encode_small, is_small_and_exact


def no_bundle(name: str) -> Any:
    raise NoSuchBundleError(f"no bundle {name}")


CLASSES = Classes(no_bundle)


class Colour(enum.Enum):
    RED = 1
    ALSO_RED = 1  # noqa: PIE796 - an alias
    BLUE = ("b", 2)


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Point:
    x: Any
    y: Any = None


@attrs.define
class Box:
    content: Any


@attrs.define(slots=False)
class Open:
    content: Any


@attrs.frozen(cache_hash=True)
class Hashed:
    name: str


@dataclasses.dataclass
class Row:
    number: Any
    note: Any = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    number: Any


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type and value at every depth; floats by their bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) for a, b in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, dt.datetime):
        return (
            one.fold == other.fold and same(one.tzinfo, other.tzinfo) and one.isoformat() == other.isoformat()
        )
    if attrs.has(type(one)):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in attrs.fields(type(one)))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return bool(one == other)


text = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs too
zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
    st.builds(dt.timezone, st.just(dt.timedelta(hours=1)), st.text(max_size=5)),
    st.sampled_from(["Europe/Berlin", "America/New_York"]).map(zoneinfo.ZoneInfo),
)
hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    text,
    st.binary(),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.sampled_from([*Colour, *Level, Mode.READ, Mode.READ | Mode.WRITE, Mode(0)]),
    st.sampled_from([pathlib.Path("a/b"), pathlib.PurePosixPath("/x"), pathlib.PureWindowsPath("c:\\x")]),
    text.map(Hashed),
)
some = st.deferred(lambda: hashable)  # its own repr is longer than Hypothesis likes
keys = st.one_of(
    some, st.tuples(some, some), st.frozensets(some, max_size=3), st.builds(Point, some, st.tuples(some))
)
values = st.recursive(
    st.one_of(
        keys, st.floats(), st.sampled_from([1999, 2000, 14_000]).map(lambda bits: -(2**bits)), st.decimals()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(keys, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.sampled_from(["$tuple", "$dict", "$no", "a", ""]), inner, max_size=2),
        st.builds(Point, inner, inner),
        st.builds(Box, inner),
        st.builds(Open, inner),
        st.builds(Row, inner, inner),
        st.builds(Slotted, inner),
    ),
    max_leaves=4,
)


@given(values)
def test_what_is_kept_comes_back_equal_in_value_and_type(value):
    form, data, reason = encode(value, CLASSES)
    if form is ValueForm.UNKEPT:  # Hypothesis may use one object twice
        assert "twice" in reason
        return
    assert same(decode(form, data, CLASSES), value)
    if is_small_and_exact(value):
        assert form is ValueForm.JSON
        assert encode_small(value) == data
    else:
        assert encode_small(value) is None


JSON_EXACTLY = [None, True, 0, -0.0, 1e308, "ä\n", [], {}, [1, [True, {"a": None, "$tuple": [1]}]], 2**1999]


@pytest.mark.parametrize("value", JSON_EXACTLY, ids=repr)
def test_what_json_holds_exactly_is_json(value):
    form, data, _ = encode(value, CLASSES)
    assert form is ValueForm.JSON
    assert same(decode(form, data, CLASSES), value)


NOT_BY_JSON = [
    (1, {2: "x"}),
    {"a": (1,)},
    {True: 2},
    {"$tuple": [(1,)]},
    math.nan,
    math.inf,
    "\ud83d\ude00",
    ["\ud800"],
    2**2000,
    Level.LOW,
    Hashed("a"),
    decimal.Decimal("sNaN123"),
    uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe),
]


@pytest.mark.parametrize("value", NOT_BY_JSON, ids=ascii)
def test_what_json_would_change_is_tagged(value):
    form, data, _ = encode(value, CLASSES)
    assert form is ValueForm.TAGGED
    assert not is_small_and_exact(value)
    assert same(decode(form, data, CLASSES), value)


class Text(str):
    __slots__ = ()


class Wide(list):
    pass


@attrs.define
class BadError(Exception):
    reason: str


@dataclasses.dataclass
class OwnPickle:
    number: int

    def __reduce__(self):
        return OwnPickle, (self.number,)


def shared():
    part = [1]
    return [part, part]


def circle():
    part: list[Any] = []
    part.append(part)
    return part


def deep():
    part: Any = ()
    for _ in range(DEPTH + 2):
        part = (part,)
    return part


@attrs.define
class Liar:
    content: Any

    @property
    def __class__(self):
        raise SystemExit


REFUSED = {
    "an object": object(),
    "a subclass of str": Text("a"),
    "a subclass of list, inside": {"a": Wide()},
    "a list that stands twice": shared(),
    "a list in itself": circle(),
    "too deep": deep(),
    "an exception": BadError("a"),
    "a class with its own pickling": OwnPickle(1),
    "an object inside attrs": Box(object()),
    "a function": len,
    "a class made inside a function": attrs.make_class("Local", ["x"])(1),
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_has_no_exact_form_is_refused_with_the_reason(value):
    form, data, reason = encode(value, CLASSES)
    assert (form, data) == (ValueForm.UNKEPT, None)
    assert reason
    assert encode_small(value) is None


def test_what_has_no_exact_form_is_pickled_where_that_is_allowed():
    form, data, _ = encode({"a": Text("b"), "twice": shared()}, CLASSES, allow_pickle=True)
    assert form is ValueForm.PICKLE
    value = decode(form, data, CLASSES)
    assert type(value["a"]) is Text
    assert value["twice"][0] is value["twice"][1]
    form, data, reason = encode(lambda: 1, CLASSES, allow_pickle=True)
    assert (form, data) == (ValueForm.UNKEPT, None)
    assert "pickle" in reason


class Evil:
    def __reduce__(self):
        raise SystemExit("out")


def test_code_of_the_user_s_that_fails_while_it_is_looked_at_only_loses_the_result():
    assert encode(Evil(), CLASSES, allow_pickle=True)[0] is ValueForm.UNKEPT
    form, data, _ = encode(Liar(1), CLASSES)
    assert form is ValueForm.TAGGED  # it is never asked
    assert decode(form, data, CLASSES).content == 1


def test_a_cached_hash_is_made_anew():
    form, data, _ = encode(Hashed("a"), CLASSES)
    found = decode(form, data, CLASSES)
    assert hash(found) == hash(Hashed("a"))
    assert b"hash" in data
    assert b"null" in data


def test_a_value_of_a_class_that_has_changed_is_not_made_by_half(monkeypatch):
    form, data, _ = encode(Row(1), CLASSES)
    monkeypatch.setitem(globals(), "Row", dataclasses.make_dataclass("Row", ["number", "note", "more"]))
    with pytest.raises(LookupError, match="more"):
        decode(form, data, CLASSES)
    monkeypatch.delitem(globals(), "Row")
    with pytest.raises(LookupError, match="no class Row"):
        decode(form, data, CLASSES)


@pytest.mark.parametrize(
    "data",
    [b"{", b'{"$no":1}', b'{"$int":[]}', b'{"$object":1}', b'{"$datetime":["x",0,null]}', b'{"$set":[[]]}'],
)
def test_damaged_bytes_are_a_value_error(data):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        decode(ValueForm.TAGGED, data, CLASSES)


def test_a_large_value_is_not_looked_at_on_the_loop():
    assert not is_small_and_exact(list(range(100)))
    assert not is_small_and_exact("x" * 5_000)
    assert not is_small_and_exact([[[["x" * 3_000]]], "x" * 3_000])
    assert is_small_and_exact({"rows": 12, "path": "a/b", "done": True})

"""What JSON may stand for each annotation: strict, and built anew for each attempt."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import sys
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import RunnableTask
from scattersphere.definitions.annotations import LEVELS, annotation_schema, make_structurer


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@attrs.define
class Point:
    x: int
    label: str = ""


@dataclasses.dataclass
class Line:
    start: Point
    ends: list[Point] = dataclasses.field(default_factory=list)


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


class Row(TypedDict):
    id: int
    note: NotRequired[str]


T = typing.TypeVar("T")


@dataclasses.dataclass
class Box(typing.Generic[T]):
    v: T


class Ints(Box[int]):
    """Of whole numbers."""


class Pair(typing.NamedTuple):
    x: int
    y: int
    label: str = ""


class Perm(enum.Flag):
    R = 1
    W = 2


@attrs.define
class Above:
    n: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.define
class Below:
    n: int = attrs.field(validator=attrs.validators.lt(0))


UserId = NewType("UserId", int)
DEEP = "/children/0/value"
ANY_UUID = "12345678-1234-5678-1234-567812345678"


def faults(annotation, value):
    kind = make_structurer().adapter(annotation)
    found = []
    kind.check(value, "", found)
    return found


@pytest.mark.parametrize(
    ("annotation", "value", "built"),
    [
        (str, "a", "a"),
        (int, 5, 5),
        (bool, True, True),
        (float, 5, 5.0),
        (float, 0.5, 0.5),
        (None, None, None),
        (dt.date, "2026-11-23", dt.date(2026, 11, 23)),
        (dt.datetime, "2026-11-23T08:30:00Z", dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)),
        (dt.time, "08:30:00", dt.time(8, 30)),
        (dt.timedelta, 1.5, dt.timedelta(seconds=1.5)),
        (uuid.UUID, ANY_UUID, uuid.UUID(ANY_UUID)),
        (Decimal, "1.50", Decimal("1.50")),
        (Path, "a/b", Path("a/b")),
        (Colour, "red", Colour.RED),
        (Level, 1, Level.LOW),
        (Literal[1, "a"], 1, 1),
        (UserId, 5, 5),
        (Annotated[int, ["unhashable"]], 5, 5),
        (list[int], [1], [1]),
        (list, [1, "a"], [1, "a"]),
        (set[str], ["a"], {"a"}),
        (frozenset[str], ["ab"], frozenset({"ab"})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[()], [], ()),
        (Sequence[dt.date], ["2026-11-23"], [dt.date(2026, 11, 23)]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (Mapping[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (int | None, None, None),
        (float | int, 5, 5),
        (dt.date | str, "never", "never"),
        (Point, {"x": 1}, Point(1)),
        (Line, {"start": {"x": 1}, "ends": [{"x": 2, "label": "b"}]}, Line(Point(1), [Point(2, "b")])),
        (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
        (Row, {"id": 1}, {"id": 1}),
        (list[Point] | Point, {"x": 1}, Point(1)),
        (Any, {"a": [1]}, {"a": [1]}),
        (dict[int, str], {"1": "a", "-2": "b"}, {1: "a", -2: "b"}),
        (Pair, [1, 2], Pair(1, 2)),
        (Pair, [1, 2, "c"], Pair(1, 2, "c")),
        (Perm, 3, Perm.R | Perm.W),
        (Literal[Colour.RED], "red", Colour.RED),
        (Box[int], {"v": 1}, Box(1)),
        (Ints, {"v": 1}, Ints(1)),
        (Above | Below, {"n": -1}, Below(-1)),
        (Above | Below, {"n": 1}, Above(1)),
        (IPv4Address, "192.0.2.1", IPv4Address("192.0.2.1")),
    ],
)
def test_json_is_taken_and_built(annotation, value, built):
    kind = make_structurer().adapter(annotation)
    assert faults(annotation, value) == []
    result = kind.build(value)
    assert result == built
    assert type(result) is type(built)


@pytest.mark.parametrize(
    ("annotation", "value", "found"),
    [
        (int, True, ("", "must be a whole number, not true")),
        (int, "5", ("", 'must be a whole number, not the string "5"')),
        (int, 5.0, ("", "must be a whole number, not the number 5.0")),
        (float, True, ("", "must be a number, not true")),
        (float, 10**400, ("", "a very large number is no finite number of Python's float")),
        (bool, 1, ("", "must be true or false, not the number 1")),
        (bool, "false", ("", 'must be true or false, not the string "false"')),
        (str, 5, ("", "must be a string, not the number 5")),
        (frozenset[str], "ab", ("", 'must be a list, not the string "ab"')),
        (list[str], "abc", ("", 'must be a list, not the string "abc"')),
        (Literal[1], True, ("", "must be one of 1, not true")),
        (Literal[True], 1, ("", "must be one of True, not the number 1")),
        (Literal["red"], "rad", ("", "must be one of 'red', not the string \"rad\"; did you mean 'red'?")),
        (Level, True, ("", "must be one of 1, not true")),
        (dict[str, int], [1], ("", "must be an object, not a list")),
        (dict[str, int], {"a/b": "1"}, ("/a~1b", 'must be a whole number, not the string "1"')),
        (dict[int, str], {"x": "a"}, ("/x", 'must be a whole number in quotes, not the string "x"')),
        (dict[int, str], {"01": "a"}, ("/01", 'must be a whole number in quotes, not the string "01"')),
        (Pair, [1], ("", "must be a list of 2 to 3, not a list")),
        (Pair, {"x": 1}, ("", "must be a list of 2 to 3, not an object")),
        (Perm, 4, ("", "must be a sum of 1 (R) + 2 (W), not the number 4")),
        (Perm, "R", ("", 'must be a sum of 1 (R) + 2 (W), not the string "R"')),
        (
            Literal[Colour.RED],
            "rad",
            ("", "must be one of 'red', not the string \"rad\"; did you mean 'red'?"),
        ),
        (Box[int], {"v": "a"}, ("/v", 'must be a whole number, not the string "a"')),
        (Ints, {"v": "a"}, ("/v", 'must be a whole number, not the string "a"')),
        (
            IPv4Address,
            "192.0.2.256",
            ("", 'must be an IPv4 address such as "192.0.2.1", not the string "192.0.2.256"'),
        ),
        (set[Any], [[1]], ("/0", "a list cannot be in a set")),
        (tuple[int, str], [1], ("", "must be a list of 2, not a list")),
        (tuple[()], [1], ("", "must be a list of 0, not a list")),
        (dt.date, "23.11.2026", ("", 'must be a date such as "2026-11-23", not the string "23.11.2026"')),
        (dt.timedelta, "5", ("", 'must be a number of seconds, not the string "5"')),
        (dt.timedelta, 10**300, ("", "a very large number is too many seconds")),
        (Decimal, 1.5, ("", 'must be a decimal in quotes such as "1.50", not the number 1.5')),
        (Decimal, "1,5", ("", 'must be a decimal in quotes such as "1.50", not the string "1,5"')),
        (uuid.UUID, "x", ("", 'must be a UUID in quotes, not the string "x"')),
        (Path, 1, ("", "must be a path in quotes, not the number 1")),
        (int | None, "5", ("", 'must be int | None, not the string "5"')),
        (list[Point] | Point, {"x": "a"}, ("/x", 'must be a whole number, not the string "a"')),
        (Point, {}, ("", "Point needs 'x'")),
        (Point, {"x": 1, "lable": ""}, ("/lable", 'Point has no such field; did you mean "label"?')),
        (Line, {"start": {"x": None}}, ("/start/x", "must be a whole number, not null")),
        (
            Tree,
            {"value": 1, "children": [{"value": True}]},
            ("/children/0/value", "must be a whole number, not true"),
        ),
        (Row, {"note": ""}, ("", "Row needs 'id'")),
    ],
)
def test_what_json_does_not_mean_is_refused_where_it_stands(annotation, value, found):
    assert faults(annotation, value) == [found]


@pytest.mark.parametrize("annotation", [bytes, complex, Callable[[], int], list[bytes], type("Own", (), {})])
def test_what_has_no_json_form_can_only_be_fed_by_a_result(annotation):
    kind = make_structurer().adapter(annotation)
    assert not kind.has_json
    assert all("the whole $result of a task" in words for _, words in faults(annotation, ["x"]))
    assert faults(annotation, ["x"])


@pytest.mark.parametrize(
    "annotation", [Any, list, list[Any], dict[str, list[int]], set[int], Tree, Line, Row]
)
def test_each_attempt_gets_containers_of_its_own(annotation):
    value = {
        Any: {"a": [1]},
        list: [[1]],
        list[Any]: [[1]],
        dict[str, list[int]]: {"a": [1]},
        set[int]: [1],
        Tree: {"value": 1, "children": [{"value": 2}]},
        Line: {"start": {"x": 1}},
        Row: {"id": 1},
    }[annotation]
    build = make_structurer().adapter(annotation).build
    before, first, second = repr(value), build(value), build(value)
    assert first == second
    if hasattr(first, "children"):
        first.children.clear()
        assert second.children
    elif hasattr(first, "ends"):
        first.ends.append(1)
        assert not second.ends
    else:
        inner = next(iter(first.values() if isinstance(first, dict) else first))
        if isinstance(inner, list):
            inner.append(9)
        first.clear()
        assert repr(second) == repr(build(value))
    assert repr(value) == before


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with 3.12")
def test_an_alias_may_contain_itself():
    space = {}
    exec("type Json = int | list[Json] | dict[str, Json]", space)
    assert faults(space["Json"], {"a": [1, {"b": 2}]}) == []
    assert faults(space["Json"], {"a": [1, {"b": "2"}]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ANNOTATIONS = [
    str,
    int,
    float,
    dt.date,
    Decimal,
    Colour,
    Literal[1, "a"],
    list[int],
    set[Any],
    Tree,
    Row,
    Line,
]


@given(st.sampled_from(ANNOTATIONS), JSON)
def test_whatever_passes_the_check_is_built_without_an_error(annotation, value):
    wrapped = typing.Union[annotation, list[annotation], dict[str, annotation]]  # noqa: UP007 - made here
    for tried in (annotation, wrapped):
        if not faults(tried, value):
            make_structurer().adapter(tried).build(value)


def test_pydantic_models_judge_json_themselves():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        n: int = pydantic.Field(gt=0)
        day: dt.date = dt.date(2026, 1, 1)

    adapter = make_structurer().adapter(list[Model])
    assert adapter.build([{"n": 1, "day": "2026-11-23"}]) == [Model(n=1, day=dt.date(2026, 11, 23))]
    assert faults(list[Model], [{"n": "1"}]) == [
        ("/0/n", f"{Model.__qualname__}: Input should be a valid integer")
    ]
    assert faults(Model, {"n": 0}) == [("/n", f"{Model.__qualname__}: Input should be greater than 0")]
    assert faults(Model, 5)[0][0] == ""


class Greet(RunnableTask):
    name: str
    times: int = 1
    tags: list[str] = []  # noqa: RUF012 - copied for each instance

    def run(self, context):
        return self.name


def test_the_parameters_of_a_class_are_named_with_type_and_default():
    found = make_structurer().parameters(Greet)
    assert [(p.name, p.type_name, p.required, p.default) for p in found.values()] == [
        ("name", "str", True, None),
        ("times", "int", False, 1),
        ("tags", "list[str]", False, []),
    ]
    assert found["times"].check("5") == [("", 'must be a whole number, not the string "5"')]


@pytest.mark.parametrize(
    ("wrap", "word", "told"),
    [
        (lambda inner: list[inner], "array", LEVELS),
        (lambda inner: dict[str, inner], "additionalProperties", LEVELS),
        (lambda inner: tuple[inner, int], "prefixItems", LEVELS),
        (lambda inner: attrs.make_class("C", {"x": attrs.field(type=inner)}), "required", LEVELS),
        (lambda inner: list[inner] | None, "array", LEVELS // 2),  # a choice is a level, too
    ],
)
def test_a_schema_tells_of_so_many_levels_whatever_they_are_made_of(wrap, word, told):
    annotation = int
    for _ in range(2 * LEVELS):
        annotation = wrap(annotation)
    assert json.dumps(annotation_schema(annotation)).count(f'"{word}"') == told


def test_the_schema_of_a_choice_tells_of_each_of_them():
    schema = annotation_schema(int | list[str])
    assert [member["type"] for member in schema["anyOf"][0]["anyOf"]] == ["integer", "array"]


def test_what_is_wrong_inside_one_of_a_choice_is_told_with_what_it_lacks():
    @attrs.frozen
    class Pair:
        first: int
        second: int

    lacks = f"{Pair.__qualname__} needs 'second'"
    found = [("/first", 'must be a whole number, not the string "x"'), ("", lacks)]
    assert faults(Pair | int, {"first": "x"}) == found


class UntellableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def test_an_error_of_a_users_model_that_has_no_words_is_told_by_its_name():
    pydantic = pytest.importorskip("pydantic")

    class Even(pydantic.BaseModel):
        number: int

        @pydantic.field_validator("number")
        @classmethod
        def check(cls, number):
            raise UntellableError

    told = f"no {Even.__qualname__} can be made of it: UntellableError"
    assert faults(Even, {"number": 1}) == [("", told)]

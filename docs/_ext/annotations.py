"""What JSON each annotation of a parameter takes, asked of the code: the directive `annotations`."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import json
import pathlib
import typing
import uuid
from collections import abc
from decimal import Decimal

import attrs
from docutils.parsers.rst import Directive
from text_tables import table

from scattersphere.definitions.annotations import make_structurer

if typing.TYPE_CHECKING:
    from docutils import nodes


class Colour(enum.Enum):
    """An enum of texts."""

    RED = "red"
    BLUE = "blue"


class Rights(enum.Flag):
    """A flag."""

    READ = 1
    WRITE = 2


@attrs.define
class Point:
    """A class with fields."""

    x: int
    y: int = 0


class Pair(typing.NamedTuple):
    """A tuple with names."""

    x: int
    y: int = 0


SHOWN: list[tuple[str, object, object]] = [
    ("str", str, "a"),
    ("bool", bool, True),
    ("int", int, 5),
    ("float", float, 5),
    ("None", type(None), None),
    ("datetime", dt.datetime, "2026-11-23T08:30:00Z"),
    ("date", dt.date, "2026-11-23"),
    ("time", dt.time, "08:30:00"),
    ("timedelta", dt.timedelta, 1.5),
    ("UUID", uuid.UUID, "12345678-1234-5678-1234-567812345678"),
    ("Decimal", Decimal, "1.50"),
    ("Path", pathlib.Path, "docs/index.md"),
    *((cls.__name__, cls, example) for cls, example in (
        (ipaddress.IPv4Address, "192.0.2.1"),
        (ipaddress.IPv6Address, "2001:db8::1"),
        (ipaddress.IPv4Network, "192.0.2.0/24"),
        (ipaddress.IPv6Network, "2001:db8::/32"),
        (ipaddress.IPv4Interface, "192.0.2.1/24"),
        (ipaddress.IPv6Interface, "2001:db8::1/32"),
    )),
    ("an Enum", Colour, "red"),
    ("a Flag", Rights, 3),
    ('Literal[1, "a"]', typing.Literal[1, "a"], 1),
    ("int | None", int | None, None),
    ("list[int]", list[int], [1, 2]),
    ("tuple[int, str]", tuple[int, str], [1, "a"]),
    ("tuple[int, ...]", tuple[int, ...], [1, 2]),
    ("set[str]", set[str], ["a"]),
    ("frozenset[str]", frozenset[str], ["a"]),
    ("Sequence, Iterable, Collection", abc.Sequence[int], [1]),
    ("dict[str, int]", dict[str, int], {"a": 1}),
    ("dict[int, str]", dict[int, str], {"1": "a"}),
    ("Mapping[str, Any]", abc.Mapping[str, typing.Any], {"a": [1]}),
    ("an attrs class, a dataclass, a TypedDict", Point, {"x": 1}),
    ("a NamedTuple", Pair, [1, 2]),
    ("Any, object", typing.Any, {"a": [1]}),
    ("bytes, and any other class", bytes, {"$result": "task"}),
]  # fmt: skip
"""How it is written, what it is, and JSON that it takes."""


def rows() -> list[tuple[str, str, str]]:
    """Return how each annotation is written, the JSON that it takes, and an example."""
    structurer = make_structurer()
    return [
        (written, structurer.adapter(annotation).words, json.dumps(example))
        for written, annotation, example in SHOWN
    ]


class Annotations(Directive):
    """`{annotations}`."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return [table((3, 5, 4), ("annotation", "JSON", "example"), rows(), code=frozenset({0, 2}))]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("annotations", Annotations)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

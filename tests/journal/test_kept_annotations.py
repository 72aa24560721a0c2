"""`validate` of a Server with a journal warns of results that cannot be kept, as far as annotations tell."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import io
import pathlib
import typing
import uuid

import attrs
import pytest

from scattersphere import JobDefinition, RunnableTask, Server, TaskDefinition, task
from scattersphere.abc import RemoteValue
from scattersphere.journal.annotations import why_not_kept
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = 1


class Plain:
    pass


class Pair(typing.NamedTuple):
    a: int
    b: int


class Config(typing.TypedDict):
    size: int


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree]


@dataclasses.dataclass
class Holder:
    held: Plain | None = None


@attrs.define
class Point:
    x: float
    seen: dt.datetime


T = typing.TypeVar("T")
Number = typing.NewType("Number", int)


class Likely(typing.Protocol):
    def is_likely(self) -> bool: ...


KEPT = [
    None, "None", int, "int | None", str, bool, float, bytes, list, "list[int]", "dict[str, tuple[int, ...]]",
    "set[frozenset[str]]", dt.date, dt.datetime, dt.timedelta, uuid.UUID, decimal.Decimal, pathlib.Path, Colour, Point,
    Tree, Config, Number, "typing.Literal['a', 1]", "typing.Annotated[int, 'words']",
]  # fmt: skip
UNKNOWN = [
    typing.Any, object, "Unknown", "list[Unknown]", "nonsense (", T, Likely, collections.abc.Sequence, "typing.Mapping[str, int]",
]  # fmt: skip
NEVER = [
    (Plain, "Plain"), ("list[Plain]", "Plain"), ("dict[str, Plain | None]", "Plain"), (Holder, "Plain"), (Pair, "Pair"),
    (complex, "complex"), (bytearray, "bytearray"), (dt.time, "time"), (io.BytesIO, "BytesIO"), (range, "range"),
    ("typing.Iterator[int]", "Iterator"), ("typing.Callable[[], int]", "Callable"), ("type[int]", "type"),
    (RemoteValue, "stays elsewhere"),
]  # fmt: skip


def returning(annotation):
    class Returns(RunnableTask):
        def run(self, context):
            return None

    Returns.run.__annotations__["return"] = annotation
    return Returns


@pytest.mark.parametrize("annotation", [*KEPT, *UNKNOWN], ids=str)
def test_of_what_can_be_kept_and_of_what_does_not_say_nothing_is_said(annotation):
    assert why_not_kept(returning(annotation)) is None


@pytest.mark.parametrize(("annotation", "words"), NEVER, ids=str)
def test_what_has_no_exact_form_is_named(annotation, words):
    assert words in why_not_kept(returning(annotation))


def test_a_task_without_an_annotation_and_one_made_of_a_function():
    class Bare(RunnableTask):
        def run(self, context):
            return Plain()

    @task
    async def kept(n: int) -> list[int]:
        return [n]

    @task
    def odd(n: int) -> Plain:
        return Plain()

    assert why_not_kept(Bare) is why_not_kept(kept) is None
    assert "Plain" in why_not_kept(odd)


ODD, FINE = returning(Plain), returning("list[int]")
ODD.__qualname__, FINE.__qualname__ = "Odd", "Fine"


def a_job(**fields):
    names = {"a": "Odd", "b": "Fine", "c": "Odd"}
    return JobDefinition(
        name="etl", tasks={name: TaskDefinition(task=of) for name, of in names.items()}, **fields
    )


async def warned(definition, **options):
    async with Server(watch=False, **options) as server:
        server.register_tasks("app", [ODD, FINE])
        found = await server.avalidate(definition)
        server.define(a_job())  # a warning refuses nothing
        assert (await server.run("etl")).succeeded
        return found


async def test_a_server_with_a_journal_warns_once_of_each_class():
    (found,) = await warned(a_job(), journal=MemoryJournal())
    assert found.is_warning
    assert found.path == "tasks.a.task"
    assert str(found).startswith(
        "tasks.a.task  warning: the journal cannot keep its results (Plain has no exact form)"
    )
    (located,) = await warned(a_job().dumps(), journal=MemoryJournal())
    assert (located.is_warning, located.line is not None) == (True, True)


async def test_nothing_is_said_where_nothing_is_to_be_kept():
    assert await warned(a_job()) == []
    assert await warned(a_job(), journal=MemoryJournal(), results="pickle") == []
    assert await warned(a_job(durability="none"), journal=MemoryJournal()) == []

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

from scattersphere import BundleLoadError, JobDefinition, RunnableTask, Server, TaskDefinition, task
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


JUDGED = """
from __future__ import annotations
import sys, threading
from typing import ClassVar
from scattersphere import RunnableTask

WHERE = []

class Meta(type):
    __hash__ = None
    def __subclasscheck__(cls, other): raise ValueError("asked")
    def __instancecheck__(cls, other): raise ValueError("asked")

class Unlike(metaclass=Meta):
    pass

class Asked:
    def __getattr__(self, name): raise RuntimeError(name)
    def __eq__(self, other): raise RuntimeError("compared")
    __hash__ = None

def seen():
    WHERE.append(threading.current_thread().name)
    return complex

def raised(error):
    raise error

def for_ever():
    while True:
        pass

class T(RunnableTask):
    where: ClassVar[list] = WHERE
    async def run(self, context) -> ANNOTATION:
        return 1
"""
ONE = JobDefinition(name="one", tasks={"a": TaskDefinition(task="judged.T")})


def judged(folder, annotation):
    (folder / "judged").mkdir(mode=0o755)
    (folder / "judged" / "__init__.py").write_text(JUDGED.replace("ANNOTATION", annotation))
    return folder / "judged"


async def test_the_results_of_a_version_are_judged_once_where_it_is_loaded(tmp_path):
    async with Server(watch=False, journal=MemoryJournal()) as server:
        await server.register(judged(tmp_path, "seen()"))
        for _ in range(2):
            (asked,), (told,) = await server.avalidate(ONE.dumps()), server.validate(ONE)
            assert asked.is_warning
            assert told.is_warning
        assert server.registry.find("judged.T").cls.where == ["scattersphere-loader"]


async def test_no_annotation_is_looked_at_where_there_is_no_journal(tmp_path):
    async with Server(watch=False) as server:
        await server.register(judged(tmp_path, "seen()"))
        assert await server.avalidate(ONE) == []
        assert server.registry.find("judged.T").cls.where == []


@pytest.mark.parametrize(
    "annotation",
    [
        "sys.exit(3)", "raised(KeyboardInterrupt)", "raised(GeneratorExit)", "raised(BaseException)", "Unlike",
        "list[Unlike]", "Asked()",
    ],
)  # fmt: skip
async def test_whatever_an_annotation_does_its_code_loads_and_validate_has_nothing_to_say(
    tmp_path, annotation
):
    async with Server(watch=False, journal=MemoryJournal()) as server:
        await server.register(judged(tmp_path, annotation))
        assert await server.avalidate(ONE.dumps()) == []
        assert (await server.run(server.define(ONE))).succeeded


async def test_an_annotation_that_never_ends_ends_with_the_time_for_loading(tmp_path):
    async with Server(watch=False, journal=MemoryJournal(), load_timeout=0.2) as server:
        with pytest.raises(BundleLoadError, match="not ready after"):
            await server.register(judged(tmp_path, "for_ever()"))


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), RuntimeError()], ids=repr)
async def test_a_class_of_the_host_is_judged_once_when_it_is_registered(error):
    asked = []

    class Meta(type):
        def __hash__(cls):
            asked.append(cls)
            raise error

    class Odd(metaclass=Meta):
        pass

    async with Server(watch=False, journal=MemoryJournal()) as server:
        server.register_tasks("app", [named := returning(Odd)])
        before = len(asked)
        of = TaskDefinition(task=named.__qualname__)
        definition = JobDefinition(name="one", tasks={"a": of})
        assert await server.avalidate(definition) == server.validate(definition) == []
        assert len(asked) == before > 0

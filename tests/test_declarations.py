"""Each usual way to write a class is honoured by a task, or refused where it stands."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import functools
import threading
import typing
import typing as ty
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, TypeVar
from typing import ClassVar as Shared

import attrs
import pytest
import typing_extensions as te  # noqa: TC002 - the annotation is read at run time

from scattersphere import RunnableTask, TaskDeclarationError
from scattersphere.definitions.annotations import make_structurer
from scattersphere.errors import BundleLoadError
from scattersphere.registry.classes import describe

T = TypeVar("T")


class Task(RunnableTask):
    def run(self, context): ...


def parameters(cls):
    return list(make_structurer().parameters(cls))


@attrs.define
class Options:
    seen: list = attrs.field(factory=list)


class Shares(Task):
    options: Options = Options()
    pairs: tuple = ([], [])
    queue: Any = collections.deque()  # noqa: RUF012
    given: Any = attrs.field(default=[])
    _state: Any = collections.OrderedDict()  # noqa: RUF012
    _root: Path = Path("/srv")
    _later: int


def test_no_attempt_sees_what_another_did_to_a_default():
    for _ in range(3):
        task = Shares()
        for thing in (task.options.seen, task.pairs[0], task.queue, task.given):
            assert not thing
            thing.append(1)
        assert not task._state
        task._state["k"] = 1


def test_the_underscore_is_the_rule_state_is_no_parameter():
    assert parameters(Shares) == ["options", "pairs", "queue", "given"]
    with pytest.raises(TypeError):
        Shares(root="/etc")
    assert Shares()._root == Path("/srv")

    class Both(Task):
        queue: Any = None
        _queue: Any = collections.deque()  # noqa: RUF012

    assert parameters(Both) == ["queue"]
    assert Both(queue=1)._queue == collections.deque()


def test_a_default_that_cannot_be_copied_is_refused():
    with pytest.raises(
        TaskDeclarationError, match=r"Locked\.lock: its default lock cannot be copied for each attempt"
    ):

        class Locked(Task):
            lock: Any = threading.Lock()


def test_class_variables_are_none_of_the_parameters_however_they_are_spelled():
    class Constants(Task):
        a: ClassVar[int] = 1
        b: typing.ClassVar = 2
        c: ty.ClassVar[int] = 3
        d: te.ClassVar[int] = 4
        e: Shared[int] = 5
        f: Annotated[ClassVar[int], "words"] = 6
        g: "ClassVar[int]" = 7  # noqa: UP037
        h: int = 8

    assert parameters(Constants) == ["h"]
    assert (Constants.a, Constants.c, Constants.e, Constants().f) == (1, 3, 5, 6)


class Mixin:
    """Not a task: what it declares belongs to the tasks that mix it in."""

    retries: int = 3
    when: dt.date
    tags: list[str] = []  # noqa: RUF012
    limit: ClassVar[int] = 9
    _cache: dict[str, int] = {}  # noqa: RUF012
    note = "no annotation"


class Named(Protocol):
    name: str


@dataclasses.dataclass
class Plain:
    size: int = 1
    parts: list[int] = dataclasses.field(default_factory=list)


@attrs.define
class Attrs:
    depth: int = 2
    inner: list[int] = attrs.field(factory=list)


def test_what_mixins_protocols_dataclasses_and_attrs_classes_declare_are_parameters_too():
    class Mixed(Mixin, Named, Plain, Attrs, Task):
        own: int = 0

    found = make_structurer().parameters(Mixed)
    assert sorted(found) == sorted(
        ["retries", "when", "tags", "name", "size", "parts", "depth", "inner", "own"]
    )
    assert found["when"].annotation is dt.date
    assert [name for name, parameter in found.items() if parameter.required] == ["name", "when"]
    one, two = (Mixed(name="n", when=None) for _ in range(2))
    for thing in (one.tags, one.parts, one.inner):
        thing.append(1)
    one._cache["k"] = 1
    assert [two.tags, two.parts, two.inner, two._cache] == [[], [], [], {}]

    class Below(Mixed):
        retries: int = 5

    assert Below(name="n", when=None).retries == 5


@dataclasses.dataclass(slots=True)
class Slotted:
    size: int = 1
    parts: list[int] = dataclasses.field(default_factory=list)
    seen: int = dataclasses.field(default=0, init=False)
    later: int = dataclasses.field(init=False)


def test_a_field_of_a_dataclass_says_in_a_task_what_it_says_there():
    """With slots its default stands in no attribute; `init=False` is state."""

    class Mixed(Slotted, Task):
        own: int = 0

    found = make_structurer().parameters(Mixed)
    assert {name: parameter.required for name, parameter in found.items()} == {
        "size": False,
        "parts": False,
        "own": False,
    }
    one = Mixed(size=3)
    one.parts.append(1)
    one.later = 7
    assert (one.size, one.seen, one.later, Mixed().size, Mixed().parts) == (3, 0, 7, 1, [])


def test_a_property_is_no_parameter_and_hides_none():
    class Cached(Task):
        n: int = 1

        @functools.cached_property  # noqa: TID251 - as users write it
        def twice(self):
            return 2 * self.n

    assert Cached(n=4).twice == 8
    assert parameters(Cached) == ["n"]


def test_a_generic_task_is_checked_by_what_it_is_of():
    class Gen(Task, Generic[T]):
        items: list[T]

    class Ints(Gen[int]):
        """Of whole numbers."""

    check = make_structurer().parameters(Ints)["items"].check
    assert check([1]) == []
    assert check(["a"]) == [("/0", 'must be a whole number, not the string "a"')]


def constructor(self):
    self.connection = "open"


@attrs.frozen
class Frozen:
    a: int = 1


@dataclasses.dataclass
class Post:
    a: int = 1

    def __post_init__(self): ...


@attrs.define
class OwnInit:
    a: int = 1

    def __init__(self):
        self.a = 5


@dataclasses.dataclass(init=False)
class NoInit:
    a: int = 1

    def __init__(self):
        self.a = 5


@dataclasses.dataclass
class Given:
    a: dataclasses.InitVar[int] = 1


class HasName:
    name = property(lambda self: "x")


class AndName:
    name: str = property(lambda self: "x")


class Pair(typing.NamedTuple):
    x: int


class Takes(Task):
    name: str


class Odd:
    def __set__(self, instance, value): ...


def one(namespace, *bases, hints=None):
    return lambda: type("X", bases or (Task,), {"__annotations__": hints or {}, **namespace})


REFUSED = [
    (one({}, OwnInit, Task), "its base OwnInit has an __init__, which would never be called"),
    (one({}, NoInit, Task), "its base NoInit has an __init__, which would never be called"),
    (
        one({"__post_init__": constructor}),
        r"X\.__post_init__: .* never be called: a task has __attrs_post_init__",
    ),
    (one({}, Given, Task), "X.a: in its base Given: a task has no InitVar"),
    (one({}, HasName, Takes), "X.name: a base has a property of that name"),
    (one({}, HasName, Task, hints={"name": str}), "X.name: a base has a property of that name"),
    (one({}, AndName, Task), "X.name: in its base AndName: it cannot be a parameter and a property"),
    (one({"n": Odd()}, hints={"n": int}), "X.n: it cannot be a parameter and a property"),
    (one({}, Pair, Task), "its base Pair is a value of its own; take one as a parameter"),
    (one({"a": dataclasses.field(default=1)}), r"annotate it to make it a parameter: a: \.\. = "),
    (one({"LIMIT": 3}), r"LIMIT: int = \.\.\., or a constant: LIMIT: ClassVar\[int\] = "),
    (one({"KINDS": frozenset({1})}), r"or a constant: KINDS: ClassVar\[frozenset\] = "),
    (one({}, hints={"self": int}), "X.self: a parameter may not be called self"),
    (lambda: type("X", (type("M", (), {"__init__": constructor}), Task), {}), "its base M has an __init__"),
    (lambda: type("X", (Frozen, Task), {}), "its base Frozen is frozen"),
    (lambda: type("X", (Post, Task), {}), "its base Post has a __post_init__ that would never be called"),
    (
        lambda: type("X", (Shares,), {"queue": property(lambda self: 2)}),
        "X.queue: it is a parameter of Shares",
    ),
    (lambda: type("X", (Shares,), {"queue": lambda self: 2}), "X.queue: it is a parameter of Shares"),
    (lambda: type("X", (Shares,), {"queue": 5}), "annotate it to make it a parameter: queue: int = ..."),
    (
        lambda: type("X", (Task,), {"__annotations__": {"a": Final}, "a": 3}),
        r'write "a: ClassVar\[..\] = 3" for a constant, leave Final out for a parameter',
    ),
    (
        lambda: type("X", (Task,), {"__annotations__": {"a": dataclasses.InitVar[int]}}),
        "a task has no InitVar: take it as a parameter",
    ),
    (
        lambda: type("X", (Task,), {"__annotations__": {"a": int}, "a": dataclasses.field(default=1)}),
        r"write a: .. = attrs.field\(..\), not dataclasses.field",
    ),
    (lambda: attrs.define(type("X", (Task,), {"__annotations__": {"a": int}})), "leave @attrs.define out"),
    (lambda: type("X", (Task,), {"a": attrs.field(default=1)}), "annotate what is a parameter"),
    (
        lambda: type("X", (Task,), {"__init__": constructor}),
        "declare parameters as annotated attributes instead",
    ),
]


@pytest.mark.parametrize(("declare", "words"), REFUSED)
def test_what_would_change_its_meaning_in_silence_is_refused_where_it_stands(declare, words):
    with pytest.raises(TaskDeclarationError, match=words):
        declare()


@pytest.mark.parametrize(
    ("decorate", "words"),
    [
        (dataclasses.dataclass, "Decorated: a task is a class with fields already: leave @dataclass out"),
        (attrs.define(slots=False), "Decorated: a task is an attrs class already: leave @attrs.define out"),
        (attrs.frozen(slots=False), "Decorated: a task is an attrs class already: leave @attrs.define out"),
    ],
)
def test_a_decorator_that_makes_another_constructor_is_refused_when_the_class_is_registered(decorate, words):
    class Decorated(Task):
        a: int = 1

    with pytest.raises((TaskDeclarationError, BundleLoadError), match=words):
        describe(decorate(Decorated), make_structurer())


def takes_one(self, context, name: str): ...


def takes_two(self, name: list[str], size): ...


def takes_by_name(self, context, *, size): ...


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (takes_one, r"takes name too: .* attributes of the class \(name: str\), and read self\.name"),
        (takes_two, r"takes name, size too: .* \(name: list\[str\]\)"),
        (takes_by_name, r"takes size too: .* \(size: \.\.\)"),
    ],
)
def test_a_run_that_would_be_handed_what_it_does_not_get_is_refused_where_it_stands(run, words):
    with pytest.raises(
        TaskDeclarationError, match=rf"X\.run: it is handed nothing but the context, and {words}"
    ):
        type("X", (RunnableTask,), {"run": run})


def more(self, context, tries=3, *rest, size=1, **others): ...


def whatever(*args, **kwargs): ...


def called_otherwise(self, ctx): ...


@pytest.mark.parametrize("run", [more, whatever, called_otherwise])
def test_a_run_may_take_more_that_it_need_not_be_given(run):
    assert issubclass(type("X", (RunnableTask,), {"run": run}), RunnableTask)


def test_a_model_of_pydantic_is_no_mixin():
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", x=(int, 1))
    with pytest.raises(TaskDeclarationError, match="is a pydantic model; take one as a parameter instead"):
        type("X", (model, Task), {})

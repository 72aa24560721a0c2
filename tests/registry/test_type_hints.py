"""`get_type_hints` gives each version, and each bundle, its own classes, whenever and by whomever it is called."""

from __future__ import annotations

import typing

import anyio
import anyio.to_thread
import pytest

pytestmark = pytest.mark.anyio

CODE = """
from __future__ import annotations
import functools, inspect, typing
from scattersphere.runnable import RunnableTask
class Item:
    v = {v!r}
def handle(x: typing.Optional["Item"], y: "list[Item]" = ()) -> typing.Dict[str, "Item"]: ...
class Row(typing.NamedTuple):
    item: typing.Optional["Item"]
class Job(RunnableTask):
    def run(self, context):
        hints = typing.get_type_hints(handle)
        found = hints["x"].__args__[0], hints["y"].__args__[0], hints["return"].__args__[1]
        row = typing.get_type_hints(Row)["item"].__args__[0]
        return {{cls.v for cls in (*found, row)}}, all(isinstance(Item(), cls) for cls in (*found, row))
"""


async def versions(registry, tmp_path):
    found = {}
    for name in ("a", "b"):
        for number in (1, 2):
            value = f"{name}{number}"
            (tmp_path / f"{name}.py").write_text(CODE.format(v=value))
            bundle = await (
                registry.register(tmp_path / f"{name}.py") if number == 1 else registry.reload(name)
            )
            registry.pin(number, [bundle.current])
            found[value] = bundle.current
    return found


@pytest.mark.parametrize("order", [["a1", "a2", "b1", "b2"], ["b2", "a2", "b1", "a1", "b2"]])
async def test_a_function_is_given_the_classes_of_its_own_version(registry, tmp_path, order):
    found = await versions(registry, tmp_path)
    for value in order:
        (task,) = found[value].tasks.values()
        assert task.cls().run(None) == ({value}, True)


async def test_the_host_is_given_them_too(registry, tmp_path):
    found = await versions(registry, tmp_path)
    for value, version in found.items():
        handle = version.namespace.module(value[0]).handle
        assert typing.get_type_hints(handle)["x"].__args__[0].v == value


async def test_under_many_threads_none_gets_the_class_of_another(registry, tmp_path):
    found = await versions(registry, tmp_path)
    wrong = []

    async def look(value):
        (task,) = found[value].tasks.values()
        for _ in range(50):
            result = await anyio.to_thread.run_sync(task.cls().run, None)
            wrong.extend([result] * (result != ({value}, True)))

    async with anyio.create_task_group() as group:
        for value in found:
            for _ in range(4):
                group.start_soon(look, value)
    assert wrong == []


async def test_typing_is_left_as_it_is_when_the_last_version_is_gone(registry, tmp_path):
    memory = vars(typing.ForwardRef)["__forward_value__"]
    await versions(registry, tmp_path)
    await registry.aclose()
    assert vars(typing.ForwardRef)["__forward_value__"] is memory or not isinstance(memory, property)


def test_references_evaluate_equal_and_print_as_ever_while_versions_are_there():
    reference = typing.ForwardRef("int")
    assert typing.get_type_hints(_annotated)["x"] == typing.Union[int, None]  # noqa: UP007
    assert reference == typing.ForwardRef("int")
    assert repr(reference) == "ForwardRef('int')"


def _annotated(x: typing.Optional["int"]) -> None: ...  # noqa: UP037, UP045

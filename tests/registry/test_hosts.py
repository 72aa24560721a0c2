"""What a host may hand in wrongly is answered in words."""

from __future__ import annotations

import abc

import pytest

from scattersphere.errors import BundleRefusedError, TaskDeclarationError
from scattersphere.runnable import RunnableTask

pytestmark = pytest.mark.anyio


class Greet(RunnableTask):
    def run(self, context): ...


class Abstract(RunnableTask):
    @abc.abstractmethod
    def more(self): ...


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([int], "int is no task class: derive it from RunnableTask"),
        ([Greet()], "an object of the class Greet is no class; pass the class Greet itself"),
        (["Greet"], r"str \('Greet'\) is no class"),
        (Greet, r"put the class in a list: \[Greet\]"),
        ("Greet", r"a list of task classes, not str \('Greet'\)"),
        (5, r"a list of task classes, not int \(5\)"),
        (None, "a list of task classes, not NoneType"),
        ([RunnableTask], "RunnableTask is abstract"),
        ([Abstract], "Abstract is abstract"),
    ],
)
async def test_what_is_no_task_class_is_named_and_nothing_is_registered(registry, classes, said):
    with pytest.raises(TaskDeclarationError, match=said):
        registry.register_tasks("app", classes)
    assert not registry.bundles


@pytest.mark.parametrize("path", [5, None, b"etl.py", ["etl.py"], Greet])
async def test_a_path_of_a_wrong_type_is_a_type_error_in_words(registry, path):
    with pytest.raises(TypeError, match=r"the path of a bundle is a str or an os\.PathLike, not "):
        await registry.register(path)


@pytest.mark.parametrize("path", ["", "etl\0.py"])
async def test_a_path_that_is_none_is_refused(registry, path):
    with pytest.raises(BundleRefusedError, match="is no path of a bundle"):
        await registry.register(path)


async def test_a_name_of_a_wrong_type_is_a_type_error_in_words(registry, tmp_path):
    with pytest.raises(TypeError, match="the name of a bundle is a str, not int"):
        await registry.register(tmp_path, name=5)
    with pytest.raises(TypeError, match="the name of a bundle is a str, not int"):
        registry.register_tasks(5, [Greet])

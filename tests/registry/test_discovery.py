"""Which classes are tasks, and which modules would have defined one."""

from __future__ import annotations

import sys
import types

import pytest

from scattersphere.registry.load import defines_task, task_base_names, task_classes

SOURCE = """
import abc
import attrs
from dataclasses import dataclass
from scattersphere.runnable import RunnableTask
from scattersphere.runnable import RunnableTask as Renamed

class Base(RunnableTask):
    day: str

class Concrete(Base):
    def run(self, context): ...
    class Nested(Base):
        def run(self, context): ...

Alias = Concrete

class Plain:
    class Inner(RunnableTask):
        def run(self, context): ...

def make():
    class Local(RunnableTask):
        def run(self, context): ...
    return Local

Made = make()

class Elsewhere(RunnableTask):
    __module__ = "other"
    def run(self, context): ...
"""


@pytest.fixture
def module(monkeypatch):
    module = types.ModuleType("discovered")
    monkeypatch.setitem(sys.modules, "discovered", module)
    exec(SOURCE, vars(module))
    return module


def test_concrete_classes_are_found_once_by_their_qualified_name(module):
    assert dict(task_classes(module, "etl.main")) == {
        "etl.main.Concrete": module.Concrete,
        "etl.main.Concrete.Nested": module.Concrete.Nested,
        "etl.main.Plain.Inner": module.Plain.Inner,
    }


def test_names_of_bases_include_abstract_classes(module):
    assert task_base_names([module]) == {"RunnableTask", "Base", "Concrete", "Nested", "Inner"}


@pytest.mark.parametrize(
    ("source", "defines"),
    [
        ("class A(RunnableTask): ...", True),
        ("class A(scattersphere.RunnableTask): ...", True),
        ("from x import Base as B\nclass A(B): ...", True),
        ("class A(Base[int]): ...", True),
        ("if True:\n    class A(Base): ...", True),
        ("class A(Other): ...", False),
        ("import RunnableTask", False),
        ("def broken(:", True),
    ],
)
def test_a_module_that_failed_is_judged_by_its_text(source, defines):
    assert defines_task(source.encode(), frozenset({"RunnableTask", "Base"})) is defines

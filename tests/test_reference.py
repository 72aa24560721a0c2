"""The reference is complete: what the code has, the pages have."""

from __future__ import annotations

import importlib
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scattersphere.errors
import scattersphere.tasks
from scattersphere import (
    EventKind,
    JobDefinition,
    Parameter,
    RetryPolicy,
    RunState,
    TaskDefinition,
    TaskState,
    TriggerRule,
)
from scattersphere.commands.errors import CODES
from scattersphere.commands.table import COMMANDS
from scattersphere.definitions import adapters, annotations
from scattersphere.model.fields import rows
from scattersphere.model.forms import COMMENT
from scattersphere.model.schedules import ScheduleDefinition

DOCS = Path(__file__).parents[1] / "docs"
Extension = Callable[[str], dict[str, Any]]


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Extension:
    """Return what makes a directive of the documentation; the test is skipped without the group `docs`."""
    pytest.importorskip("docutils")
    monkeypatch.syspath_prepend(DOCS / "_ext")  # as docs/conf.py does
    return lambda name: runpy.run_path(str(DOCS / "_ext" / f"{name}.py"))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def missing(words: list[str], text: str) -> list[str]:
    """Return the words that the text never shows as code."""
    return [word for word in words if not re.search(rf'[`"]{re.escape(word)}\b', text)]


@pytest.mark.parametrize("cls", [JobDefinition, TaskDefinition, RetryPolicy, Parameter, ScheduleDefinition])
def test_each_key_of_a_definition_file_is_explained_by_its_row(cls: type, extension: Extension) -> None:
    assert f"```{{fields}} {cls.__name__}\n" in page("reference/definition.md")
    table = extension("fields")["rows"](cls)
    assert [key for key, *_ in table] == [key for key in rows(cls) if key != COMMENT]
    assert all(all(row) for row in table)


def test_the_table_of_annotations_is_made_from_the_code_and_its_examples_are_right(
    extension: Extension,
) -> None:
    assert "```{annotations}\n" in page("reference/definition.md")
    ext = extension("annotations")
    structurer = annotations.make_structurer()
    shown = [annotation for _, annotation, _ in ext["SHOWN"]]
    for written, annotation, example in ext["SHOWN"]:
        faults: list[tuple[str, str]] = []
        structurer.adapter(annotation).check(example, "", faults)
        assert (not faults) == structurer.adapter(annotation).has_json, written
    assert set(adapters.SIMPLE) <= set(shown)
    assert all(all(row) for row in ext["rows"]())


def test_each_rule_is_explained() -> None:
    text = page("reference/definition.md") + page("reference/lifecycle.md")
    assert missing([str(rule) for rule in TriggerRule], text) == []


def test_each_kind_of_event_is_explained() -> None:
    assert missing([str(kind) for kind in EventKind], page("reference/events.md")) == []


def test_each_state_is_explained() -> None:
    text = page("reference/lifecycle.md")
    assert missing([str(state) for state in (*RunState, *TaskState)], text) == []


def test_the_table_of_commands_is_made_from_that_of_the_protocol(extension: Extension) -> None:
    assert "```{commands}" in page("reference/protocol.md")
    assert [row[0].split()[0] for row in extension("commands")["rows"]()] == list(COMMANDS)


def test_each_code_of_an_error_is_listed() -> None:
    codes = {
        error.code
        for error in vars(scattersphere.errors).values()
        if isinstance(error, type) and issubclass(error, scattersphere.ScattersphereError)
    }
    assert codes <= CODES
    assert missing(sorted(CODES), page("reference/protocol.md")) == []


def test_each_stock_task_is_explained() -> None:
    text = page("reference/stock-tasks.md")
    assert all(f"scattersphere.tasks.{task.__name__}\n" in text for task in scattersphere.tasks.ALL)


@pytest.mark.parametrize("package", ["abc", "worker"])
def test_each_port_has_a_docstring_and_a_place_in_the_reference(package):
    module = importlib.import_module(f"scattersphere.{package}")
    page = (DOCS / "reference" / "ports.md").read_text()
    for name in module.__all__:
        assert f"scattersphere.{package}.{name}\n" in page, f"docs/reference/ports.md lacks {name}"
        assert getattr(module, name).__doc__, f"{name} has no docstring"

"""Bundles and task classes as people read them: a line for each, and mappings that show such lines in a REPL."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scattersphere.model.taskclass import TaskClass, TaskParameter
    from scattersphere.registry.records import Bundle

ROWS = 50
"""Lines of a mapping that its `repr` shows."""


def parameter_words(parameter: TaskParameter) -> str:
    """Return a parameter as its author writes it: `retries: int = 3`."""
    words = f"{parameter.name}: {parameter.type_name}"
    return words if parameter.required else f"{words} = {_short(parameter.default)}"


def task_words(path: str, task: TaskClass) -> str:
    """Return a task class in one line: how it is called, where it runs, what it says of itself."""
    parameters = ", ".join(map(parameter_words, task.parameters.values()))
    # A class that is listed as `bundle:path` says there where it comes from.
    origin = "" if path.startswith(f"{task.bundle}:") else f"  [{task.bundle}]"
    return f"{path}({parameters}){origin}" + (f"  {task.summary}" if task.summary else "")


def bundle_words(bundle: Bundle) -> list[str]:
    """Return a bundle in a few lines: its current version first, then older ones, then what is wrong."""
    count = len(bundle.tasks)
    tasks = f"{count} task{'' if count == 1 else 's'}"
    current = bundle.current
    head = [
        f"{bundle.name:12}",
        f"{current.label if current else 'nothing loaded':20}",
        f"{tasks:9}",
        str(bundle.path or "classes of the host"),
    ]
    if bundle.loaded_at is not None:
        head.append(f"loaded {bundle.loaded_at:%Y-%m-%d %H:%M:%S} UTC")
    lines = ["  ".join(head)]
    for version, runs in bundle.versions.items():
        held = ", ".join(map(str, sorted(runs))) or "none"
        lines.append(f"{'':12}  {version.label:20}  held by runs {held}")
    if bundle.error is not None:
        lines.append(f"{'':12}  error: {bundle.error.partition(chr(10))[0]}")
    return lines + [f"{'':12}  warning: {warning}" for warning in bundle.warnings]


class BundleListing(Mapping[str, "Bundle"]):
    """The bundles by name: read-only, always up to date, readable in a REPL."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self._bundles = bundles

    def __getitem__(self, name: str) -> Bundle:
        return self._bundles[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundles)

    def __len__(self) -> int:
        return len(self._bundles)

    def __repr__(self) -> str:
        blocks = ["\n".join(bundle_words(bundle)) for bundle in list(self._bundles.values())]
        return rows(blocks, "bundle")


def rows(lines: list[str], what: str) -> str:
    """Return the first lines, and how many more there are; where there are none, so much."""
    if not lines:
        return f"<no {what}s>"
    more = len(lines) - ROWS
    return "\n".join([*lines[:ROWS], f"... and {more} more"] if more > 0 else lines)


def _short(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except BaseException:  # noqa: BLE001 - a default may be an object of the user's, and its repr do anything
        return f"<{type(value).__qualname__}>"

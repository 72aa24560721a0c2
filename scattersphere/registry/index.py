"""Index of task classes by path, over all bundles. Pure."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

from scattersphere._mapping import LiveMapping
from scattersphere._text import did_you_mean
from scattersphere.errors import AmbiguousTaskError, NoSuchTaskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.model.taskclass import TaskClass, TaskParameter


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


def rows(lines: list[str], what: str) -> str:
    """Return the first lines, and how many more there are; where there are none, so much."""
    if not lines:
        return f"<no {what}s>"
    more = len(lines) - ROWS
    return "\n".join([*lines[:ROWS], f"... and {more} more"] if more > 0 else lines)


def _short(value: object) -> str:
    try:
        return reprlib.repr(value)
    except BaseException:  # noqa: BLE001 - a default may be an object of the user's, and its repr do anything
        return f"<{type(value).__qualname__}>"


SHOWN = 200
"""Characters of a name that a message quotes."""


class TaskIndex(LiveMapping[str, "TaskClass"]):
    """The current task classes: by path, or by `bundle:path` where two bundles hold the path."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[str, TaskClass]] = {}
        self._by_bundle: dict[str, Mapping[str, TaskClass]] = {}
        self.shown: dict[str, TaskClass] = {}
        """What the mapping holds."""

    def __getitem__(self, key: str) -> TaskClass:
        return self.shown[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.shown))

    def __len__(self) -> int:
        return len(self.shown)

    def __repr__(self) -> str:
        return rows([task_words(path, task) for path, task in sorted(self.shown.items())], "task")

    def replace(self, bundle: str, tasks: Mapping[str, TaskClass]) -> None:
        """Let `tasks` be all that `bundle` holds, in one step; an empty mapping removes the bundle."""
        old = self._by_bundle.pop(bundle, {})
        if tasks:
            self._by_bundle[bundle] = dict(tasks)
        for path in dict.fromkeys((*old, *tasks)):
            self._show(path, bundle, tasks.get(path))

    def _show(self, path: str, bundle: str, task: TaskClass | None) -> None:
        holders = self._by_path.setdefault(path, {})
        for holder in holders:
            self.shown.pop(f"{holder}:{path}", None)
        self.shown.pop(path, None)
        if task is None:
            holders.pop(bundle, None)
        else:
            holders[bundle] = task
        if len(holders) == 1:
            self.shown[path] = next(iter(holders.values()))
        else:
            self.shown.update({f"{holder}:{path}": found for holder, found in holders.items()})
        if not holders:
            del self._by_path[path]

    def known(self, path: str, bundle: str | None) -> TaskClass | None:
        """Return the one class that is meant, or None, without a word about what was meant instead."""
        if bundle is None:
            bundle, colon, rest = path.partition(":")
            if not colon:
                holders = self._by_path.get(path, {})
                return next(iter(holders.values())) if len(holders) == 1 else None
            path = rest
        return self._by_bundle.get(bundle, {}).get(path)

    def find(self, path: str) -> TaskClass:
        """Return the class with a bare path; NoSuchTaskError suggests, AmbiguousTaskError names both."""
        holders = self._by_path.get(path)
        if holders is None:
            hint = did_you_mean(path, self._by_path)
            raise NoSuchTaskError(f'no task "{path[:SHOWN]}" in any bundle{hint}')
        if len(holders) > 1:
            names = " and ".join(f'"{holder}:{path}"' for holder in sorted(holders))
            raise AmbiguousTaskError(f'"{path}" is in {len(holders)} bundles: write {names}')
        return next(iter(holders.values()))

    def find_in(self, bundle: str, path: str, label: str) -> TaskClass:
        """Return the class with this path in `bundle`, whose current version is called `label`."""
        tasks = self._by_bundle.get(bundle, {})
        if path not in tasks:
            hint = did_you_mean(path, tasks)
            raise NoSuchTaskError(f'no task "{path[:SHOWN]}" in bundle {label}{hint}')
        return tasks[path]

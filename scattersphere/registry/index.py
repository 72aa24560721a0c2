"""Task classes by path, over all bundles. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from scattersphere.errors import AmbiguousTaskError, NoSuchTaskError
from scattersphere.registry.listing import rows, task_words

if TYPE_CHECKING:
    from scattersphere.model.taskclass import TaskClass

SHOWN = 200
"""Characters of a name that a message quotes."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean "..."?` with the nearest of `names`, or ""."""
    near = difflib.get_close_matches(str(name)[:SHOWN], list(names), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


class TaskIndex(Mapping[str, "TaskClass"]):
    """The current task classes: by path, or by `bundle:path` where two bundles hold the path."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[str, TaskClass]] = {}
        self._by_bundle: dict[str, Mapping[str, TaskClass]] = {}
        self._shown: dict[str, TaskClass] = {}

    def __getitem__(self, key: str) -> TaskClass:
        return self._shown[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)

    def __repr__(self) -> str:
        return rows([task_words(path, task) for path, task in sorted(self._shown.items())], "task")

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
            self._shown.pop(f"{holder}:{path}", None)
        self._shown.pop(path, None)
        if task is None:
            holders.pop(bundle, None)
        else:
            holders[bundle] = task
        if len(holders) == 1:
            self._shown[path] = next(iter(holders.values()))
        else:
            self._shown.update({f"{holder}:{path}": found for holder, found in holders.items()})
        if not holders:
            del self._by_path[path]

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

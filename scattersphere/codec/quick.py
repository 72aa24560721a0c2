"""The usual task, read and found right in a microsecond or two.

`structure.py` says with cattrs what a definition may hold, and `crossrefs.py` what its names may mean, both
with words for what is wrong. That costs more than reading the text did. Nearly all tasks of a large
file are right and plain: those are recognised here, by one look at each value, and the JSON object
itself becomes the instance's `__dict__`. Everything else, odd or wrong, is left to those two;
a property keeps all three in agreement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.model.definition import NAME, RetryPolicy, TaskDefinition
from scattersphere.model.references import references

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

_TEXT, _NULL = frozenset({str}), type(None)
_NUMBER = frozenset({int, float})
_USUAL: dict[str, frozenset[type]] = {
    "task": _TEXT,
    "bundle": frozenset({str, _NULL}),
    "description": _TEXT,
    "args": frozenset({dict}),
    "depends_on": frozenset({list}),
    "retry": frozenset({dict}),
    "pool": frozenset({str, _NULL}),
    "priority": frozenset({int}),
    "backend": frozenset({str, _NULL}),
    "allow_failure": frozenset({bool}),
    "keep_results": frozenset({bool}),
}
"""What a usual task may hold: with these alone it has no map, no condition and no rule of its own."""
_RETRY: dict[str, tuple[frozenset[type], float]] = {
    "max_attempts": (frozenset({int}), 1),
    "delay": (_NUMBER, 0),
    "backoff": (_NUMBER, 1),
    "max_delay": (_NUMBER, 0),
    "jitter": (frozenset({bool}), False),
}
"""What a policy may hold, and the least of each."""
_CONTAINERS = frozenset({dict, list})
# The classes are frozen: an instance gets its attributes before anybody sees it.
_give = object.__setattr__


@attrs.define
class Quick:
    """The tasks of a job that could be read quickly.

    `tasks` has None for those that could not; `after` the upstreams of the others. All in the file's order.
    """

    tasks: dict[str, TaskDefinition | None] = attrs.field(factory=dict)
    after: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    below: list[str] = attrs.field(factory=list)
    """Tasks that are right but for what they wait for: it may stand below them, or not at all."""
    closer: list[str] = attrs.field(factory=list)
    """Tasks that are not read or have odd names: look closely."""


def read_usual(items: Mapping[str, Any], params: Container[str]) -> Quick:
    """Read the usual ones among the JSON objects of tasks; their objects belong to them from then on.

    The others stay as they are.
    """
    found = Quick()
    tasks, after, closer, below = found.tasks, found.after, found.closer, found.below
    above: set[str] = set()
    stand_above, is_name = above.issuperset, NAME.fullmatch
    for name, item in items.items():
        tasks[name] = None
        try:
            for key, value in item.items():
                if type(value) not in _USUAL[key]:
                    break
            else:
                after[name] = waits = _waits(item, params)
                task = _take(item)
                tasks[name] = task
                if not is_name(name):
                    closer.append(name)
                # Without duplicates, and all of them above: they exist, and there is no cycle.
                elif waits and not (
                    stand_above(waits) and (len(waits) == 1 or len(set(waits)) == len(waits))
                ):
                    below.append(name)
                above.add(name)
                continue
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        closer.append(name)
    return found


def _waits(item: dict[str, Any], params: Container[str]) -> tuple[str, ...]:
    """Return the upstreams of a task. Raises one of several errors where its arguments are unusual."""
    waits = tuple(item.get("depends_on", ()))
    if waits:
        "".join(waits)  # the quickest way to see that all are strings
    if not item["task"]:
        raise ValueError
    implied: list[str] | None = None
    for key, value in item.get("args", {}).items():
        if type(value) in _CONTAINERS:
            if len(value) == 1 and type(value) is dict:
                ((kind, name),) = value.items()
                if kind == "$param" and type(name) is str and name in params:
                    continue
                if kind == "$result" and type(name) is str:
                    implied = [*(implied or ()), name]
                    continue
            for _ in references(value):
                raise ValueError
        if key[:1] == "$" or key == "//":
            raise ValueError
    return waits if implied is None else tuple(dict.fromkeys((*waits, *implied)))


def _take(item: dict[str, Any]) -> TaskDefinition:
    """Make a task of an object that was found right but for its policy, which is looked at first."""
    retry = item.get("retry")
    if retry is not None:
        for key, value in retry.items():
            types, least = _RETRY[key]
            if type(value) not in types or value < least:
                raise ValueError
        policy = RetryPolicy.__new__(RetryPolicy)
        _give(policy, "__dict__", retry)
        item["retry"] = policy
    if "depends_on" in item:
        item["depends_on"] = tuple(item["depends_on"])
    task = TaskDefinition.__new__(TaskDefinition)
    _give(task, "__dict__", item)
    return task


def with_bundle(task: TaskDefinition, path: str, bundle: str) -> TaskDefinition:
    """Return a copy that names its bundle: `evolve`, without making every field anew."""
    copy = TaskDefinition.__new__(TaskDefinition)
    _give(copy, "__dict__", {**vars(task), "task": path, "bundle": bundle})
    return copy

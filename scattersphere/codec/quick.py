"""The usual task, read and found right in a microsecond or two.

`structure.py` says with cattrs what a definition may hold, and `crossrefs.py` what its names may mean, both
with words for what is wrong. That costs more than reading the text did. Nearly all tasks of a large
file are right and plain: those are recognised here, by one look at each value, and the JSON object
itself becomes the instance's `__dict__`. Everything else, odd or wrong, is left to those two;
a property keeps all three in agreement.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.codec.limits import DEPTH
from scattersphere.codec.text import count_keys
from scattersphere.model.definition import NAME, NAME_CHARACTERS, RetryPolicy, TaskDefinition
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
_ARGUMENT_DEPTH = DEPTH - 4
"""How deep an argument may be: it stands in the objects of the job, of its tasks, of a task and of its arguments."""
_NAMES = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*\n)*")
"""Names as `NAME` has them, of any length, each with a line break."""
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
    unread: list[str] = attrs.field(factory=list)
    keys: int = 0
    """Keys of the objects of those that were read, and of all objects inside them."""


def read_usual(items: Mapping[str, Any], params: Container[str]) -> Quick:
    """Read the usual ones among the JSON objects of tasks; their objects belong to them from then on.

    The others stay as they are.
    """
    found = Quick()
    tasks, after, closer, below, keys = found.tasks, found.after, found.closer, found.below, 0
    above, plain = set[str](), set[str]()
    make, all_named = object.__new__, _all_named(items)
    for name, item in items.items():
        try:
            count, waits = _prepare(item, params, plain)
        except (AttributeError, KeyError, TypeError, ValueError):
            tasks[name] = None
            closer.append(name)
            found.unread.append(name)
            continue
        keys += count
        after[name] = waits
        tasks[name] = task = make(TaskDefinition)
        _give(task, "__dict__", item)
        if not (all_named or NAME.fullmatch(name)):
            closer.append(name)
        elif waits:
            different = set(waits)
            # Without duplicates, and all of them above: they exist, and there is no cycle.
            if len(different) != len(waits) or not different <= above:
                below.append(name)
        above.add(name)
    found.keys = keys
    return found


def _prepare(item: dict[str, Any], params: Container[str], plain: set[str]) -> tuple[int, tuple[str, ...]]:
    """Make a usual task's object what its instance holds; return the keys it had, and its upstreams.

    Raises one of several errors where it is unusual, and leaves it as it was.
    """
    count, implied = len(item), None
    for key, value in item.items():
        if type(value) not in _USUAL[key]:
            raise ValueError(key)
    if not item["task"]:
        raise ValueError(item)
    waits = tuple(item.get("depends_on", ()))
    if waits:
        "".join(waits)  # the quickest way to see that all are strings
    if "args" in item:
        inside, implied = _look_into(item["args"], params, plain)
        count += inside
    if "retry" in item:
        count += len(item["retry"])
        item["retry"] = _policy(item["retry"])
    if "depends_on" in item:
        item["depends_on"] = waits
    return count, waits if implied is None else tuple(dict.fromkeys((*waits, *implied)))


def _all_named(items: Mapping[str, Any]) -> bool:
    """Whether all names are names: to ask that of one text is quicker than of many."""
    return (
        _NAMES.fullmatch("\n".join([*items, ""])) is not None
        and max(map(len, items), default=0) <= NAME_CHARACTERS
    )


def _look_into(args: dict[str, Any], params: Container[str], plain: set[str]) -> tuple[int, list[str] | None]:
    """Return the number of keys of usual arguments, and the tasks whose results they are.

    Raises one of several errors where they are unusual. `plain` collects keys that arguments may have.
    """
    keys, implied = len(args), None
    for key, value in args.items():
        if key not in plain:
            if key[:1] == "$" or key == "//":
                raise ValueError(key)
            plain.add(key)
        if type(value) in _CONTAINERS:
            if len(value) == 1 and type(value) is dict:
                ((kind, name),) = value.items()
                keys += 1
                if kind == "$param" and type(name) is str and name in params:
                    continue
                if kind == "$result" and type(name) is str:
                    implied = [*(implied or ()), name]
                    continue
                keys -= 1
            for _ in references(value):
                raise ValueError(key)
            inside = count_keys(value, _ARGUMENT_DEPTH)
            if inside is None:
                raise ValueError(key)
            keys += inside
    return keys, implied


def _policy(retry: dict[str, Any]) -> RetryPolicy:
    """Make a policy of an object. Raises KeyError, TypeError or ValueError where it is no usual one."""
    for key, value in retry.items():
        types, least = _RETRY[key]
        if type(value) not in types or value < least:
            raise ValueError(key)
    policy = object.__new__(RetryPolicy)
    _give(policy, "__dict__", retry)
    return policy


def with_bundle(task: TaskDefinition, path: str, bundle: str) -> TaskDefinition:
    """Return a copy that names its bundle: `evolve`, without making every field anew."""
    copy = TaskDefinition.__new__(TaskDefinition)
    _give(copy, "__dict__", {**vars(task), "task": path, "bundle": bundle})
    return copy

"""Usual tasks, read together where they are alike.

Nearly all tasks of a large file are right and plain, and many have the same keys. Those are looked at together,
key by key: what `map` and `set` do with a thousand values costs a third of a loop over them. Where one among
them is unusual they are parted, until it stands alone.
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import chain, repeat
from marshal import dumps
from operator import itemgetter, setitem
from typing import TYPE_CHECKING, Any

from scattersphere.codec.limits import DEPTH
from scattersphere.codec.text import count_keys
from scattersphere.model.definition import RetryPolicy, TaskDefinition
from scattersphere.model.references import references

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

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
_NEVER: tuple[frozenset[type], float] = (frozenset(), 0)
_CONTAINERS = frozenset({dict, list})
_ARGUMENT_DEPTH = DEPTH - 4
"""How deep an argument may be: it stands in the objects of the job, of its tasks, of a task and of its arguments."""
_PARTS = 16
"""Into how many parts tasks are parted among which something is unusual."""
_BLOCK = 1024
"""How many are looked at together: of more, little would be left in the processor's cache from key to key."""
_NOTHING: tuple[str, ...] = ()
_MARSHAL = 2
"""The last version of that format in which a text tells nothing of who else holds its parts."""
# The classes are frozen: an instance gets its attributes before anybody sees it. The slot of `__dict__` is set
# by itself: that is what `object.__setattr__` would come to, after a search through the class.
_give_task: Callable[[TaskDefinition, dict[str, Any]], None] = vars(TaskDefinition)["__dict__"].__set__
_give_policy: Callable[[RetryPolicy, dict[str, Any]], None] = vars(RetryPolicy)["__dict__"].__set__


class Alike:
    """The usual ones among the JSON objects of tasks; their objects belong to them from then on.

    `tasks` has None for those that are not, whose objects stay as they are, and `unread` their places.
    """

    def __init__(self, items: list[Any], params: Container[str]) -> None:
        self._items = items
        self._params = params
        self._plain: set[str] = set()
        self._policies: dict[bytes, RetryPolicy] = {}
        self.tasks: list[TaskDefinition | None] = [None] * len(items)
        self.waits: list[tuple[str, ...]] = [()] * len(items)
        """For each task what it waits for: the tasks declared, then those whose results are arguments."""
        self.unread: list[int] = []
        self.keys: int = 0
        """Keys of the objects of those that were read, and of all objects inside them."""
        rows: Sequence[int] = range(len(items))
        if set(map(type, items)) != {dict}:
            self.unread += [row for row in rows if type(items[row]) is not dict]
            rows = [row for row in rows if type(items[row]) is dict]
        for keys, some in _by_keys(items, rows).items():
            if not ("task" in keys and _USUAL.keys() >= set(keys)):
                self.unread += some
                continue
            for start in range(0, len(some), _BLOCK):
                self._read(keys, some[start : start + _BLOCK])

    def _read(self, keys: tuple[str, ...], rows: Sequence[int]) -> None:
        """Read tasks that have the same keys."""
        items = _chosen(self._items, rows)
        try:
            self._read_all(keys, rows, items)
        except (TypeError, ValueError):
            if len(rows) == 1:
                self.unread += rows
                return
            step = -(-len(rows) // _PARTS)
            for start in range(0, len(rows), step):
                self._read(keys, rows[start : start + step])

    def _read_all(self, keys: tuple[str, ...], rows: Sequence[int], items: Sequence[dict[str, Any]]) -> None:
        """Do so, or raise TypeError or ValueError and change nothing."""
        columns = _columns(keys, items)
        made: dict[str, list[Any]] = {}
        count, waits = len(rows) * len(keys), [_NOTHING] * len(rows)
        if "depends_on" in keys:
            made["depends_on"] = waits = list(map(tuple, columns["depends_on"]))
            "".join(chain.from_iterable(waits))  # the quickest way to see that all are strings
        if "retry" in keys:
            made["retry"] = self._policies_of(columns["retry"])
            count += sum(map(len, columns["retry"]))
        if "args" in keys:
            inside, implied = self._look_into(columns["args"])
            count += inside
            if implied:
                waits = waits.copy()
                for at, results in implied.items():
                    waits[at] = tuple(dict.fromkeys((*waits[at], *results)))
        # All is right: from here on nothing is raised.
        for key, values in made.items():
            deque(map(setitem, items, repeat(key), values), maxlen=0)
        tasks = list(map(TaskDefinition.__new__, repeat(TaskDefinition, len(rows))))
        deque(map(_give_task, tasks, items), maxlen=0)
        self._put(rows, tasks, waits)
        self.keys += count

    def _put(
        self, rows: Sequence[int], tasks: Sequence[TaskDefinition], waits: list[tuple[str, ...]]
    ) -> None:
        if isinstance(rows, range):
            self.tasks[rows.start : rows.stop], self.waits[rows.start : rows.stop] = tasks, waits
            return
        for row, task, named in zip(rows, tasks, waits, strict=True):
            self.tasks[row], self.waits[row] = task, named

    def _policies_of(self, column: list[dict[str, Any]]) -> list[RetryPolicy]:
        """Make a policy of each object: one of those that are alike. `marshal` tells 1 from 1.0 and from true."""
        first = column[0]
        if column.count(first) == len(column):  # by value: 1 is 1.0 there
            kinds = [set(map(type, map(itemgetter(key), column))) for key in first]
            if all(len(kind) == 1 for kind in kinds):
                return [self._policy_of(dumps(first, _MARSHAL), first)] * len(column)
        return list(map(self._policy_of, map(dumps, column, repeat(_MARSHAL)), column))

    def _policy_of(self, written: bytes, retry: dict[str, Any]) -> RetryPolicy:
        known = self._policies.get(written)
        if known is None:
            known = self._policies[written] = _policy(retry)
        return known

    def _look_into(self, column: list[dict[str, Any]]) -> tuple[int, dict[int, list[str]]]:
        """Return the number of keys of usual arguments, and for some rows the tasks whose results they are."""
        keys = 0
        implied: dict[int, list[str]] = {}
        for names, rows in _by_keys(column, range(len(column))).items():
            arguments = _chosen(column, rows)
            keys += len(names) * len(rows)
            for name in names:
                if name not in self._plain:
                    if name[:1] == "$" or name == "//":
                        raise ValueError(name)
                    self._plain.add(name)
                values = list(map(itemgetter(name), arguments))
                if _CONTAINERS.isdisjoint(map(type, values)):
                    continue
                if values.count(values[0]) == len(rows) and not _has_result(values[0]):
                    keys += len(rows) * self._look_at(values[:1], rows[:1], implied)
                else:
                    keys += self._look_at(values, rows, implied)
        return keys, implied

    def _look_at(self, values: list[Any], rows: Sequence[int], implied: dict[int, list[str]]) -> int:
        """Do so for one argument of many tasks, some of whose values are containers."""
        keys, params = 0, self._params
        for row, value in zip(rows, values, strict=True):
            if type(value) is dict and len(value) == 1:
                if type(name := value.get("$param")) is str and name in params:
                    keys += 1
                    continue
                if type(name := value.get("$result")) is str:
                    keys += 1
                    implied.setdefault(row, []).append(name)
                    continue
            for _ in references(value):
                raise ValueError(row)
            inside = count_keys(value, _ARGUMENT_DEPTH)
            if inside is None:
                raise ValueError(row)
            keys += inside
        return keys


def _columns(keys: tuple[str, ...], items: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each key, all of usual types. Raises ValueError where one is not."""
    columns = {key: list(map(itemgetter(key), items)) for key in keys}
    for key, column in columns.items():
        if not _USUAL[key].issuperset(map(type, column)):
            raise ValueError(key)
    if not all(columns["task"]):
        raise ValueError("task")
    return columns


def _has_result(value: Any) -> bool:
    return type(value) is dict and "$result" in value


def _by_keys(objects: Sequence[dict[str, Any]], rows: Sequence[int]) -> dict[tuple[str, ...], Sequence[int]]:
    """Return which rows have which keys, in the order in which they stand there."""
    chosen = _chosen(objects, rows)
    different = set(map(tuple, chosen))
    if len(different) == 1:
        return {different.pop(): rows}
    found = defaultdict[tuple[str, ...], list[int]](list)
    for row, one in zip(rows, chosen, strict=True):
        found[tuple(one)].append(row)
    return dict(found)


def _chosen(objects: Sequence[Any], rows: Sequence[int]) -> Sequence[Any]:
    return objects if len(rows) == len(objects) else [objects[row] for row in rows]


def _policy(retry: dict[str, Any]) -> RetryPolicy:
    """Make a policy of an object. Raises ValueError where it is no usual one."""
    for key, value in retry.items():
        types, least = _RETRY.get(key, _NEVER)
        if type(value) not in types or value < least:
            raise ValueError(key)
    policy = RetryPolicy.__new__(RetryPolicy)
    _give_policy(policy, retry)
    return policy


def with_bundle(task: TaskDefinition, path: str, bundle: str) -> TaskDefinition:
    """Return a copy that names its bundle: `evolve`, without making every field anew."""
    copy = TaskDefinition.__new__(TaskDefinition)
    _give_task(copy, {**vars(task), "task": path, "bundle": bundle})
    return copy

"""References inside a definition: `{"$param": n}`, `{"$result": t}`, `{"$literal": v}`.

A value is compiled once for each plan into a `Template`, which is filled in for each attempt. Results
are passed by reference: an argument that is wholly a `$result` is the very object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._turns import EACH, WAY
from scattersphere.model.frozen import plain_copy

if TYPE_CHECKING:
    from scattersphere.model.definition import TaskDefinition

REFERENCE_KEYS = frozenset({"$param", "$result", "$literal"})
"""The only keys that may begin with a dollar sign."""
_ALLOWED = {"$param": {"$param"}, "$literal": {"$literal"}, "$result": {"$result", "pointer", "default"}}

_CONTAINERS = frozenset({dict, list, tuple})
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
"""An index of RFC 6901: no leading zeros; more digits than any list needs are refused unread."""
_BAD_ESCAPE = re.compile(r"~(?![01])")

Fill = Callable[[Mapping[str, object], Callable[[str], object]], Any]


class MissingValueError(LookupError):
    """A reference finds nothing; the message names it."""


@attrs.frozen(eq=False)
class Template:
    """A value with references in it. `fill(params, result_of)` returns it with all of them followed.

    `result_of(task)` returns a result or raises `LookupError`.
    """

    constant: bool
    has_result: bool
    whole_result: bool
    fill: Fill


def reference_kind(value: object) -> str | None:
    """Return which reference an object is ("$param", "$result", "$literal"), or None."""
    if type(value) is dict:
        for key in value:
            if key in REFERENCE_KEYS:
                return str(key)
    return None


def reference_fault(value: Mapping[str, object]) -> str | None:
    """Return what is wrong with the form of an object that has a key with a dollar sign, or None."""
    kind = reference_kind(value)
    if kind is None:
        key = next(key for key in value if key.startswith("$"))
        return f'no reference is called "{key}"; there are $param, $result and $literal'
    if len(value) == 1 and type(value[kind]) is str:
        return None
    if extra := [key for key in value if key not in _ALLOWED[kind]]:
        return f'"{extra[0]}" does not belong beside "{kind}"'
    if kind != "$literal" and type(value[kind]) is not str:
        return f'"{kind}" takes a name in quotes'
    pointer = value.get("pointer", "")
    if type(pointer) is not str or (pointer and not pointer.startswith("/")):
        return '"pointer" is an RFC 6901 pointer: empty, or beginning with "/"'
    if _BAD_ESCAPE.search(pointer):
        return '"pointer" may hold "~" only as "~0" (a tilde) and "~1" (a slash)'
    return None


def _has_dollar(item: Mapping[object, object]) -> bool:
    for key in item:  # noqa: SIM110 - `any` of a generator takes three times as long, and this is asked of each object
        if type(key) is str and key.startswith("$"):
            return True
    return False


def references(value: object) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, object]]]:
    """Yield (path, object) for each reference in a JSON-like value, and each object with a `$` key."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    way = WAY.get()
    while stack:
        if way:
            way()
        path, item = stack.pop()
        if type(item) is dict:
            if _has_dollar(item):
                yield path, item
                if "$result" not in item:
                    continue
                item = {"default": item["default"]} if "default" in item else {}
            stack.extend(
                ((*path, key), child) for key, child in EACH.get()(item.items()) if type(child) in _CONTAINERS
            )
        elif type(item) in (list, tuple):
            stack.extend(
                ((*path, index), child)
                for index, child in enumerate(EACH.get()(item))
                if type(child) in _CONTAINERS
            )


def upstreams(task: TaskDefinition) -> tuple[str, ...]:
    """Return the names of a task's upstream tasks: the declared ones, then those of its `$result`s."""
    found = dict.fromkeys(task.depends_on)
    for value in (task.args, task.map or {}, task.run_if):
        for _, reference in references(value):
            name = reference.get("$result")
            if type(name) is str:
                found.setdefault(name)
    return tuple(found)


def compile_argument(value: Any) -> Template:
    """Compile a JSON-like value. Its references must be well formed (`reference_fault`)."""
    kind = reference_kind(value)
    if kind == "$literal":
        literal = value["$literal"]
        return Template(True, False, False, lambda _params, _result_of: plain_copy(literal))
    if kind == "$param":
        return Template(False, False, False, _param(value["$param"]))
    if kind == "$result":
        return Template(False, True, "pointer" not in value, _result(value))
    if type(value) is dict:
        return _compile_dict(value)
    if type(value) in (list, tuple):
        return _compile_list(value)
    return Template(True, False, False, lambda _params, _result_of: value)


def _compile_dict(value: dict[str, object]) -> Template:
    parts = {key: compile_argument(child) for key, child in value.items()}
    return _compound(
        list(parts.values()),
        lambda params, result_of: {key: part.fill(params, result_of) for key, part in parts.items()},
    )


def _compile_list(value: list[object] | tuple[object, ...]) -> Template:
    parts = [compile_argument(child) for child in value]
    return _compound(parts, lambda params, result_of: [part.fill(params, result_of) for part in parts])


def _compound(parts: list[Template], fill: Fill) -> Template:
    constant = all(part.constant for part in parts)
    return Template(constant, any(part.has_result for part in parts), False, fill)


def _param(name: str) -> Fill:
    def fill(params: Mapping[str, object], _result_of: Callable[[str], object]) -> object:
        try:
            return plain_copy(params[name])  # what a body changes is its own
        except KeyError:
            raise MissingValueError(f"there is no parameter {name!r}") from None

    return fill


def _result(reference: Mapping[str, Any]) -> Fill:
    name, pointer = reference["$result"], reference.get("pointer")
    default = compile_argument(reference["default"]) if "default" in reference else None

    def fill(params: Mapping[str, object], result_of: Callable[[str], object]) -> object:
        try:
            value = result_of(name)
            return value if pointer is None else follow_pointer(value, pointer)
        except LookupError as exc:
            if default is not None:
                return default.fill(params, result_of)
            raise MissingValueError(f"$result {name!r}: {exc.args[0] if exc.args else exc}") from None

    return fill


def follow_pointer(value: Any, pointer: str) -> object:
    """Follow an RFC 6901 pointer into a JSON-like value. Raises `MissingValueError`."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif type(value) in (list, tuple) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            raise MissingValueError(f"the pointer {pointer!r} finds nothing at {token!r}")
    return value

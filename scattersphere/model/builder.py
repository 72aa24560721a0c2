"""A definition made in Python, step by step; what comes out equals what the same JSON gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from scattersphere.model.definition import JobDefinition, RetryPolicy, TaskDefinition


def param(name: str) -> dict[str, Any]:
    """Refer to a run parameter, anywhere inside `args`."""
    return {"$param": name}


def result(task: str, pointer: str | None = None, **default: Any) -> dict[str, Any]:
    """Refer to the result of another task; `pointer` is RFC 6901, `default=` may follow."""
    reference: dict[str, Any] = {"$result": task}
    if pointer is not None:
        reference["pointer"] = pointer
    if unknown := default.keys() - {"default"}:
        raise TypeError(f"result() takes no argument {min(unknown)!r}")
    return reference | default


def literal(value: Any) -> dict[str, Any]:
    """Pass `value` unread, even where it looks like a reference."""
    return {"$literal": value}


class JobBuilder:
    """Collects tasks; `done()` returns the definition. A name used twice raises `ValueError`."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self._name = name
        self._fields = dict(fields)
        self._tasks: dict[str, TaskDefinition] = {}

    def task(
        self,
        name: str,
        task: str,
        *,
        args: Mapping[str, Any] | None = None,
        depends_on: Sequence[str] = (),
        retry: Mapping[str, Any] | RetryPolicy | None = None,
        **fields: Any,
    ) -> Self:
        """Add a task: its name, the path of its class, and the fields of `TaskDefinition`."""
        if name in self._tasks:
            raise ValueError(f"task {name!r} is there already; names of tasks are unique in a job")
        if isinstance(depends_on, str):
            raise TypeError(f"depends_on is a list of names: write [{depends_on!r}]")
        if isinstance(retry, Mapping):
            retry = RetryPolicy(**retry)
        self._tasks[name] = TaskDefinition(
            task=task,
            args=dict(args or {}),
            depends_on=depends_on,
            retry=retry or RetryPolicy(),
            **fields,
        )
        return self

    def done(self) -> JobDefinition:
        """Return the finished definition."""
        return JobDefinition(name=self._name, tasks=dict(self._tasks), **self._fields)

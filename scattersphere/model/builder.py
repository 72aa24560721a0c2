"""JobBuilder: a definition made in Python step by step, equal to what the same JSON gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Self, TypeVar, overload

from scattersphere.model.definition import JobDefinition, RetryPolicy, TaskDefinition

P = ParamSpec("P")
R = TypeVar("R")


def param(name: str) -> dict[str, Any]:
    """Refer to a run parameter, anywhere inside `args`."""
    return {"$param": name}


def result(task: str, pointer: str | None = None, **default: object) -> dict[str, Any]:
    """Refer to the result of another task; `pointer` is RFC 6901, `default=` may follow."""
    reference: dict[str, object] = {"$result": task}
    if pointer is not None:
        reference["pointer"] = pointer
    if unknown := default.keys() - {"default"}:
        raise TypeError(f"result() takes no argument {min(unknown)!r}")
    return reference | default


def literal(value: object) -> dict[str, Any]:
    """Pass `value` unread, even where it looks like a reference."""
    return {"$literal": value}


class TaskResult:
    """Stands for the result of a task of a builder: an argument of others, which then wait for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<result of {self.name}>"


class JobBuilder:
    """Collects tasks; `done()` returns the definition. A name used twice raises `ValueError`."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self._name = name
        self._fields = dict(fields)
        self._tasks: dict[str, TaskDefinition] = {}
        self._next: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<JobBuilder of {self._name}: {', '.join(self._tasks) or 'no task yet'}>"

    @overload
    def task(
        self,
        name: str,
        task: str | type[object] | Callable[..., object],
        /,
        *,
        args: Mapping[str, object] | None = None,
        depends_on: Sequence[str | TaskResult] = (),
        retry: Mapping[str, object] | RetryPolicy | None = None,
        **fields: object,
    ) -> Self: ...
    @overload
    def task(self, task: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def task(self, name: object, task: object = None, /, *args: object, **fields: Any) -> object:
        """Add a task.

        `task("first", "app.Greet", args={"name": "Ada"}, retry=...)` takes its name, its class or the path of it, and
        the fields of `TaskDefinition`; it returns the builder.

        `task(greet, name="Ada")` takes what `@task` made of a function, or a class, and its parameters as in a call. It
        returns what stands for the result: passed to another task, it makes that wait for it. Its name is that of the
        function, with a number where it is used again; `options` says otherwise, and sets other fields.
        """
        if not isinstance(name, str):
            path_of(name)
            if task is not None or args:
                raise TypeError("the parameters of a task are given by name: `job.task(greet, name=...)`")
            return self._call(name, fields)
        if task is None or args:
            raise TypeError(
                f'job.task(name, task, ...) needs a name and a task: `job.task({name!r}, "app.Greet", args=...)`'
            )
        self._add(name, task, **fields)
        return self

    def options(self, **fields: object) -> Self:
        """Set `name` and other fields of the task that is added next: `job.options(timeout=5).task(greet)`."""
        self._next |= fields
        return self

    def _call(self, task: Any, args: Mapping[str, object]) -> TaskResult:
        fields, self._next = self._next, {}
        own = str(task.__name__)
        name, number = fields.pop("name", None), 1
        while name is None:
            name = own if number == 1 else f"{own}_{number}"
            name, number = None if name in self._tasks else name, number + 1
        self._add(name, task, args=args, **fields)
        return TaskResult(name)

    def _add(
        self,
        name: str,
        task: object,
        *,
        args: Mapping[str, object] | None = None,
        depends_on: Sequence[str | TaskResult] = (),
        retry: Mapping[str, Any] | RetryPolicy | None = None,
        **fields: object,
    ) -> None:
        if name in self._tasks:
            raise ValueError(f"task {name!r} is there already; names of tasks are unique in a job")
        if isinstance(depends_on, str):
            raise TypeError(f"depends_on is a list of names: write [{depends_on!r}]")
        if isinstance(retry, Mapping):
            retry = RetryPolicy(**retry)
        self._tasks[name] = TaskDefinition(
            task=path_of(task),
            args=_with_references(dict(args or {})),
            depends_on=[each.name if isinstance(each, TaskResult) else each for each in depends_on],
            retry=retry or RetryPolicy(),
            **{field: _with_references(value) for field, value in fields.items()},
        )

    def done(self) -> JobDefinition:
        """Return the finished definition."""
        return JobDefinition(name=self._name, tasks=dict(self._tasks), **self._fields)


def path_of(task: object) -> Any:
    """Return the path of a task class; a path as it is. Raises `TypeError` for a function that is no task."""
    if inspect.isroutine(task):
        raise TypeError(no_task_yet(task))
    return task.__qualname__ if isinstance(task, type) else task


def no_task_yet(function: Callable[..., object]) -> str:
    """Say how a function becomes a task."""
    return f"{function.__name__} is a plain function: write @task above its `def`"


def _with_references(value: object) -> Any:
    """Put references in the place of results of tasks, at any depth."""
    if isinstance(value, TaskResult):
        return result(value.name)
    if isinstance(value, dict):
        return {key: _with_references(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_references(each) for each in value]
    return value

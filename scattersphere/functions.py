"""`@task`: a function becomes a task class, its parameters those of the task."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from scattersphere.errors import TaskDeclarationError
from scattersphere.runnable import RunnableTask, TaskContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

P = ParamSpec("P")
R = TypeVar("R")

CONTEXT = "context"
"""The parameter that is handed the `TaskContext`, and is none of the task."""
OPTIONS = frozenset({"backend", "retry", "timeout"})
"""What a function may say of how it wants to be run; a definition that says otherwise is obeyed."""


if TYPE_CHECKING:

    class TaskFunction(RunnableTask, Generic[P, R]):
        """What `@task` makes of a function, as type checkers see it: a subclass of `RunnableTask`.

        `func` is the function itself, for a plain call. A definition names it by its path, a builder takes it as it is.
        """

        func: Callable[..., Any]

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Make an instance, with the parameters of the function by name."""
            ...

else:  # nothing is one while a program runs: what `@task` makes is a task class like others
    TaskFunction = type(
        "TaskFunction",
        (),
        {
            "__module__": __name__,
            "__doc__": "What `@task` makes of a function: a subclass of `RunnableTask` whose `func` is the function.",
            "__class_getitem__": classmethod(lambda cls, _: cls),
        },
    )


class _Decorator:
    """`@task` with options; its types are those of `task`."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], Awaitable[R]], /
    ) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return _made(function, self.options)

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options


@overload
def task(function: Callable[Concatenate[TaskContext, P], Awaitable[R]], /) -> TaskFunction[P, R]: ...
@overload
def task(function: Callable[P, Awaitable[R]], /) -> TaskFunction[P, R]: ...
@overload
def task(function: Callable[Concatenate[TaskContext, P], R], /) -> TaskFunction[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *,
    backend: str | None = None,
    retry: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> _Decorator: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task class of a function: `@task`, or `@task(backend="process", retry={"max_attempts": 3})`.

    Its parameters become those of the task, with annotations and defaults; one called `context` is handed the
    `TaskContext`. An `async def` runs on the loop, a `def` in a thread. The options are defaults, which a
    definition may override. `.func` is the function itself. Raises `TaskDeclarationError` for what cannot be a task.
    """
    if unknown := options.keys() - OPTIONS:
        raise TypeError(f"task() has no option {min(unknown)!r}; it has {', '.join(sorted(OPTIONS))}")
    return _Decorator(options) if function is None else _made(function, options)


def _made(function: Any, options: Mapping[str, Any]) -> type[RunnableTask]:
    if isinstance(function, type):
        raise TaskDeclarationError(
            f"@task is for functions; derive the class {function.__name__} from RunnableTask"
        )
    if not inspect.isfunction(function):
        raise TaskDeclarationError(f"@task is for functions, not {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TaskDeclarationError(f"{function.__qualname__}: a generator has no result; return a list")
    wants_context, names, body = _parameters(function)
    body |= {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "func": staticmethod(function),
        "run": _run_of(function, names, wants_context=wants_context),
        "__task_options__": {name: value for name, value in options.items() if value is not None},
    }
    return cast("type[RunnableTask]", type(function.__name__, (RunnableTask,), body))


def _parameters(function: Any) -> tuple[bool, Sequence[str], dict[str, Any]]:
    """Return whether it wants the context, the names of its parameters, and the attributes that declare them."""
    annotations: dict[str, Any] = {}
    body: dict[str, Any] = {"__annotations__": annotations}
    wants_context = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TaskDeclarationError(
                f"{function.__qualname__}: {parameter} cannot be given by name; a task's parameters are"
            )
        if name == CONTEXT:
            wants_context = True
            continue
        if parameter.annotation is parameter.empty:
            raise TaskDeclarationError(
                f"{function.__qualname__}: annotate the parameter {name!r}, as `{name}: str`; "
                "its values are checked by that"
            )
        annotations[name] = parameter.annotation
        if parameter.default is not parameter.empty:
            body[name] = parameter.default
    return wants_context, tuple(annotations), body


def _run_of(function: Any, names: Sequence[str], *, wants_context: bool) -> Any:
    def arguments(self: Any, context: TaskContext | None) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in names}
        return given | {CONTEXT: context} if wants_context else given

    if inspect.iscoroutinefunction(function):

        async def run_async(self: Any, context: TaskContext | None = None) -> Any:
            return await function(**arguments(self, context))

        return _named(run_async, function)

    def run(self: Any, context: TaskContext | None = None) -> Any:
        return function(**arguments(self, context))

    return _named(run, function)


def _named(run: Any, function: Any) -> Any:
    run.__name__, run.__qualname__ = "run", f"{function.__qualname__}.run"
    run.__doc__ = function.__doc__
    return run

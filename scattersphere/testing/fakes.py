"""Fakes (test doubles) of task classes: functions, kept honest by the real ones' parameters."""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING

import attrs

from scattersphere._text import did_you_mean
from scattersphere.errors import ScattersphereError
from scattersphere.model.taskclass import LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scattersphere._json_words import JsonObject
    from scattersphere.engine.plan import PlannedTask
    from scattersphere.model.taskclass import TaskClass, TaskParameter
    from scattersphere.runnable import RunnableTask, TaskContext

CONTEXT = "context"
"""A parameter of this name gets the `TaskContext`, unless the real task has a parameter that is called so."""


class FakeError(ScattersphereError):
    """A fake does not fit the task that it stands in for; the message shows both."""

    code = "bad-args"


class Fake:
    """What `Rehearsal.fake` returns: a stand-in for one task class, which keeps what it was called with."""

    def __init__(self, path: str, function: Callable[..., object]) -> None:
        self.path: str = path
        self.function: Callable[..., object] = function
        self.calls: list[JsonObject] = []
        """The arguments of each call, by name; without the context."""
        self.met: bool = False
        """Whether a plan was made in which it stands."""
        self._signature = inspect.signature(function)

    def __repr__(self) -> str:
        return f"<Fake of {self.path}: {len(self.calls)} calls>"

    def stands_for(self, task_class: TaskClass) -> bool:
        """Whether it was made for this class: by its path, or by `bundle:path`."""
        return self.path in {task_class.path, task_class.full_path}

    def check(self, task_class: TaskClass) -> None:
        """Raise `FakeError` unless the function takes exactly what the real task takes."""
        complaints = list(_complaints(self._signature, task_class.parameters, _real_context(task_class)))
        if complaints:
            raise FakeError(
                f"the fake of {self.path} does not take what the real task takes:\n"
                f"  real: {real_signature(task_class)}\n"
                f"  fake: {getattr(self.function, '__name__', repr(self.function))}{self._signature}\n"
                + "\n".join(f"  {complaint}" for complaint in complaints)
            )

    def stand_in(self, planned: PlannedTask) -> PlannedTask:
        """Return the planned task with this fake's class in place of the real one. Raises `FakeError`."""
        task_class = planned.task_class
        self.check(task_class)
        self.met = True
        cls = _fake_class(self, task_class)
        return attrs.evolve(
            planned,
            task_class=attrs.evolve(task_class, cls=cls, is_async=True, hooks=frozenset()),
            cls=cls,
            backend=LOOP,
            on_loop=True,
            plain=False,
        )

    async def call(self, arguments: dict[str, object], context: TaskContext) -> object:
        """Call the function, and wait for it where it is async."""
        self.calls.append(arguments)
        takes_context = CONTEXT in self._signature.parameters and CONTEXT not in arguments
        value = self.function(**arguments, **({CONTEXT: context} if takes_context else {}))
        return await value if inspect.isawaitable(value) else value


def real_signature(task_class: TaskClass) -> str:
    """Return how the real task is made: `etl.LoadDay(*, day: str, limit: int = 10)`."""
    parts = [_parameter(parameter) for parameter in task_class.parameters.values()]
    return f"{task_class.path}({', '.join(['*', *parts] if parts else [])})"


def _parameter(parameter: TaskParameter) -> str:
    words = f"{parameter.name}: {parameter.type_name}"
    return words if parameter.required else f"{words} = {parameter.default!r}"


def _real_context(task_class: TaskClass) -> bool:
    return CONTEXT in task_class.parameters


def _complaints(signature: inspect.Signature, real: Iterable[str], real_context: bool) -> Iterable[str]:  # noqa: FBT001 - told by the caller
    names = list(real)
    taken: set[str] = set()
    takes_any = False
    for name, parameter in signature.parameters.items():
        match parameter.kind:
            case inspect.Parameter.VAR_KEYWORD:
                takes_any = True
            case inspect.Parameter.VAR_POSITIONAL:
                pass
            case inspect.Parameter.POSITIONAL_ONLY:
                yield f"{name!r} cannot be given by name"
            case _:
                taken.add(name)
                if name not in names and (name != CONTEXT or real_context):
                    hint = did_you_mean(name, names, quote="'")
                    yield f"the real task has no {name!r}{hint}"
    missing = [name for name in names if name not in taken]
    if missing and not takes_any:
        yield f"the fake lacks {', '.join(map(repr, missing))}; **rest takes whatever comes"


def subclass(cls: type[RunnableTask], body: dict[str, object]) -> type[RunnableTask]:
    """Return a subclass of a task class that goes by its name."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return types.new_class(
        cls.__name__, (cls,), exec_body=lambda namespace: namespace.update({**names, **body})
    )


def _fake_class(fake: Fake, task_class: TaskClass) -> type[RunnableTask]:
    """Make a subclass of the real class, so that the real constructor judges the arguments.

    Its hooks and its `__attrs_post_init__` would be the real task's side effects, so they are left out.
    """
    names = tuple(task_class.parameters)

    async def run(self: object, context: TaskContext) -> object:
        return await fake.call({name: getattr(self, name) for name in names}, context)

    def nothing(self: object) -> None:
        """Take the place of what a real task might do when it is made."""

    return subclass(task_class.cls, {"run": run, "__attrs_post_init__": nothing})

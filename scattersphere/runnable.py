"""RunnableTask and TaskContext, what users write: a task is a class, its parameters are annotated attributes.

`RunnableTask.__init_subclass__` turns each subclass into a keyword-only attrs class, so that type
checkers see the constructor and a wrong declaration is refused where it stands.
"""

from __future__ import annotations

import abc
import functools
import inspect
from typing import TYPE_CHECKING, Any, dataclass_transform

import attrs

from scattersphere._declarations import HOOKS, declare
from scattersphere.errors import TaskDeclarationError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from scattersphere.model.states import TaskState


class TaskContext(abc.ABC):
    """What an attempt knows about itself, and how it talks to the engine.

    Handed to `run` and to the hooks. Everything may be used from the attempt's own thread, be it
    the loop's or a worker's; `checkpoint` and `start` are for async bodies, `check` for threads.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def run_id(self) -> int:
        """The number of the run."""

    @property
    @abc.abstractmethod
    def job(self) -> str:
        """The name of the job."""

    @property
    @abc.abstractmethod
    def task(self) -> str:
        """The name of the task in the job."""

    @property
    @abc.abstractmethod
    def index(self) -> int | None:
        """Which instance of a mapped task this is, from 0; None elsewhere."""

    @property
    @abc.abstractmethod
    def attempt(self) -> int:
        """Which attempt this is, from 1."""

    @property
    @abc.abstractmethod
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines go to the log of this run, task and attempt."""

    @property
    @abc.abstractmethod
    def params(self) -> Mapping[str, Any]:
        """The parameters of the run."""

    @property
    @abc.abstractmethod
    def results(self) -> Mapping[str, Any]:
        """The results of the declared upstream tasks, by name."""

    @property
    @abc.abstractmethod
    def idempotency_key(self) -> str:
        """The same text for every attempt of this task in this run, and for no other."""

    @abc.abstractmethod
    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell watchers how far this attempt is, in units of its own choice."""

    @abc.abstractmethod
    async def checkpoint(self) -> None:
        """Let a pause hold this attempt here and a cancel end it (async bodies)."""

    @abc.abstractmethod
    def check(self) -> None:
        """Let a pause hold this attempt here and a cancel end it (bodies in threads).

        Raises `RuntimeError` on an event loop's thread, which it would hold: write `await checkpoint()` there.
        """

    @abc.abstractmethod
    async def start(self, job: str, params: Mapping[str, Any] | None = None) -> Any:
        """Start a child run of a defined job and return its `Run`; it takes no run slot."""

    @abc.abstractmethod
    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when this attempt is asked to end: by a cancel, a timeout, a kill.

        For what the body waits for and no cancellation reaches: a query, a container, a job of a cluster. It is called
        once, at once if that was asked before. For an async body on the event loop, where it may be async (at most 30
        seconds); for another one in a helper thread. Its errors are logged.
        """

    @abc.abstractmethod
    def on_pause(self, hold: Callable[[], object], resume: Callable[[], object]) -> None:
        """Have `hold` called when the run is being paused, and `resume` when it goes on or the attempt is to end.

        When `hold` has returned, the attempt counts as held, as at a checkpoint: its timeout stands still, and the run
        is paused when all are. Called at once if a pause is on. Where it is called, and its errors, as in `on_cancel`.
        """

    @property
    def grace_left(self) -> float | None:
        """Seconds until this attempt is given up; None while nobody has asked it to end.

        A worker process does not know it: None there.
        """
        return None


@dataclass_transform(kw_only_default=True, field_specifiers=(attrs.field,))
class RunnableTask(abc.ABC):
    """A unit of work. Subclass it, annotate its parameters, write `run`.

    `run` is `async def` (it runs on the event loop) or `def` (it runs in a worker thread). One
    instance is made for each attempt. The hooks run where `run` runs, and may be async if it is;
    an error in one is logged, except that one in `clean_up` fails a successful attempt.

    Example::

        class Greet(RunnableTask):
            name: str
            excited: bool = False

            async def run(self, context: TaskContext) -> str:
                return f"hello {self.name}"
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declare(cls, RunnableTask)
        if words := _odd_run(cls.run):
            raise TaskDeclarationError(f"{cls.__qualname__}.run: {words}")
        if _takes_no_context(cls.run):
            cls.run = _without_context(cls.run)  # type: ignore[method-assign]

    @abc.abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work and return the task's result. Raise to fail.

        Write `run(self, context: TaskContext)`, or `run(self)` where the context is not needed.
        """

    def on_finished(self) -> Any:
        """Be told that `run` returned."""

    def on_exception(self, exc: BaseException) -> Any:
        """Be told what `run` raised."""

    def on_status_change(self, old: TaskState, new: TaskState) -> Any:
        """Be told of each move of this attempt's task."""

    def clean_up(self) -> Any:
        """Release what the attempt holds; called after every attempt, cancelled ones too."""


def _takes_no_context(run: Any) -> bool:
    """Whether it is a function whose one parameter is `self`."""
    if not inspect.isfunction(run):
        return False
    code = run.__code__
    return code.co_argcount == 1 and not code.co_kwonlyargcount and not code.co_flags & _VARIADIC


_VARIADIC = inspect.CO_VARARGS
_OF_VALUES = frozenset({"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "Path"})


def _odd_run(run: Any) -> str | None:
    """Say what is wrong with the parameters of a `run`: it is handed the context, and nothing else."""
    if not inspect.isfunction(run):
        return None
    code, given = run.__code__, len(run.__defaults__ or ())
    _, *names = code.co_varnames[: code.co_argcount - given] or ("",)
    keywords = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
    extra = [*names[1:], *[name for name in keywords if name not in (run.__kwdefaults__ or ())]]
    if names and _is_of_values(run.__annotations__.get(names[0])):
        extra.insert(0, names[0])
    if not extra:
        return None
    kind = run.__annotations__.get(extra[0], "..")
    shown = kind if isinstance(kind, str) else getattr(kind, "__name__", "..")
    return (
        f"it is handed nothing but the context, and takes {', '.join(extra)} too: make parameters annotated "
        f"attributes of the class ({extra[0]}: {shown}), and read self.{extra[0]}"
    )


def _is_of_values(annotation: Any) -> bool:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.partition("[")[0].partition("|")[0].strip() in _OF_VALUES


def _without_context(run: Any) -> Any:
    """Return a `run` that is handed the context and drops it, for one that takes none."""
    if inspect.iscoroutinefunction(run):

        @functools.wraps(run)
        async def run_async(self: Any, _context: TaskContext | None = None) -> Any:
            return await run(self)

        return run_async

    @functools.wraps(run)
    def run_plain(self: Any, _context: TaskContext | None = None) -> Any:
        return run(self)

    return run_plain


RUN_HOOKS: tuple[str, ...] = tuple(sorted(HOOKS - {"run"}))


def overridden_hooks(cls: type[RunnableTask]) -> frozenset[str]:
    """Return which hooks `cls` really has, so that the others cost nothing."""
    return frozenset(name for name in RUN_HOOKS if getattr(cls, name) is not getattr(RunnableTask, name))


def is_async(cls: type[RunnableTask]) -> bool:
    """Whether calling `run` makes a coroutine: looked up once, when the class is registered.

    Of a decorated one the outer callable decides, whatever `functools.wraps` says that it stands for.
    """
    run: Callable[..., Any] = cls.run
    if inspect.iscoroutinefunction(run):
        return True
    called = getattr(type(run), "__call__", None)  # noqa: B004 - of an object that stands for the function
    return inspect.iscoroutinefunction(called)

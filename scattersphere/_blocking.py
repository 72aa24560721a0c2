"""Blocking (synchronous) twins of asynchronous methods, made from them: types, signatures, docstrings are kept.

A class of twins holds an object that lives on an event loop (`_original`) and the way to the thread of that loop
(`_door`). Each of its members names the member of the original that it stands for; nothing is written twice.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from scattersphere.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

P = ParamSpec("P")
O = TypeVar("O")  # noqa: E741 - the original
R = TypeVar("R")
T = TypeVar("T")


class Door(Protocol):
    """The way to the thread of the loop: a `SyncServer`."""

    def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """Call or await `function` there, and wait. Raises `ClosedError`."""

    def follow(self, function: Callable[[], object]) -> Any:
        """Do as `call`, also while the Server is closing. Raises `ClosedError` when that thread has gone."""

    def read(self, function: Callable[[], T]) -> T:
        """Call `function` there, or here when that thread has gone."""
        ...


def blocking(method: Callable[Concatenate[O, P], Awaitable[T]]) -> Callable[Concatenate[object, P], T]:
    """Return a method that awaits `method` of the original on its loop's thread."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        value: T = self._door.call(method, self._original, *args, **kwargs)
        return value

    return same_as(method, twin)


def calling(method: Callable[Concatenate[O, P], T]) -> Callable[Concatenate[object, P], T]:
    """Return a method that calls `method` of the original there; it acts, so the loop must be there."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        value: T = self._door.call(method, self._original, *args, **kwargs)
        return value

    return same_as(method, twin)


def reading(method: Callable[Concatenate[O, P], T]) -> Callable[Concatenate[object, P], T]:
    """Return a method that calls `method` of the original there, or here when the loop has gone: it only reads."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        value: T = self._door.read(lambda: method(self._original, *args, **kwargs))
        return value

    return same_as(method, twin)


def streaming(
    method: Callable[Concatenate[O, P], AsyncIterator[T]],
) -> Callable[Concatenate[object, P], Iterator[T]]:
    """Return a method whose iterator blocks for the next one; the end of the Server ends it."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return following(self._door, lambda: method(self._original, *args, **kwargs))

    return same_as(method, twin)


def same_as(method: Callable[..., object], twin: Callable[P, T]) -> Callable[P, T]:
    """Give a twin the name, the docstring and the signature of the method."""
    functools.update_wrapper(twin, method)
    return twin


class Value(Generic[R, T]):
    """A property of the original, read on its loop's thread, or here when that has gone.

    `at_once` reads it here in any case: what never changes, or changes in one step.
    """

    def __init__(self, get: Callable[[R], T], *, at_once: bool = False) -> None:
        self._get = get
        self._at_once = at_once
        self.__doc__ = None

    def __set_name__(self, owner: type, name: str) -> None:
        original: type = owner.__dict__["_original_class"]
        told = getattr(original, name, None)
        self.__doc__ = inspect.getdoc(told) if told is not None else f"See `{original.__name__}.{name}`."

    @overload
    def __get__(self, twin: None, owner: type) -> Self: ...
    @overload
    def __get__(self, twin: object, owner: type) -> T: ...
    def __get__(self, twin: Any, owner: type) -> Self | T:
        if twin is None:
            return self
        if self._at_once:
            return self._get(twin._original)  # noqa: SLF001 - of the class of twins
        value: T = twin._door.read(lambda: self._get(twin._original))  # noqa: SLF001 - of the class of twins
        return value

    def __set__(self, twin: object, value: object) -> None:
        raise AttributeError("this is read only")


def ready(stream: AsyncIterator[T]) -> Iterator[T]:
    """Yield what a stream has by now; end where it would wait for more. Needs no event loop."""
    while True:
        step = stream.__anext__().__await__()
        try:
            next(step)
        except StopIteration as got:
            yield got.value
        except StopAsyncIteration:
            return
        else:
            step.close()
            return


def following(door: Door, begin: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    """Yield what a stream tells, blocking for the next one; the end of the Server ends it."""
    stream = door.read(begin)

    async def following_one() -> T | None:
        return await anext(stream, None)

    while True:
        try:
            told: T | None = door.follow(following_one)
        except ClosedError:  # nothing moves any more; what has happened can still be read
            yield from ready(stream)
            return
        if told is None:
            return
        yield told

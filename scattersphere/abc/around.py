"""The contract of context managers around each attempt: a span, a database session, a request's id."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

NO_CARRIER: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class AttemptInfo:
    """What a factory is told of the attempt that it makes a context manager for."""

    run_id: int
    job: str
    task: str
    index: int | None
    """Which instance of a mapped task it is, from 0; None elsewhere."""
    attempt: int
    """Which attempt it is, from 1."""
    idempotency_key: str
    carrier: Mapping[str, str] = NO_CARRIER
    """In another process what `carry` has put there in the Server's own; empty in that itself, where the context
    variables of who has called `start` are the attempt's too."""


class Around(Protocol):
    """Makes a context manager for an attempt, which is entered before its instance is made and left after `clean_up`.

    That is where its body runs, and in the same context. An error on entering is logged, once for each factory, and the
    attempt goes on without; one on leaving is logged too. On leaving it sees what the attempt has raised and cannot
    suppress it. It is left by `GeneratorExit` where a coroutine is closed, late where a thread was given up, and never
    where a process is killed.
    """

    def __call__(self, info: AttemptInfo, /) -> AbstractContextManager[object]:
        """Make the context manager of an attempt."""
        ...


@runtime_checkable
class CarryingAround(Around, Protocol):
    """A factory that has strings to send along to other processes."""

    def carry(self, carrier: MutableMapping[str, str], /) -> None:
        """Put strings into `carrier`; called on the event loop in the context of the attempt.

        Keys are headers' names, as `traceparent`. Errors are logged.
        """


class Carried(NamedTuple):
    """What `around` gives a call that executes in another process."""

    factories: bytes = b""
    """Pickles of those factories that can be found there by their import path; b"" where there is none."""
    carrier: Mapping[str, str] = NO_CARRIER

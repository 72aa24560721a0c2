"""The contract of what a host puts around each attempt: a span, a database session, a request's id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import attrs

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


Around = Callable[[AttemptInfo], AbstractContextManager[object]]
"""Makes a context manager for an attempt, which is entered before its instance is made and left after `clean_up`,
where and in the context in which its body runs.

An error on entering is logged, once for each factory, and the attempt goes on without; one on leaving is logged too. On
leaving it sees what the attempt has raised and cannot suppress it. It is left by `GeneratorExit` where a coroutine is
closed, late where a thread was given up, and never where a process is killed.
"""


@runtime_checkable
class CarryingAround(Protocol):
    """A factory that has strings to send along to other processes."""

    def __call__(self, info: AttemptInfo, /) -> AbstractContextManager[object]:
        """Make the context manager."""
        ...

    def carry(self, carrier: MutableMapping[str, str], /) -> None:
        """Put strings into `carrier`; called on the event loop in the context of the attempt.

        Keys are headers' names, as `traceparent`. Errors are logged.
        """


class Carried(NamedTuple):
    """What `around` gives a call that executes in another process."""

    factories: bytes = b""
    """Pickles of those factories that can be found there by their import path; b"" where there is none."""
    carrier: Mapping[str, str] = NO_CARRIER

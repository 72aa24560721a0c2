"""Context managers of the host around attempts: `Server(around=[factory])`.

They observe. Whatever they raise is logged and changes nothing of what an attempt comes to.
"""

from __future__ import annotations

import functools
import logging
import pickle
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from scattersphere._cached import cached_property
from scattersphere.abc.around import NO_CARRIER, AttemptInfo, Carried, CarryingAround
from scattersphere.logs.runlog import LoggedAttempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from scattersphere.abc.around import Around

_log = logging.getLogger("scattersphere.around")


class SurroundedAttempt(LoggedAttempt, Protocol):
    """What a factory is told of an attempt."""

    @property
    def job(self) -> str:
        """The name of the job."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this task in this run."""
        ...


class Surroundings:
    """The factories of one Server, or in a worker process those of one call."""

    def __init__(self, factories: Iterable[Around], carrier: Mapping[str, str] = NO_CARRIER) -> None:
        self.factories: tuple[Around, ...] = tuple(factories)
        self._carrier = carrier

    @cached_property
    def _packed(self) -> bytes:
        found = [packed for factory in self.factories if (packed := _by_path(factory))]
        return pickle.dumps(found) if found else b""

    @cached_property
    def _carriers(self) -> list[CarryingAround]:
        return [factory for factory in self.factories if isinstance(factory, CarryingAround)]

    def carried(self) -> Carried:
        """Return what a call in another process needs; in the context of the attempt."""
        carrier: dict[str, str] = {}
        for factory in self._carriers:
            try:
                factory.carry(carrier)
            except Exception as exc:  # noqa: BLE001 - a host's own code
                _complain(factory, "carry", exc)
        return Carried(self._packed, {str(key): str(value) for key, value in carrier.items()})

    @classmethod
    def of(cls, factories: bytes, carrier: Mapping[str, str] | None) -> Surroundings:
        """Return, in a worker process, what was carried there."""
        return cls(_unpack(factories), carrier or NO_CARRIER)

    @contextmanager
    def around(self, attempt: SurroundedAttempt) -> Iterator[None]:
        """Enter the context managers for an attempt, and leave them with what it has raised."""
        with ExitStack() as stack:
            for factory in self.factories:
                try:
                    manager = factory(self._info(attempt))
                    manager.__enter__()
                except BaseException as exc:  # noqa: BLE001 - a host's own code; the attempt goes on without
                    _complain(factory, "entering", exc)
                else:
                    stack.push(functools.partial(_leave, factory, manager))
            yield

    def _info(self, attempt: SurroundedAttempt) -> AttemptInfo:
        return AttemptInfo(
            run_id=attempt.run_id,
            job=attempt.job,
            task=attempt.task,
            index=attempt.index,
            attempt=attempt.attempt,
            idempotency_key=attempt.idempotency_key,
            carrier=self._carrier,
        )


def _leave(
    factory: Around,
    manager: AbstractContextManager[object],
    kind: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> bool:
    try:
        manager.__exit__(kind, exc, traceback)
    except BaseException as error:  # noqa: BLE001 - as above
        if error is not exc:  # one that lets through what it is given has done nothing wrong
            _complain(factory, "leaving", error)
    return False


_complained: set[tuple[int, str]] = set()
"""Which factories were complained of, and of what: once in a process."""


def _complain(factory: object, what: str, exc: BaseException) -> None:
    key = (id(factory), what)
    if key not in _complained:
        _complained.add(key)
        _log.error(
            "%s of `around` has failed on %s; attempts go on without it, and no more is said of this",
            getattr(factory, "__qualname__", None) or repr(factory), what, exc_info=exc,
        )  # fmt: skip


def _by_path(factory: object) -> bytes:
    """Pickle a factory that another process can import; return b"" for others."""
    known = factory if hasattr(factory, "__qualname__") else type(factory)
    if known.__module__ == "__main__" or "<locals>" in str(getattr(known, "__qualname__", "")):
        return b""
    try:
        return pickle.dumps(factory)
    except Exception:  # noqa: BLE001 - an instance that holds what cannot be sent stays at home
        return b""


@functools.lru_cache(maxsize=8)
def _unpack(packed: bytes) -> tuple[Around, ...]:
    if not packed:
        return ()
    found = []
    for each in pickle.loads(packed):  # noqa: S301 - from the engine that this worker serves
        try:
            found.append(pickle.loads(each))  # noqa: S301 - as above
        except BaseException as exc:  # noqa: BLE001 - importing runs a host's own code
            _complain(sys.intern(repr(each[:200])), "importing", exc)
    return tuple(found)

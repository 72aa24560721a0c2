"""A loop for journals under test, and rows to write into them."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from patience import PATIENCE

from scattersphere.abc.journal import (
    DefinitionRow,
    LifeRow,
    MetaRow,
    MovesRow,
    RunRow,
    RunStateRow,
    StepRow,
    ValueForm,
)

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUED, RUNNING, SUCCEEDED = 0, 1, 6
TASK_SUCCEEDED = 4


class Loop:
    """Stands for the Server: calls back on this thread, when it is told to wait for something."""

    def __init__(self) -> None:
        self._soon: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.failures: list[tuple[str, bool]] = []
        self.mended = 0

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._soon.put((callback, *args))

    def journal_failed(self, words: str, *, lasting: bool) -> None:
        self.failures.append((words, lasting))

    def journal_mended(self) -> None:
        self.mended += 1

    def until(self, condition: Callable[[], object]) -> None:
        """Call back until something is true."""
        while not condition():
            callback, *args = self._soon.get(timeout=PATIENCE)
            callback(*args)

    def commit(self, journal: Any, *rows: Any) -> None:
        """Write one transaction, and wait until it is committed."""
        done: list[bool] = []
        journal.write(rows, lambda: done.append(True))
        self.until(lambda: done)


DEFINITION = DefinitionRow("d1", "pay", '{"name": "pay", "tasks": {"draw": {}, "charge": {}}}')


def run_row(number: int, **changes: Any) -> RunRow:
    row = RunRow(
        id=number,
        job="pay",
        definition="d1",
        bundles=(),
        params="{}",
        secrets=(),
        durability=2,
        created=number,
    )
    return row._replace(**changes)


def state_row(number: int, state: int = RUNNING, **changes: Any) -> RunStateRow:
    row = RunStateRow(
        id=number,
        state=state,
        level=0,
        flags=0,
        causes=(),
        begun=True,
        started=number,
        ended=number + 5 if state >= SUCCEEDED else None,
        spent=0,
        recovered=0,
        fruitless=0,
    )
    return row._replace(**changes)


def step_row(run: int, unit: int = 0, value: bytes | None = b"1", **changes: Any) -> StepRow:
    row = StepRow(
        run=run,
        unit=unit,
        task=unit,
        place=None,
        state=TASK_SUCCEEDED,
        attempts=1,
        forgiven=0,
        started=1,
        ended=2,
        due=None,
        form=ValueForm.NONE if value is None else ValueForm.JSON,
        value=value,
        failure=None,
    )
    return row._replace(**changes)


def moves_row(run: int, first: int, *moves: int, life: int = 1) -> MovesRow:
    return MovesRow(run, first, life, 1, b"".join(move.to_bytes(8, "little", signed=True) for move in moves))


def life_row(number: int = 1) -> LifeRow:
    return LifeRow(number, 1, 100, "0.2", None)


def begin(number: int, **changes: Any) -> tuple[Any, ...]:
    """The rows of a run that is submitted."""
    return (MetaRow(number + 1, number), DEFINITION, run_row(number, **changes), state_row(number))

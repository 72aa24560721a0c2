"""A small engine over a journal, killed at its k-th commit, before and after it; a program of its own.

`python killprogram.py FOLDER FIRST LAST SECOND [careless]`: for each k from FIRST to LAST a journal is made by a child that is killed
at its k-th commit, taken up by one that is killed at one of its first SECOND commits, and by one that comes to the
end. After each death the journal is checked. Runs: draw -> charge (a map of 3, one of them fails at first) -> total -> tidy.
What the bodies do to the world is a line in a file each, with the number that `draw` gave: no charge may be made under two.
Prints how many deaths there were, and what was wrong. A careless engine does not wait for its commits: that must be seen.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parents[1]))

from journalrows import Loop, moves_row, run_row, state_row, step_row

from scattersphere.abc.journal import AttemptRow, DefinitionRow, LifeRow, LogRow, MetaRow, ValueForm
from scattersphere.journal import SqliteJournal
from scattersphere.journal.check import check
from scattersphere.journal.writer import JournalWriter
from scattersphere.model.logs import pack_lines

TEXT = """{"name": "pay", "tasks": {
  "draw": {"task": "Draw"},
  "charge": {"task": "Charge", "map": {"n": {"$result": "draw"}}, "retry": {"max_attempts": 2}},
  "total": {"task": "Total", "depends_on": ["charge"]},
  "tidy": {"task": "Tidy", "finally": true}}}"""
DRAW, CHARGE, TOTAL, TIDY, FIRST = range(5)
WIDTH, RUNS = 3, 2
RUNNING, RETRY, OK, FAILED = 1, 3, 4, 5
CARELESS = False
LARGE = '"' + "x" * 70_000 + '"'


class Engine:
    """Carries out runs of the one job, strictly: what it goes on from is committed."""

    def __init__(self, path: str, effects: str) -> None:
        self.loop, self.journal = Loop(), SqliteJournal(path, keep=(1, 9e9))
        self.state = self.journal.open(self.loop)
        self.life = len(self.state.lives) + 1
        self.effects = open(effects, "a", buffering=1)  # noqa: PTH123, SIM115 - as long as the program
        self.rows: list[Any] = []
        self.held: list[Any] = []

    def commit(self, *, outcome: bool = False) -> None:
        rows, self.rows = self.rows, []
        if CARELESS and outcome:  # with the next transaction, then: what reads it goes on meanwhile
            self.held += rows
            return
        rows, self.held = [*self.held, *rows], []
        self.loop.commit(self.journal, *rows)

    def recover(self) -> list[Run]:
        self.rows.append(LifeRow(self.life, self.life, os.getpid(), "0", None))
        runs = [Run(self, stored) for stored in self.journal.read_runs(self.state.unfinished)]
        for run in runs:
            run.recover()
        self.commit()
        return runs

    def carry_out(self) -> None:
        for run in self.recover():
            run.carry_out()
        number = top = self.state.next_run
        for _ in range(RUNS - len(self.journal.find_runs())):
            if number >= top:
                top += 2
                self.rows.append(MetaRow(top, 1))
                self.commit()
            run = Run(self, None, number)
            run.submit()
            run.carry_out()
            number += 1
        self.rows.append(LifeRow(self.life, self.life, os.getpid(), "0", self.life))
        self.commit()
        self.journal.close()


class Run:
    def __init__(self, engine: Engine, stored: Any, number: int = 0) -> None:
        self.engine, self.number = engine, stored.run.id if stored else number
        self.state = stored.state if stored else state_row(number, widths=json.dumps({CHARGE: WIDTH}))
        self.steps = {step.unit: step for step in stored.steps} if stored else {}
        self.place = sum(len(row.moves) // 8 for row in stored.moves) if stored else 0
        self.lines = sum(row.lines for row in engine.journal.read_log(self.number)) if stored else 0

    def move(self, *entries: int) -> None:
        self.engine.rows.append(moves_row(self.number, self.place, *entries, life=self.engine.life))
        self.place += len(entries)

    def put(self, step: Any) -> None:
        self.steps[step.unit] = step
        self.engine.rows.append(step)

    def submit(self) -> None:
        definition = DefinitionRow("d", "pay", TEXT)
        self.engine.rows += [definition, run_row(self.number, definition="d"), self.state]
        self.move(~1)
        self.engine.commit()

    def recover(self) -> None:
        self.state = self.state._replace(
            recovered=self.state.recovered + 1, fruitless=self.state.fruitless + 1
        )
        self.engine.rows.append(self.state)
        for step in [*self.steps.values()]:
            if step.state == RUNNING and step.attempts:
                self.engine.rows.append(AttemptRow(self.number, step.unit, step.attempts, 1, None, 1))
                self.put(step._replace(state=RETRY, forgiven=step.forgiven + 1))

    def carry_out(self) -> None:
        order = self.unit(DRAW, DRAW, None, lambda key: self.effect(key, uuid.uuid4().hex[:8]))
        if CHARGE not in self.steps:
            self.put(step_row(self.number, CHARGE, None, state=RUNNING, attempts=0, ended=None))
            self.move(CHARGE << 4 | RUNNING)
        for place in range(WIDTH):
            self.unit(FIRST + place, CHARGE, place, lambda key: self.effect(key, order))
        if self.steps[CHARGE].state == RUNNING:
            self.put(step_row(self.number, CHARGE, None))
            self.move(CHARGE << 4 | OK)
        self.unit(TOTAL, TOTAL, None, lambda key: LARGE)
        self.unit(TIDY, TIDY, None, lambda key: self.effect(key, "tidy"))
        self.engine.rows.append(self.state._replace(state=6, ended=self.number))
        self.move(~6)
        self.engine.commit()

    def unit(self, unit: int, task: int, place: int | None, body: Any) -> Any:
        none = {"form": ValueForm.NONE, "value": None, "ended": None}
        step = self.steps.get(unit) or step_row(
            self.number, unit, None, task=task, place=place, state=0, attempts=0, ended=None
        )
        while step.state != OK:
            step = step._replace(state=RUNNING, attempts=step.attempts + 1, **none)
            if self.state.recovered:  # the start is committed before the body
                self.put(step)
                self.move(unit << 4 | RUNNING)
                self.engine.commit()
            else:
                self.move(unit << 4 | RUNNING)
            value = body(f"{self.number}/{task}/{place}")
            self.lines += 1
            line = pack_lines([{"message": f"{unit}"}])
            self.engine.rows.append(LogRow(self.number, self.lines, 1, line))
            if place == 1 and step.attempts - step.forgiven == 1:
                self.engine.rows.append(AttemptRow(self.number, unit, step.attempts, FAILED, None, 1))
                step = step._replace(state=RETRY, due=1)
            else:
                data = value.encode() if value is LARGE else json.dumps(value).encode()
                step = step._replace(state=OK, form=ValueForm.JSON, value=data, ended=2, due=None)
            self.put(step)
            self.move(unit << 4 | step.state)
            self.engine.commit(outcome=True)
        value = self.engine.journal.read_value(step)[1] if step.form == ValueForm.FILE else step.value
        return json.loads(value)

    def effect(self, key: str, what: str) -> str:
        self.engine.effects.write(f"{key} {what}\n")
        return what


def die_at(number: int, *, before: bool) -> None:
    """Have this process killed at a commit: inside the transaction, or when it is durable and nobody was told."""
    commit, count = JournalWriter._commit, 0

    def counted(self: Any, batch: Any) -> None:
        nonlocal count
        count += 1
        if count == number and before:
            self._connection.set_trace_callback(
                lambda sql: sql == "COMMIT" and os.kill(os.getpid(), signal.SIGKILL)
            )
        commit(self, batch)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    JournalWriter._commit = counted  # type: ignore[method-assign]


def in_child(work: Callable[[], object], number: int, *, before: bool) -> int:
    """Do the work in a child, which is killed at a commit; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if number:
                die_at(number, before=before)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not go on as its parent
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, first: int, last: int, second: int) -> None:
    total: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    cases = [
        (k, j, before)
        for k in range(first, last + 1)
        for j in range(1, second + 1)
        for before in (True, False)
    ]
    for case in cases:
        k, j, before = case
        home = folder / f"{k}-{j}-{before}"
        home.mkdir(0o700)
        path, effects = str(home / "runs.db"), str(home / "effects")
        Path(effects).touch()
        for number in (k, j, 0):
            code = in_child(lambda: Engine(path, effects).carry_out(), number, before=before)  # noqa: B023
            total["kills" if code == -signal.SIGKILL else "ends" if code == 0 else "errors"] += 1
            if Path(path).exists() and Path(path).stat().st_size:
                wrong += [f"{case}: {finding}" for finding in check(path)]
        charged = collections.defaultdict(set)
        for line in Path(effects).read_text().splitlines():
            key, what = line.split()
            if key.split("/")[1] == str(CHARGE):
                charged[key.split("/")[0]].add(what)
        wrong += [
            f"{case}: run {run} charged under {sorted(ids)}" for run, ids in charged.items() if len(ids) > 1
        ]
        files = [*Path(f"{path}.values").iterdir()]
        wrong += [f"{case}: {len(files)} files of values"] if len(files) != 1 else []
    sys.stdout.write(json.dumps({"cases": len(cases), **total, "wrong": wrong[:20]}))


if __name__ == "__main__":
    CARELESS = sys.argv[5:] == ["careless"]
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

"""History: the runs of a Server, those in memory and those that only its journal has.

A list shows rows; one run is a `Run`, made of its rows as it is when a restart restores it.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._text import did_you_mean
from scattersphere.errors import ArgumentError, NoSuchRunError
from scattersphere.jobs.jobs import job_name_of
from scattersphere.model.arguments import check_count, check_text
from scattersphere.model.dicts import iso
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from scattersphere.abc.journal import StoredRun
    from scattersphere.engine.run import Run
    from scattersphere.jobs.storedruns import StoredRuns
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.dicts import RunSummaryDict

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
RUN_STATES = tuple(RunState)
PAGE = 500
"""Rows of the journal that are looked at in one go: some ten milliseconds, in a thread."""
MOST_LOOKED_AT = 10_000
"""Rows of the journal that one search looks at: a third of a second of a thread. What comes after is asked for anew."""
LOOKED_AT = 32
"""Runs out of the journal that stay in memory for who looks at them again."""


@attrs.frozen(kw_only=True)
class RunSummary:
    """A run in a list: what is known of it without its tasks. Times are aware UTC."""

    id: int
    job: str
    state: RunState
    reason: str
    """All causes for which it is ending or has ended early; "" where there are none."""
    created_at: dt.datetime
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    parent: int | None
    """The run that started this one, or that it repeats."""
    key: str | None
    recovered: int
    """How many restarts of the Server it has survived."""
    is_in_memory: bool
    """Whether `server.runs` has it; else it is only in the journal, and `history.get` reads it."""
    of_task: str | None = attrs.field(default=None, repr=False)
    """The bundle of the task, where it is a run of one task; None for runs of jobs."""

    def as_dict(self) -> RunSummaryDict:
        """Return it as plain data."""
        return {
            "id": self.id,
            "job": self.job,
            "state": str(self.state),
            "reason": self.reason,
            "created_at": self.created_at.isoformat(),
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "parent": self.parent,
            "key": self.key,
            "recovered": self.recovered,
            "is_in_memory": self.is_in_memory,
        }


class RunList(list[RunSummary]):
    """Runs, newest first, and where the list goes on."""

    before: int | None = None
    """`history.list(before=...)` goes on there: the list is full, or has looked at as much of the journal as one
    search may. None where there is nothing more."""


class History:
    """All runs that are known: live ones, ended ones in memory, and those that the journal keeps."""

    def __init__(self, runs: Mapping[int, Run], check: Callable[[], None]) -> None:
        self._runs = runs
        self._check = check
        self._read: OrderedDict[tuple[int, bool], Run] = OrderedDict()
        """Those that were read out of the journal last."""
        self._stored: StoredRuns | None = None

    def _open(self, stored: StoredRuns) -> None:
        """Have what a journal has, too."""
        self._stored = stored

    @property
    def has_journal(self) -> bool:
        """Whether a journal keeps runs that memory has let go of."""
        return self._stored is not None

    def __repr__(self) -> str:
        more = "" if self._stored is None else ", others in the journal"
        return f"<History: {len(self._runs)} runs in memory{more}>"

    async def list(
        self,
        *,
        job: str | None = None,
        state: RunState | str | None = None,
        since: dt.datetime | None = None,
        before: int | None = None,
        limit: int = 100,
        where: Callable[[RunSummary], bool] | None = None,
    ) -> RunList:
        """Return runs, newest first: of a job, in a state, created since a time, with numbers below `before`.

        `where` chooses among those; of the journal it is shown 10,000 at most in one search. `before` of what is
        returned says where the list goes on, if it does. Raises `ArgumentError`, `TypeError`, `JournalError`.
        """
        self._check()
        check_text(job, "job", optional=True)
        check_count(before, "before", optional=True)
        check_count(limit, "limit")
        wanted = _Wanted(job, _state(state), _instant(since), where)
        known = frozenset(self._runs)  # now: one that leaves memory while the journal is read is listed once
        found = RunList(islice(filter(wanted.takes, self._in_memory(before)), limit + 1))
        looked_to = None
        if self._stored is not None:
            more, looked_to = await self._in_journal(self._stored, wanted, before, limit + 1, known)
            found.extend(more)
        if looked_to is not None:  # what lies behind that in memory comes when the list goes on there
            found[:] = [record for record in found if record.id >= looked_to]
        found.sort(key=lambda record: -record.id)
        found.before = looked_to if len(found) <= limit else found[limit - 1].id
        del found[limit:]
        return found

    def _in_memory(self, before: int | None) -> Iterator[RunSummary]:
        for number in sorted(self._runs, reverse=True):
            if before is None or number < before:
                yield record_of(self._runs[number])

    async def _in_journal(
        self,
        stored_runs: StoredRuns,
        wanted: _Wanted,
        before: int | None,
        limit: int,
        known: Collection[int],
    ) -> tuple[RunList, int | None]:
        """Return what was found, and the number of the last run that was looked at; None: there are no more."""
        found = RunList()
        for _ in range(0, MOST_LOOKED_AT, PAGE):
            rows = await stored_runs.find_runs(wanted.job, wanted.state, wanted.since, before, PAGE)
            for stored in rows:
                if stored.run.id in known:  # what memory had is newer; by now it may have let go of it
                    continue
                record = _record_of(stored, await stored_runs.definition_of(stored))
                if wanted.takes(record):
                    found.append(record)
            if len(rows) < PAGE:
                return found, None
            before = rows[-1].run.id
            if len(found) >= limit:
                break
        return found, before

    async def get(self, run_id: int, *, results: bool = True) -> Run:
        """Return a run, of memory or out of the journal: an ended one, as it was.

        Without `results` those of the journal are not read, and no code is loaded for them: enough to look at states,
        failures, times and the log. Raises `NoSuchRunError`, `JournalError`.
        """
        self._check()
        check_count(run_id, "run_id")
        run = self._runs.get(run_id)
        if run is not None:
            return run
        if self._stored is None:
            return self._runs[run_id]  # raises
        for known in ((run_id, True), (run_id, results)):
            if known in self._read:
                self._read.move_to_end(known)
                return self._read[known]
        run = await self._stored.ended_run(run_id, results=results)
        if run is None:
            raise NoSuchRunError(f"no run {run_id}: neither in memory nor in the journal")
        self._read[run_id, results and run.plan.has_code] = (
            run  # its code may be there when it is asked for again
        )
        while len(self._read) > LOOKED_AT:
            (number, _), _ = self._read.popitem(last=False)
            if number not in self._runs and not self._read.keys() & {(number, True), (number, False)}:
                self._stored.forget(number)
        return run


@attrs.frozen
class _Wanted:
    """Which runs a list is of."""

    job: str | None
    state: RunState | None
    since: dt.datetime | None
    where: Callable[[RunSummary], bool] | None

    def takes(self, record: RunSummary) -> bool:
        return (
            self.job in {None, record.job}
            and self.state in {None, record.state}
            and (self.since is None or record.created_at >= self.since)
            and (self.where is None or self.where(record))
        )


def _state(state: RunState | str | None) -> RunState | None:
    try:
        return None if state is None else RunState(state)
    except ValueError:
        hint = did_you_mean(str(state), list(map(str, RunState)))
        raise ArgumentError(f"no state {state!r} of runs{hint}") from None


def _instant(since: dt.datetime | None) -> dt.datetime | None:
    if since is not None and since.tzinfo is None:
        raise ArgumentError("since needs a time zone: dt.datetime.now(dt.UTC) - dt.timedelta(days=1)")
    return since


def record_of(run: Run) -> RunSummary:
    """Return a run in memory as a row of a list."""
    return RunSummary(
        id=run.id,
        job=run.job,
        state=run.state,
        reason=run.reason,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        parent=run.parent,
        key=run.key,
        recovered=run.recovered,
        is_in_memory=True,
        of_task=bundle_of_task(run.definition),
    )


def _record_of(stored: StoredRun, definition: JobDefinition | None) -> RunSummary:
    run, state = stored.run, stored.state
    return RunSummary(
        id=run.id,
        job=run.job,
        state=RUN_STATES[state.state],
        reason="; ".join(state.causes) or state.failure or "",
        created_at=_time(run.created),
        started_at=None if state.started is None else _time(state.started),
        ended_at=None if state.ended is None else _time(state.ended),
        parent=run.parent if run.parent is not None else run.again,
        key=run.key,
        recovered=state.recovered,
        is_in_memory=False,
        of_task=None if definition is None else bundle_of_task(definition),
    )


def bundle_of_task(definition: JobDefinition) -> str | None:
    """Return the bundle of the one task of a run of one task; None for the run of a job.

    The former has the path of its class for the name of its job and its task. A job may well have one task of its name.
    """
    task: Any = definition.tasks.get(definition.name) if len(definition.tasks) == 1 else None
    if task is None or job_name_of(task.task) != definition.name:
        return None
    return task.bundle or ""


def _time(micros: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=micros)  # exactly: `since` is compared with it

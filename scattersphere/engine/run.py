"""Run: what a host holds of a plan being carried out."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from scattersphere._lifecycle import ForkGuard
from scattersphere.definitions.shown import shown
from scattersphere.engine.events.streams import EventStream, LogStream
from scattersphere.engine.machine.codes import TASK_STATES
from scattersphere.engine.status import WHOLE, Results, Tasks, task_number
from scattersphere.engine.views.explain import explain
from scattersphere.engine.views.outcome import exceptions_of, failed_error, result_of
from scattersphere.engine.views.pictures import (
    RunPicture,
    run_nodes,
    run_page,
    run_picture,
    title_of,
    trace,
)
from scattersphere.engine.views.statistics import statistics
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.arguments import check_count, check_seconds
from scattersphere.model.dicts import iso
from scattersphere.model.states import RunState, TaskState
from scattersphere.pictures.job import JobPictures

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from scattersphere.engine.execution import Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.reused import Reused
    from scattersphere.engine.views.statistics import RunStatistics
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.dicts import RunDict
    from scattersphere.model.logs import LogLine
    from scattersphere.schedules.occurrences import ScheduledFor


def _check_choice(index: int | None, attempt: int | None, tail: int | None) -> None:
    """Check which lines of a log are wanted. Raises `TypeError`, `ArgumentError`."""
    check_count(index, "index", least=0, optional=True)
    check_count(attempt, "attempt", optional=True)
    check_count(tail, "tail", least=0, optional=True)


class Run(ForkGuard):
    """A numbered run. Requests are plain methods for the loop's thread: accepted or raising at once."""

    def __init__(self, execution: Execution, executor: JobExecutor) -> None:
        self._execution = execution
        self._executor = executor
        self._bind()

    def __repr__(self) -> str:
        done = sum(TASK_STATES[state].ended for state in self._task_codes)
        execution = self._execution
        job, state = execution.plan.job, execution.state
        return f"<Run {execution.id} of {job}: {state}, {done} of {len(self._task_codes)} tasks ended>"

    @property
    def _task_codes(self) -> bytes:
        return bytes(self._execution.machine.record.task_states[: len(self._execution.plan.tasks)])

    @property
    def id(self) -> int:
        """The number; strictly increasing, never reused by a Server."""
        return self._execution.id

    @property
    def job(self) -> str:
        """The name of the job."""
        return self._execution.plan.job

    @property
    def parent(self) -> int | None:
        """The id of the run that started this one, or that it repeats."""
        return self._execution.parent

    @property
    def scheduled(self) -> ScheduledFor | None:
        """By which schedule it was started, and for when; None where somebody started it."""
        return self._execution.scheduled

    @property
    def recovered(self) -> int:
        """How many restarts of the Server it has survived, with a journal."""
        return self._execution.recovered

    @property
    def execution(self) -> Execution:
        """The engine's own record; not part of the contract."""
        return self._execution

    @property
    def reused(self) -> Mapping[str, Reused]:
        """Where results come from that this run took over from an earlier one, by task; see `Server.rerun`."""
        return MappingProxyType(self._execution.reused)

    @property
    def key(self) -> str | None:
        """The key that `start` was given, for which the same request gives this run again."""
        return self._execution.key

    @property
    def user(self) -> str:
        """Who has asked for it: as `start` was told, over the network the name of the token; "" for the host."""
        return self._execution.user

    @property
    def plan(self) -> Plan:
        """The definition and the versions of code that this run sees."""
        return self._execution.plan

    @property
    def definition(self) -> JobDefinition:
        """The version of the definition that it runs, whatever the job's name stands for by now.

        Its `digest` tells versions apart.
        """
        return self._execution.plan.definition

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters with their defaults; secret ones show as `***`."""
        return self._execution.shown_params

    @property
    def state(self) -> RunState:
        """Where the run is."""
        return self._execution.state

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state is RunState.SUCCEEDED

    @property
    def reason(self) -> str:
        """All causes for which it is ending or has ended early; "" where there are none."""
        return "; ".join(self._execution.machine.record.causes)

    @property
    def waits_for(self) -> str:
        """What the run itself waits for: a slot, and who has it, a resume, after a restart its code or its secrets.

        "" for nothing.
        """
        if self._execution.state.ended:
            return ""
        return self._execution.engine.waits.of_run(self._execution)

    @property
    def tasks(self) -> Tasks:
        """Where each task is, by name."""
        return Tasks(self._execution)

    @property
    def counts(self) -> Mapping[TaskState, int]:
        """How many tasks are in each state; quick, however many there are."""
        codes = self._task_codes
        return Counter({TASK_STATES[code]: codes.count(code) for code in dict.fromkeys(codes)})

    def picture(self) -> RunPicture:
        """Return what pictures of the run show; `scattersphere.pictures` draws it. May be called in any thread."""
        return run_picture(self._execution, self._executor.clock())

    @property
    def results(self) -> Results:
        """The results of the tasks that succeeded, by name."""
        return Results(self._execution)

    def as_dict(self) -> RunDict:
        """Return the run, its tasks and its results as plain data: `json.dumps(run.as_dict())`."""
        return {
            "id": self.id,
            "job": self.job,
            "state": str(self.state),
            "succeeded": self.succeeded,
            "reason": self.reason,
            "parent": self.parent,
            "key": self.key,
            "created_at": self.created_at.isoformat(),
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "params": {name: shown(value, WHOLE) for name, value in self.params.items()},
            "tasks": {name: status.as_dict() for name, status in self.tasks.items()},
            "results": self.results.as_dict(),
            "stuck": self.stuck,
        }

    @property
    def result(self) -> Any:
        """What the run came to: the result of the one task that no other waits for, or a mapping of those of several.

        Raises `RunStateError` before the end, `RunFailedError` unless it has succeeded, `KeyError` where that one
        result was dropped (`keep_results: false`) or its task skipped.
        """
        self.raise_if_failed()
        return result_of(self._execution, self.results)

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """The exceptions of the tasks that failed, by name, the first one first; `tasks[...].failure` has the text.

        It is the very exception that the task raised, with the user's own frames. Of the code of a bundle it is a
        stand-in of the same name, message and bases, whose note is the traceback: the exception would keep the
        version of the code alive.
        """
        return MappingProxyType(exceptions_of(self._execution))

    def raise_if_failed(self) -> Self:
        """Raise `RunFailedError` if the run has ended and did not succeed; return it otherwise."""
        if self.state.ended and not self.succeeded:
            error = failed_error(self._execution)
            error.run = self
            raise error
        return self

    @property
    def stuck(self) -> dict[str, str]:
        """The attempts that refuse to end, and where each stands ("file.py:12 in run")."""
        return {
            attempt.label: self._executor.attempts.where(attempt)
            for attempt, execution in self._executor.stuck.items()
            if execution is self._execution
        }

    @property
    def created_at(self) -> dt.datetime:
        """When `start` was called."""
        return self._execution.wall(self._execution.created_at)

    @property
    def started_at(self) -> dt.datetime | None:
        """When it got its slot."""
        at = self._execution.started_at
        return None if at is None else self._execution.wall(at)

    @property
    def ended_at(self) -> dt.datetime | None:
        """When it ended."""
        at = self._execution.ended_at
        return None if at is None else self._execution.wall(at)

    @property
    def last_event(self) -> int:
        """The number of the newest event; `events(since=...)` takes it to tell only what follows."""
        return self._execution.journal.last

    # ---- requests

    def pause(self) -> None:
        """Start no further task; hold those that reach a checkpoint. Raises `RunStateError`."""
        self._request("pause", None, None)

    def resume(self) -> None:
        """Go on after a pause. Raises `RunStateError`."""
        self._request("resume", None, None)

    def stop(self, reason: str | None = None) -> None:
        """Start no further task, let the executing ones finish. Raises `RunStateError`."""
        self._request("stop", reason, None)

    def cancel(self, reason: str | None = None, *, grace: float | None = None) -> None:
        """Cancel what executes, with `grace` seconds to clean up. Raises `RunStateError`.

        Asked once more, a grace that ends earlier counts; one that ends later changes nothing of what is cancelled.
        """
        self._request("cancel", reason, grace)

    def kill(self, reason: str | None = None) -> None:
        """End everything now, finally-tasks too. Raises `RunStateError`."""
        self._request("kill", reason, None)

    def _request(self, verb: str, reason: str | None, grace: float | None) -> None:
        self._executor.check_loop()
        self._executor.requests.request(self._execution, verb, reason, grace)

    def _check_stream(self) -> None:
        if not self.state.ended:  # else nothing is waited for
            self._executor.check_loop()

    # ---- watching

    async def wait(self, timeout: float | None = None) -> Self:  # noqa: ASYNC109 - the name is the contract
        """Wait for the end and return this run. Raises `TimeoutError` after `timeout` seconds."""
        if timeout is not None:
            check_seconds(timeout, "timeout", optional=True, endless=True)
        execution = self._execution
        if not execution.state.ended:  # else nothing is waited for
            self._executor.check_loop()
        in_body = current_attempt.get() is not None
        wait = (
            self._executor.requests.wait_in_body(execution, timeout) if in_body else execution.wait(timeout)
        )
        if not await wait:
            raise TimeoutError(f"run {self.id} is still {self.state} after {timeout:g} s")
        return self

    def __await__(self) -> Generator[Any, Any, Self]:
        """Wait for the end: `await run` is `await run.wait()`."""
        return self.wait().__await__()

    def events(self, since: int | str = 0) -> EventStream:
        """Yield the events above number `since`, from the first one on, until the run has ended.

        `since` may be an `Event.id`: of one of an earlier life of the Server a `lagged` event comes first, then all of
        this life, from `run-recovered` on. Raises `TypeError`, `ArgumentError`.
        """
        self._check_stream()
        return EventStream(self._execution, since)

    def logs(
        self,
        task: str | None = None,
        *,
        index: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> list[LogLine]:
        """Return the kept log lines, oldest first, of the run or of one task, instance or attempt."""
        if task is not None:
            task_number(self._execution, task)
        _check_choice(index, attempt, tail)
        return self._execution.log.lines(task=task, index=index, attempt=attempt, tail=tail)

    def follow_logs(
        self,
        task: str | None = None,
        *,
        index: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> LogStream:
        """Yield the lines that `logs` returns, then those to come, until the run has ended."""
        self._check_stream()
        _check_choice(index, attempt, tail)
        return LogStream(self._execution, task, index, attempt, tail)

    @property
    def log_file(self) -> Path | None:
        """The file with the whole log, one JSON object a line (`Server(log_folder=...)`); None where there is none."""
        return self._execution.log.file

    @property
    def statistics(self) -> RunStatistics:
        """When the run and its tasks were queued, started and ended; how often they were tried; how long it took."""
        return statistics(self._execution, self._executor.clock())

    def to_mermaid(self) -> str:
        """Return the job as a Mermaid flowchart, each task with its state and time."""
        return self._pictures().mermaid()

    def to_dot(self) -> str:
        """Return the job in the language of Graphviz, each task with its state and time."""
        return self._pictures().dot()

    def to_tree(self) -> str:
        """Return the job as a tree for a terminal, each task with its state and time."""
        return self._pictures().tree()

    def to_svg(self) -> str:
        """Return the job as an SVG document, each task with its state and time."""
        return self._pictures().svg()

    def _pictures(self) -> JobPictures:
        return JobPictures(
            title_of(self._execution), run_nodes(self._execution), self.plan.definition.upstreams
        )

    def _repr_html_(self) -> str:
        """Show the run in a notebook: failures, graph and timeline."""
        return run_page(self._execution, self._executor.clock())

    def to_trace(self) -> str:
        """Return the timeline of the attempts as JSON in the Trace Event Format; Perfetto opens it."""
        return trace(self._execution, self._executor.clock())

    def explain(self) -> str:
        """Return what happened, for a terminal: failures with their tracebacks first, then the tree of tasks."""
        return explain(self._execution, self._executor.clock(), self.stuck)

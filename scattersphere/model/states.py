"""The states of runs and tasks, and every move between them, as data.

The tables are those of the design, section 5. The machine asserts each move against them, the docs
draw their diagram from them, and a test walks them. Nothing else in the package may invent a move.
"""

from __future__ import annotations

from enum import StrEnum

import attrs


class RunState(StrEnum):
    """Where a run is. The last five are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    ended: bool
    """Whether nothing can change any more."""


class TaskState(StrEnum):
    """Where a task, or one instance of a mapped task, is. The last six are terminal."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    UP_FOR_RETRY = "up_for_retry"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    ended: bool
    """Whether nothing can change any more."""


class TriggerRule(StrEnum):
    """When a task starts, given how its upstream tasks ended (design, section 5)."""

    ALL_SUCCESS = "all_success"
    NONE_FAILED = "none_failed"
    ALL_DONE = "all_done"
    ALL_FAILED = "all_failed"
    ONE_FAILED = "one_failed"
    ONE_SUCCESS = "one_success"


class Overlap(StrEnum):
    """What happens to a start when the job's `max_runs` is reached."""

    QUEUE = "queue"
    REFUSE = "refuse"
    REPLACE = "replace"


class Durability(StrEnum):
    """What a crash of the program may take from a run of a job, where the Server has a journal."""

    STRICT = "strict"
    RELAXED = "relaxed"
    NONE = "none"


class TaskRestart(StrEnum):
    """What becomes of a task that was executing when the program died: it runs again, or it has crashed."""

    RETRY = "retry"
    FAIL = "fail"


class RunRestart(StrEnum):
    """What becomes of an unfinished run when the program comes back: it goes on, or it has crashed."""

    RECOVER = "recover"
    CRASH = "crash"


RUN_ENDED = frozenset(list(RunState)[6:])
TASK_ENDED = frozenset(list(TaskState)[4:])
for _run_state in RunState:  # attributes, not properties: they are asked for all the time
    _run_state.ended = _run_state in RUN_ENDED
for _task_state in TaskState:
    _task_state.ended = _task_state in TASK_ENDED
TASK_FAILURE = frozenset({TaskState.FAILED, TaskState.CRASHED, TaskState.UPSTREAM_FAILED})


@attrs.frozen
class RunMove:
    """One row of the run table: from `source`, because of `cause`, to `target`."""

    source: RunState
    target: RunState
    cause: str


@attrs.frozen
class TaskMove:
    """One row of the task table: from `source`, because of `cause`, to `target`."""

    source: TaskState
    target: TaskState
    cause: str


_R, _T = RunState, TaskState

RUN_MOVES: tuple[RunMove, ...] = (
    RunMove(_R.QUEUED, _R.RUNNING, "slot"),
    RunMove(_R.QUEUED, _R.PAUSED, "pause"),
    RunMove(_R.QUEUED, _R.STOPPED, "stop"),
    RunMove(_R.QUEUED, _R.CANCELLED, "cancel, kill"),
    RunMove(_R.RUNNING, _R.PAUSING, "pause"),
    RunMove(_R.RUNNING, _R.STOPPING, "stop"),
    RunMove(_R.RUNNING, _R.CANCELLING, "cancel, kill, timeout"),
    RunMove(_R.RUNNING, _R.SUCCEEDED, "all ended"),
    RunMove(_R.RUNNING, _R.FAILED, "all ended"),
    RunMove(_R.PAUSING, _R.PAUSED, "all held"),
    RunMove(_R.PAUSING, _R.RUNNING, "resume"),
    RunMove(_R.PAUSING, _R.STOPPING, "stop"),
    RunMove(_R.PAUSING, _R.CANCELLING, "cancel, kill, timeout"),
    RunMove(_R.PAUSING, _R.SUCCEEDED, "all ended"),
    RunMove(_R.PAUSING, _R.FAILED, "all ended"),
    RunMove(_R.PAUSED, _R.RUNNING, "resume"),
    RunMove(_R.PAUSED, _R.QUEUED, "resume, never started"),
    RunMove(_R.PAUSED, _R.STOPPED, "stop, never started"),
    RunMove(_R.PAUSED, _R.CANCELLED, "cancel, kill, never started"),
    RunMove(_R.PAUSED, _R.STOPPING, "stop"),
    RunMove(_R.PAUSED, _R.CANCELLING, "cancel, kill, timeout"),
    RunMove(_R.PAUSED, _R.SUCCEEDED, "all ended"),
    RunMove(_R.PAUSED, _R.FAILED, "all ended"),
    RunMove(_R.STOPPING, _R.STOPPED, "all ended, something withheld"),
    RunMove(_R.STOPPING, _R.SUCCEEDED, "all ended"),
    RunMove(_R.STOPPING, _R.FAILED, "all ended"),
    RunMove(_R.STOPPING, _R.CANCELLING, "cancel, kill, timeout"),
    RunMove(_R.CANCELLING, _R.CANCELLED, "all ended or given up"),
    RunMove(_R.CANCELLING, _R.FAILED, "all ended or given up, first cause was the timeout"),
    *(RunMove(state, _R.CRASHED, "engine failed") for state in list(RunState)[:6]),
)

TASK_MOVES: tuple[TaskMove, ...] = (
    TaskMove(_T.PENDING, _T.RUNNING, "start"),
    TaskMove(_T.PENDING, _T.SKIPPED, "rule unmet, run_if false"),
    TaskMove(_T.PENDING, _T.UPSTREAM_FAILED, "rule unmet"),
    TaskMove(_T.PENDING, _T.CANCELLED, "withheld"),
    TaskMove(_T.PENDING, _T.SUCCEEDED, "map over an empty list, result reused"),
    TaskMove(_T.PENDING, _T.FAILED, "map over no list, argument missing"),
    TaskMove(_T.RUNNING, _T.SUCCEEDED, "value"),
    TaskMove(_T.RUNNING, _T.FAILED, "exception"),
    TaskMove(_T.RUNNING, _T.CRASHED, "process died"),
    TaskMove(_T.RUNNING, _T.UP_FOR_RETRY, "exception, attempts left"),
    TaskMove(_T.RUNNING, _T.CANCELLING, "cancel, timeout"),
    TaskMove(_T.RUNNING, _T.CANCELLED, "map cut short"),
    TaskMove(_T.CANCELLING, _T.SUCCEEDED, "value"),
    TaskMove(_T.CANCELLING, _T.CANCELLED, "gave in to a cancel, grace over"),
    TaskMove(_T.CANCELLING, _T.FAILED, "exception, gave in to a timeout, grace over"),
    TaskMove(_T.CANCELLING, _T.UP_FOR_RETRY, "gave in to a timeout, attempts left"),
    TaskMove(_T.CANCELLING, _T.CRASHED, "process died"),
    TaskMove(_T.UP_FOR_RETRY, _T.RUNNING, "due"),
    TaskMove(_T.UP_FOR_RETRY, _T.CANCELLED, "withheld"),
    *(TaskMove(state, _T.CRASHED, "engine failed") for state in (_T.PENDING, _T.UP_FOR_RETRY)),
)

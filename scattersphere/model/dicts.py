"""TypedDicts: the shapes of what `as_dict()` returns, as `json`, pydantic and web frameworks take it.

Times are ISO 8601 in UTC, states and kinds are their words, durations are seconds. Annotations are not postponed here:
`NotRequired` is only seen by `typing`, and by pydantic, where it is evaluated.
"""

import datetime as dt
from typing import Any, NotRequired, TypedDict


class FailureDict(TypedDict):
    """Why a task failed."""

    type: str
    message: str
    traceback: str


class TaskStatusDict(TypedDict):
    """Where a task of a run is."""

    name: str
    index: int | None
    state: str
    attempts: int
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    failure: FailureDict | None
    stuck: bool


class RunSummaryDict(TypedDict):
    """A run in a list of the history."""

    id: int
    job: str
    state: str
    reason: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    parent: int | None
    key: str | None
    recovered: int
    is_in_memory: bool


class RunDict(TypedDict):
    """A run. `params` hides secrets; `results` are shown as JSON, with `{"repr": ...}` for what has no such form."""

    id: int
    job: str
    state: str
    succeeded: bool
    reason: str
    parent: int | None
    key: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    params: dict[str, Any]
    tasks: dict[str, TaskStatusDict]
    results: dict[str, Any]
    stuck: dict[str, str]


class EventDict(TypedDict):
    """An event: what it does not say is left out."""

    seq: int
    time: str
    kind: str
    run: NotRequired[int]
    job: NotRequired[str]
    task: NotRequired[str]
    index: NotRequired[int]
    attempt: NotRequired[int]
    state: NotRequired[str]
    message: NotRequired[str]
    done: NotRequired[float]
    total: NotRequired[float]
    level: NotRequired[int]
    bundle: NotRequired[str]
    dropped: NotRequired[int]
    schedule: NotRequired[str]
    life: NotRequired[int]


class LogLineDict(TypedDict):
    """A line of a log."""

    time: str
    run: int
    task: str
    index: int | None
    attempt: int
    level: int
    logger: str
    message: str


class TaskStatisticsDict(TypedDict):
    """The times of one task."""

    name: str
    state: str
    attempts: int
    queued_at: str | None
    started_at: str | None
    ended_at: str | None
    waiting: float | None
    running: float


class RunStatisticsDict(TypedDict):
    """The times of a run."""

    run: int
    job: str
    state: str
    queued_at: str
    started_at: str | None
    ended_at: str | None
    waiting: float
    running: float
    attempts: int
    states: dict[str, int]
    tasks: dict[str, TaskStatisticsDict]


class BundleDict(TypedDict):
    """A bundle."""

    name: str
    path: str | None
    kind: str
    version: str | None
    digest: str | None
    error: str | None
    loaded_at: str | None
    tasks: list[str]
    runs: list[int]
    warnings: list[str]


def iso(time: dt.datetime | None) -> str | None:
    """Return a time as text."""
    return None if time is None else time.isoformat()

"""Scattersphere: an embeddable job engine.

Start with `Server`: enter it with `async with`, `register` a bundle of task code (or hand it your
own `RunnableTask` classes with `register_tasks`), `define` a `JobDefinition`, `start` it, and
`wait` for the `Run`. Everything raised derives from `ScattersphereError`.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from scattersphere.engine.reused import Reused
    from scattersphere.engine.run import Run
    from scattersphere.engine.status import TaskStatus
    from scattersphere.engine.views.statistics import RunStatistics, TaskStatistics
    from scattersphere.errors import (
        AmbiguousTaskError,
        ArgumentError,
        BundleBusyError,
        BundleError,
        BundleLoadError,
        BundleRefusedError,
        BusyError,
        ClosedError,
        ConflictError,
        DefinitionError,
        EngineError,
        ExistsError,
        FileChangedError,
        ForkedError,
        JournalBusyError,
        JournalError,
        MissingExtraError,
        NonRetryableError,
        NoSuchBundleError,
        NoSuchJobError,
        NoSuchRunError,
        NoSuchScheduleError,
        NoSuchTaskError,
        NotFoundError,
        RunFailedError,
        RunStateError,
        ScattersphereError,
        SuspendedError,
        TaskCancelled,
        TaskCrashedError,
        TaskDeclarationError,
        TaskFailedError,
        UnresolvedError,
        WrongLoopError,
    )
    from scattersphere.functions import TaskFunction, task
    from scattersphere.jobs.history import History, RunList, RunSummary
    from scattersphere.model.builder import JobBuilder, literal, param, result
    from scattersphere.model.definition import JobDefinition, Parameter, RetryPolicy, TaskDefinition
    from scattersphere.model.events import Event, EventKind
    from scattersphere.model.logs import LogLine
    from scattersphere.model.problem import Problem
    from scattersphere.model.schedules import MissedPolicy, ScheduleDefinition
    from scattersphere.model.states import Overlap, RunState, TaskState, TriggerRule
    from scattersphere.options import ServerKeywords, ServerOptions
    from scattersphere.registry.snapshots.scan import SourceLimits
    from scattersphere.runnable import RunnableTask, TaskContext
    from scattersphere.schedules.backfill import Backfill
    from scattersphere.schedules.occurrences import ScheduledFor
    from scattersphere.schedules.schedule import Schedule
    from scattersphere.server import Server
    from scattersphere.sync import SyncServer
    from scattersphere.syncrun import SyncHistory, SyncRun
    from scattersphere.syncschedules import SyncSchedule
    from scattersphere.undo import replace_attribute, replace_item
    from scattersphere.watching.debounce import WatchDelays

__all__ = [
    "AmbiguousTaskError",
    "ArgumentError",
    "Backfill",
    "BundleBusyError",
    "BundleError",
    "BundleLoadError",
    "BundleRefusedError",
    "BusyError",
    "ClosedError",
    "ConflictError",
    "DefinitionError",
    "EngineError",
    "Event",
    "EventKind",
    "ExistsError",
    "FileChangedError",
    "ForkedError",
    "History",
    "JobBuilder",
    "JobDefinition",
    "JournalBusyError",
    "JournalError",
    "LogLine",
    "MissedPolicy",
    "MissingExtraError",
    "NoSuchBundleError",
    "NoSuchJobError",
    "NoSuchRunError",
    "NoSuchScheduleError",
    "NoSuchTaskError",
    "NonRetryableError",
    "NotFoundError",
    "Overlap",
    "Parameter",
    "Problem",
    "RetryPolicy",
    "Reused",
    "Run",
    "RunFailedError",
    "RunList",
    "RunState",
    "RunStateError",
    "RunStatistics",
    "RunSummary",
    "RunnableTask",
    "ScattersphereError",
    "Schedule",
    "ScheduleDefinition",
    "ScheduledFor",
    "Server",
    "ServerKeywords",
    "ServerOptions",
    "SourceLimits",
    "SuspendedError",
    "SyncHistory",
    "SyncRun",
    "SyncSchedule",
    "SyncServer",
    "TaskCancelled",
    "TaskContext",
    "TaskCrashedError",
    "TaskDeclarationError",
    "TaskDefinition",
    "TaskFailedError",
    "TaskFunction",
    "TaskState",
    "TaskStatistics",
    "TaskStatus",
    "TriggerRule",
    "UnresolvedError",
    "WatchDelays",
    "WrongLoopError",
    "literal",
    "param",
    "replace_attribute",
    "replace_item",
    "result",
    "task",
]

_HOMES = {
    "scattersphere.errors": [
        "AmbiguousTaskError",
        "ArgumentError",
        "BundleBusyError",
        "BundleError",
        "BundleLoadError",
        "BundleRefusedError",
        "BusyError",
        "ClosedError",
        "ConflictError",
        "DefinitionError",
        "EngineError",
        "ExistsError",
        "FileChangedError",
        "ForkedError",
        "JournalBusyError",
        "JournalError",
        "MissingExtraError",
        "NoSuchBundleError",
        "NoSuchJobError",
        "NoSuchRunError",
        "NoSuchScheduleError",
        "NoSuchTaskError",
        "NonRetryableError",
        "NotFoundError",
        "RunFailedError",
        "RunStateError",
        "ScattersphereError",
        "SuspendedError",
        "TaskCancelled",
        "TaskCrashedError",
        "TaskDeclarationError",
        "TaskFailedError",
        "UnresolvedError",
        "WrongLoopError",
    ],
    "scattersphere.engine.reused": ["Reused"],
    "scattersphere.engine.run": ["Run"],
    "scattersphere.engine.status": ["TaskStatus"],
    "scattersphere.engine.views.statistics": ["RunStatistics", "TaskStatistics"],
    "scattersphere.model.builder": ["JobBuilder", "literal", "param", "result"],
    "scattersphere.jobs.history": ["History", "RunList", "RunSummary"],
    "scattersphere.model.definition": ["JobDefinition", "Parameter", "RetryPolicy", "TaskDefinition"],
    "scattersphere.model.events": ["Event", "EventKind"],
    "scattersphere.model.logs": ["LogLine"],
    "scattersphere.model.problem": ["Problem"],
    "scattersphere.model.schedules": ["MissedPolicy", "ScheduleDefinition"],
    "scattersphere.model.states": ["Overlap", "RunState", "TaskState", "TriggerRule"],
    "scattersphere.options": ["ServerKeywords", "ServerOptions"],
    "scattersphere.registry.snapshots.scan": ["SourceLimits"],
    "scattersphere.watching.debounce": ["WatchDelays"],
    "scattersphere.schedules.backfill": ["Backfill"],
    "scattersphere.schedules.occurrences": ["ScheduledFor"],
    "scattersphere.schedules.schedule": ["Schedule"],
    "scattersphere.server": ["Server"],
    "scattersphere.sync": ["SyncServer"],
    "scattersphere.syncrun": ["SyncHistory", "SyncRun"],
    "scattersphere.syncschedules": ["SyncSchedule"],
    "scattersphere.functions": ["TaskFunction", "task"],
    "scattersphere.runnable": ["RunnableTask", "TaskContext"],
    "scattersphere.undo": ["replace_attribute", "replace_item"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for first (PEP 562).

    `scattersphere --help`, a worker process and a program that only builds definitions need a part of the
    library each; all of it takes a quarter of a second.
    """
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

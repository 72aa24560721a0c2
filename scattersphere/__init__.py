"""Scattersphere: an embeddable job engine.

Start with `Server`: enter it with `async with`, `register` a bundle of task code (or hand it your
own `RunnableTask` classes with `register_tasks`), `define` a `JobDefinition`, `start` it, and
`wait` for the `Run`. Everything raised derives from `ScattersphereError`.
"""

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
    NonRetryableError,
    NoSuchBundleError,
    NoSuchJobError,
    NoSuchRunError,
    NoSuchTaskError,
    NotFoundError,
    RunStateError,
    ScattersphereError,
    TaskCancelled,
    TaskCrashedError,
    TaskDeclarationError,
    UnresolvedError,
)
from scattersphere.execution.reruns import Reused
from scattersphere.execution.run import Run, TaskStatus
from scattersphere.execution.statistics import RunStatistics, TaskStatistics
from scattersphere.model.builder import JobBuilder, literal, param, result
from scattersphere.model.definition import JobDefinition, Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.events import Event, EventKind
from scattersphere.model.logs import LogLine
from scattersphere.model.problem import Problem
from scattersphere.model.states import Overlap, RunState, TaskState, TriggerRule
from scattersphere.registry.scan import SourceLimits
from scattersphere.registry.settling import WatchDelays
from scattersphere.server import Server
from scattersphere.sync import SyncServer
from scattersphere.syncrun import SyncRun
from scattersphere.task import RunnableTask, TaskContext

__all__ = [
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
    "Event",
    "EventKind",
    "ExistsError",
    "FileChangedError",
    "ForkedError",
    "JobBuilder",
    "JobDefinition",
    "LogLine",
    "NoSuchBundleError",
    "NoSuchJobError",
    "NoSuchRunError",
    "NoSuchTaskError",
    "NonRetryableError",
    "NotFoundError",
    "Overlap",
    "Parameter",
    "Problem",
    "RetryPolicy",
    "Reused",
    "Run",
    "RunState",
    "RunStateError",
    "RunStatistics",
    "RunnableTask",
    "ScattersphereError",
    "Server",
    "SourceLimits",
    "SyncRun",
    "SyncServer",
    "TaskCancelled",
    "TaskContext",
    "TaskCrashedError",
    "TaskDeclarationError",
    "TaskDefinition",
    "TaskState",
    "TaskStatistics",
    "TaskStatus",
    "TriggerRule",
    "UnresolvedError",
    "WatchDelays",
    "literal",
    "param",
    "result",
]

"""Objects of the engine as JSON: what replies and events show of bundles, jobs, tasks and runs."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from scattersphere._threads import in_thread
from scattersphere.definitions.shown import shown
from scattersphere.errors import ScattersphereError
from scattersphere.model.events import EventKind
from scattersphere.model.logs import LEVEL_NAMES

if TYPE_CHECKING:
    import datetime as dt

    from scattersphere.commands.access import Principal
    from scattersphere.engine.run import Run
    from scattersphere.engine.status import TaskStatus
    from scattersphere.jobs.history import RunSummary
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.events import Event
    from scattersphere.model.logs import LogLine
    from scattersphere.model.states import RunState
    from scattersphere.model.taskclass import TaskClass
    from scattersphere.registry.records import Bundle
    from scattersphere.registry.registry import TaskRegistry

_OF_JOBS = {EventKind.JOB_DEFINED, EventKind.JOB_UNDEFINED, EventKind.JOB_FAILED}
SHOWN_TASKS = 1_000
"""Tasks of a run that `status` lists; the counts cover all."""
MANY_TASKS = 1_000
"""Tasks of a definition that is read or written on the event loop: some 10 ms."""
FAILURE_TEXT = 2_000
REMEMBERED = 16
"""Runs whose rows of ended tasks are kept from one look to the next: who waits for a run asks again and again."""


def stamp(time: dt.datetime | None) -> str | None:
    """Return a time as the wire writes it: UTC with milliseconds and a Z."""
    # All our times are UTC, whose offset is the last six characters.
    return None if time is None else f"{time.isoformat(timespec='milliseconds')[:-6]}Z"


def _present(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None and value != ""}


def bundle_view(bundle: Bundle, sees_run: Any) -> dict[str, object]:
    """Return a bundle: `versions` holds the current one first, each with the runs that pin it."""
    versions = [bundle.current] if bundle.current is not None else []
    versions += [version for version in bundle.versions if version is not bundle.current]
    runs = bundle.versions
    shown = [
        {
            "version": version.label,
            "current": version is bundle.current,
            "runs": sorted(run for run in runs.get(version, ()) if sees_run(run)),
        }
        for version in versions
    ]
    return _present(
        name=bundle.name,
        kind=str(bundle.kind),
        file=bundle.path.name if bundle.path is not None else None,
        digest=bundle.current.digest if bundle.current is not None else None,
        loaded=stamp(bundle.loaded_at),
        error=bundle.error,
        versions=shown,
        tasks=sorted(bundle.tasks),
        warnings=list(bundle.warnings) or None,
    )


def task_row(path: str, task: TaskClass) -> dict[str, object]:
    """Return a row of `tasks`: parameters as a person writes them."""
    words = [
        f"{parameter.name}: {parameter.type_name}"
        + ("" if parameter.required else f" = {_default(parameter.default)}")
        for parameter in task.parameters.values()
    ]
    return {"task": path, "bundle": task.bundle, "parameters": words, "summary": task.summary}


def task_view(task: TaskClass) -> dict[str, object]:
    """Return a task class in full."""
    parameters = [
        {"name": parameter.name, "type": parameter.type_name, "required": parameter.required}
        | ({} if parameter.required else {"default": shown(parameter.default)})
        for parameter in task.parameters.values()
    ]
    return {
        "task": task.path,
        "bundle": task.bundle,
        "summary": task.summary,
        "runs_in": "loop" if task.is_async else "thread",
        "parameters": parameters,
    }


def _default(value: object) -> str:
    text = shown(value)
    return text["repr"] if isinstance(text, dict) and "repr" in text else json.dumps(text)


SHOWN_LACKS = 20


def job_row(definition: JobDefinition, registry: TaskRegistry) -> dict[str, object]:
    """Return a row of `jobs`; `lacks` names the tasks whose code is not there."""
    absent = {code for code in definition.codes if not _found(registry, *code)}
    lacks: list[str] = []
    if absent:
        lacking = (name for name, task in definition.tasks.items() if (task.task, task.bundle) in absent)
        lacks += islice(lacking, SHOWN_LACKS)
    row: dict[str, object] = {"name": definition.name, "state": "unresolved" if lacks else "ready"}
    row |= {"tasks": len(definition.tasks), "description": definition.description}
    return row | ({"lacks": lacks} if lacks else {})


def _found(registry: TaskRegistry, path: str, bundle: str | None) -> bool:
    try:
        registry.find(path, bundle)
    except ScattersphereError:
        return False
    return True


def run_row(run: Run | RunSummary) -> dict[str, object]:
    """Return a row of `runs`."""
    return _present(**_head(run.id, run.job, run.state, run.started_at, run.ended_at, run.reason))


def _head(
    number: int,
    job: str,
    state: RunState,
    started: dt.datetime | None,
    ended: dt.datetime | None,
    reason: str,
) -> dict[str, object]:
    times = {"started": stamp(started), "ended": stamp(ended)}
    return {"run": number, "job": job, "state": str(state), **times, "reason": reason}


async def run_view(run: Run) -> dict[str, object]:
    """Return a run and its tasks, without the loop's being held for a large definition."""
    await digest_of(run.definition)
    return run_view_now(run)


def run_view_now(run: Run) -> dict[str, object]:
    """Return a run and its tasks; where no loop waits."""
    tasks, execution = _task_rows(run), run.execution
    (created, started, ended), params = execution.times, execution.visible_params
    counts, scheduled = run.counts, run.scheduled  # counts without looking at each task
    view = _present(
        **_head(run.id, run.job, run.state, started, ended, run.reason),
        created=stamp(created),
        parent=run.parent,
        stuck=run.stuck or None,
        recovered=run.recovered or None,
        waits_for=run.waits_for,
        definition=run.definition.shown_digest,
        scheduled=None if scheduled is None else str(scheduled),
    )
    shown_counts = {str(state): number for state, number in counts.items()}
    return view | {"params": shown(params), "counts": shown_counts, "tasks": tasks}


async def digest_of(definition: JobDefinition) -> str:
    """Return the digest of what is shown of a definition; it takes as long as to write that: if large, in a thread."""
    if len(definition.tasks) > MANY_TASKS and "shown_digest" not in vars(definition):
        return await in_thread(lambda: definition.shown_digest)
    return definition.shown_digest


_rows: WeakKeyDictionary[Run, dict[str, dict[str, object]]] = WeakKeyDictionary()
"""The rows of tasks that have ended, which never change, of the runs that were looked at last."""


def _task_rows(run: Run) -> list[dict[str, object]]:
    known = _rows.get(run)
    if known is None:
        while len(_rows) >= REMEMBERED:
            del _rows[next(iter(_rows))]
        known = _rows[run] = {}
    tasks = run.tasks
    names = list(islice(tasks, SHOWN_TASKS))
    found = dict(known)
    for status in [tasks[name] for name in names if name not in known]:
        row = found[status.name] = _task_status(status)
        if status.state.ended and not status.stuck:
            known[status.name] = row
    return [found[name] for name in names]


def _task_status(task: TaskStatus) -> dict[str, object]:
    row: dict[str, object] = {"task": task.name, "state": str(task.state), "attempts": task.attempts}
    # One by one: a run has up to a thousand of these rows, and most have little to tell.
    if task.started_at is not None:
        row["started"] = stamp(task.started_at)
    if task.ended_at is not None:
        row["ended"] = stamp(task.ended_at)
    if task.failure is not None:
        row["failure"] = str(task.failure)[:FAILURE_TEXT]
    if task.stuck:
        row["stuck"] = True
    if task.reused is not None:
        row["reused"] = str(task.reused)
    return row


def log_row(line: LogLine) -> dict[str, object]:
    """Return a line of a run's log."""
    return _present(
        time=stamp(line.time),
        task=line.task,
        index=line.index,
        attempt=line.attempt or None,
        level=LEVEL_NAMES.get(line.level, str(line.level)),
        logger=line.logger,
        message=line.message,
    )


def event_view(event: Event, number: int) -> dict[str, object]:
    """Return an event of subscription `number`."""
    if event.kind is EventKind.LAGGED:
        lagged: dict[str, object] = {
            "event": "lagged",
            "sub": number,
            "dropped": event.dropped,
            "next": event.seq + 1,
        }
        return lagged | ({"life": event.life} if event.life else {})
    return {"event": str(event.kind), "sub": number, "seq": event.seq, "ts": stamp(event.time)} | _present(
        life=event.life or None,
        run=event.run,
        job=event.job,
        task=event.task,
        index=event.index,
        attempt=event.attempt,
        state=str(event.state) if event.state is not None else None,
        bundle=event.bundle,
        schedule=event.schedule,
        message=event.message,
        done=event.done,
        total=event.total,
        level=LEVEL_NAMES.get(event.level, str(event.level)) if event.level is not None else None,
    )


def kind_of(event: Event) -> str:
    """Return the word that `follow kinds=` has for an event."""
    if event.bundle is not None:
        return "bundles"
    if event.schedule is not None or event.kind in _OF_JOBS:
        return "jobs"
    if event.kind is EventKind.LOG:
        return "log"
    return "progress" if event.kind is EventKind.TASK_PROGRESS else "state"


def visible(event: Event, principal: Principal) -> bool:
    """Whether an event of the server's stream exists for a principal."""
    if event.bundle is not None:
        return principal.sees_bundle(event.bundle)
    return event.job is None or principal.sees_job(event.job)

"""Commands about runs: started, controlled, looked at."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs

from scattersphere._text import did_you_mean
from scattersphere.commands import views
from scattersphere.commands.access import Role
from scattersphere.commands.arguments import Arg
from scattersphere.commands.errors import RequestError
from scattersphere.commands.gateway import Context
from scattersphere.commands.masking import masked
from scattersphere.commands.paging import Cursor, Limit, number_of
from scattersphere.commands.table import Reply, command
from scattersphere.errors import DefinitionError, RunFailedError, UnresolvedError
from scattersphere.jobs.slices import Slices
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.engine.reused import Reused
    from scattersphere.engine.run import Run
    from scattersphere.model.problem import Problem

REUSED_SHOWN = 1_000
"""Tasks whose results were reused that the reply to `rerun` names; the log of the run counts all."""

JobName = Annotated[str, Arg("the name of a job")]
TaskPath = Annotated[str, Arg("the path of a task")]
Params = Annotated[dict[str, Any] | None, Arg("parameters of the run")]
TaskArgs = Annotated[dict[str, Any] | None, Arg("its arguments")]
Key = Annotated[str | None, Arg("the same key gives the same run: retry without doubling")]
RunNumber = Annotated[int, Arg("the number of a run", low=1)]
Reason = Annotated[str | None, Arg("why, for those who look later")]
TaskName = Annotated[str | None, Arg("only this task")]


@command(
    "start",
    role=Role.RUNNER,
    example="start nightly day=2026-11-23 retries:=3",
    method="POST",
    path="/jobs/{job}/runs",
    extra="params",
)
async def start(context: Context, *, job: JobName, params: Params = None, key: Key = None) -> Reply:
    """Start a run of a job, and reply at once."""
    return {"run": (await _started(context, job, params or {}, key)).id}


@command(
    "run",
    role=Role.RUNNER,
    example="run nightly day=2026-11-23 retries:=3",
    method="POST",
    path="/jobs/{job}/run",
    late=True,
    extra="params",
)
async def run(context: Context, *, job: JobName, params: Params = None, key: Key = None) -> Reply:
    """Run a job, and reply when the run has ended."""
    return await _ended(await _started(context, job, params or {}, key))


@command(
    "start-task",
    role=Role.OPERATOR,
    example="start-task etl.Load day=1",
    method="POST",
    path="/tasks/{task}/runs",
    extra="args",
)
async def start_task(context: Context, *, task: TaskPath, args: TaskArgs = None, key: Key = None) -> Reply:
    """Start a run of one task, and reply at once."""
    return {"run": (await _task_started(context, task, args or {}, key)).id}


@command(
    "run-task",
    role=Role.OPERATOR,
    example="run-task etl.Load day=1",
    method="POST",
    path="/tasks/{task}/run",
    late=True,
    extra="args",
)
async def run_task(context: Context, *, task: TaskPath, args: TaskArgs = None, key: Key = None) -> Reply:
    """Run one task, and reply when the run has ended."""
    return await _ended(await _task_started(context, task, args or {}, key))


async def _started(context: Context, job: str, params: dict[str, object], key: str | None) -> Run:
    gateway, principal = context.gateway, context.principal
    definition = gateway.job(principal, job)
    if gateway.uncovered(principal, definition) is not None:
        raise RequestError("forbidden", f"job {job!r} uses code that your token does not cover")
    with masked(definition, params), _suggesting(params, in_words=context.in_words):
        return await gateway.server.start(job, params, key=_key(job, key), user=principal.user)


async def _task_started(context: Context, task: str, args: dict[str, object], key: str | None) -> Run:
    gateway = context.gateway
    found = gateway.task(context.principal, task, "task")
    with _suggesting(args, in_words=context.in_words):
        return await gateway.server.start_task(
            found.full_path, args, key=_key(found.full_path, key), user=context.principal.user
        )


async def _ended(run: Run) -> Reply:
    await run.wait()
    return _outcome(run)


def _outcome(run: Run) -> Reply:
    """Return how a run ended, and why where it did not succeed."""
    try:
        run.raise_if_failed()
    except RunFailedError as exc:
        return _state(run) | {"why": str(exc)[: views.FAILURE_TEXT]}
    return _state(run)


@contextmanager
def _suggesting(values: Mapping[str, object], *, in_words: bool) -> Iterator[None]:
    """Where a person typed `steps=10` and a number is wanted, suggest `steps:=10`."""
    try:
        yield
    except (DefinitionError, UnresolvedError) as exc:
        if in_words:
            exc.problems = tuple(_suggested(problem, values) for problem in exc.problems)
        raise


def _suggested(problem: Problem, values: Mapping[str, object]) -> Problem:
    name = problem.path.rpartition(".")[2]
    value = values.get(name)
    if problem.suggestion or not isinstance(value, str):
        return problem
    try:
        json.loads(value)
    except (ValueError, RecursionError):  # it would be no JSON either
        return problem
    return attrs.evolve(problem, suggestion=f"{name}:={value}")


def _key(what: str, key: str | None) -> str | None:
    """Keep the keys of a user's jobs apart; those of users are kept apart by the Server."""
    return None if key is None else json.dumps([what, key])


@command(
    "runs",
    role=Role.VIEWER,
    example="runs nightly failed limit=5",
    method="GET",
    path="/runs",
    idempotent=True,
)
async def runs(
    context: Context,
    *,
    job: Annotated[str | None, Arg("only the runs of this job")] = None,
    state: Annotated[RunState | None, Arg("only runs in this state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Reply:
    """List runs, newest first."""
    gateway, principal = context.gateway, context.principal
    found = await gateway.server.history.list(
        job=job,
        state=state,
        before=number_of(cursor),
        limit=limit,
        where=None if principal.unbounded else lambda record: gateway.sees_record(principal, record),
    )
    more = {} if found.before is None else {"cursor": str(found.before)}
    return {"runs": [views.run_row(record) for record in found], **more}


@command("status", role=Role.VIEWER, example="status 17", method="GET", path="/runs/{run}", idempotent=True)
async def status(context: Context, *, run: RunNumber) -> Reply:
    """Show where a run and its tasks are."""
    return await views.run_view(await context.run(run))


@command(
    "result",
    role=Role.VIEWER,
    example="result 17 count",
    method="GET",
    path="/runs/{run}/result",
    idempotent=True,
)
async def result(context: Context, *, run: RunNumber, task: TaskName = None) -> Reply:
    """Show the results of a run."""
    found = await context.run(run, results=True)
    if task is None:
        results, slices = dict[str, object](), Slices()
        for name, one in found.results.each_shown():
            results[name] = one
            await slices.next()
        await slices.next()
        left_out = len(found.results) - len(results)
        return _state(found) | {"results": results} | ({"left_out": left_out} if left_out else {})
    _check_task(found, task)
    try:
        shown = found.results.shown_of(task)
    except KeyError as exc:
        raise RequestError("conflict", f"run {found.id}: {exc.args[0]}", field="task") from None
    return {"run": found.id, "task": task, "result": shown}


def _check_task(found: Run, name: str) -> None:
    if name not in found.tasks:
        hint = did_you_mean(name, found.tasks, quote="'")
        message = f"no task {name[:64]!r} in run {found.id}{hint}"
        raise RequestError("no-such-task", message, field="task")


@command(
    "explain",
    role=Role.VIEWER,
    example="explain 17",
    method="GET",
    path="/runs/{run}/explain",
    idempotent=True,
)
async def explain(context: Context, *, run: RunNumber) -> Reply:
    """Tell what happened in a run, and why."""
    return {"run": run, "text": (await context.run(run)).explain()}


def _state(found: Run) -> Reply:
    return {"run": found.id, "state": str(found.state)}


@command(
    "pause", role=Role.RUNNER, example="pause 17", method="POST", path="/runs/{run}/pause", idempotent=True
)
async def pause(context: Context, *, run: RunNumber) -> Reply:
    """Start no further task of a run."""
    found = await context.run(run)
    found.pause()
    return _state(found)


@command(
    "resume", role=Role.RUNNER, example="resume 17", method="POST", path="/runs/{run}/resume", idempotent=True
)
async def resume(context: Context, *, run: RunNumber) -> Reply:
    """Go on after a pause."""
    found = await context.run(run)
    found.resume()
    return _state(found)


@command(
    "stop",
    role=Role.RUNNER,
    example="stop 17 'enough for today'",
    method="POST",
    path="/runs/{run}/stop",
    idempotent=True,
)
async def stop(context: Context, *, run: RunNumber, reason: Reason = None) -> Reply:
    """Let executing tasks finish, start no more."""
    found = await context.run(run)
    found.stop(_why(context, reason))
    return _state(found)


@command(
    "cancel",
    role=Role.RUNNER,
    example="cancel 17 grace=30",
    method="POST",
    path="/runs/{run}/cancel",
    idempotent=True,
)
async def cancel(
    context: Context,
    *,
    run: RunNumber,
    reason: Reason = None,
    grace: Annotated[float | None, Arg("seconds to clean up", low=0, high=86_400)] = None,
) -> Reply:
    """Cancel what executes, with time to clean up."""
    found = await context.run(run)
    found.cancel(_why(context, reason), grace=grace)
    return _state(found)


@command("kill", role=Role.RUNNER, example="kill 17", method="POST", path="/runs/{run}/kill", idempotent=True)
async def kill(context: Context, *, run: RunNumber, reason: Reason = None) -> Reply:
    """End a run now."""
    found = await context.run(run)
    found.kill(_why(context, reason))
    return _state(found)


def _why(context: Context, reason: str | None) -> str:
    """Name who asked: the reason is read by those who wonder why a run ended."""
    user = context.principal.user
    return f"{reason} ({user})" if reason else f"asked by {user}"


@command(
    "rerun",
    role=Role.RUNNER,
    example="rerun 17 code=latest",
    method="POST",
    path="/runs/{run}/rerun",
    slow=True,
)
async def rerun(
    context: Context,
    *,
    run: RunNumber,
    from_failed: Annotated[bool, Arg("keep the results of what succeeded")] = True,
    code: Annotated[Literal["pinned", "latest"], Arg("which code")] = "pinned",
) -> Reply:
    """Do a run again, from what failed."""
    gateway = context.gateway
    found = await context.run(run)
    definition = found.plan.definition
    if gateway.uncovered(context.principal, definition) is not None:
        raise RequestError("forbidden", f"run {found.id} uses code that your token does not cover")
    with masked(definition, found.execution.params):
        started = await gateway.server.rerun(
            found.id, from_failed=from_failed, code=code, user=context.principal.user
        )
    reused = {name: _reused(note) for name, note in islice(started.reused.items(), REUSED_SHOWN)}
    return {"run": started.id, "parent": found.id, "reused": reused}


def _reused(note: Reused) -> dict[str, object]:
    shown = {"run": note.run, "code": note.code, "older": note.older}
    return shown if note.instances is None else {**shown, "instances": note.instances}


@command(
    "wait",
    role=Role.VIEWER,
    example="wait 17 timeout=600",
    method="GET",
    path="/runs/{run}/wait",
    late=True,
    idempotent=True,
)
async def wait(
    context: Context,
    *,
    run: RunNumber,
    timeout: Annotated[float, Arg("seconds", low=0, high=3_600)] = 60,  # noqa: ASYNC109 - its name on the wire
) -> Reply:
    """Wait until a run has ended."""
    found = await context.run(run)
    await found.wait(timeout)
    return _outcome(found)


@command(
    "logs", role=Role.VIEWER, example="logs 17 count tail=20", method="GET", path="/logs", idempotent=True
)
async def logs(
    context: Context,
    *,
    run: Annotated[int | None, Arg("the number of a run; without it the server's own log", low=1)] = None,
    task: TaskName = None,
    attempt: Annotated[int | None, Arg("only this attempt", low=1)] = None,
    tail: Annotated[int, Arg("at most so many of the last lines", low=1, high=10_000)] = 100,
    index: Annotated[int | None, Arg("only this instance of a mapped task", low=0)] = None,
    job: Annotated[str | None, Arg("without a run: only the runs of this job")] = None,
) -> Reply:
    """Show the log of a run, or which runs there were."""
    if run is None:
        for name, given in (("task", task), ("attempt", attempt), ("index", index)):
            if given is not None:
                raise RequestError("bad-args", f"{name} needs the number of a run", field=name)
        return _server_logs(context, job, tail)
    if job is not None:
        raise RequestError("bad-args", "job is for the log of all runs; leave out run", field="job")
    found = await context.run(run)
    if task is not None:
        _check_task(found, task)
    lines = found.logs(task, index=index, attempt=attempt, tail=tail)
    # `follow RUN since=` with the number before `next` goes on exactly where these lines end.
    return {
        "run": found.id,
        "lines": [views.log_row(line) for line in lines],
        "next": found.last_event + 1,
    } | _life(context)


def _server_logs(context: Context, job: str | None, tail: int) -> Reply:
    """Which runs started and how they ended: also those that were evicted."""
    gateway, principal = context.gateway, context.principal
    server = gateway.server
    if principal.unbounded:
        lines = server.logs(job=job, tail=tail)
    else:  # a line begins with the name of the job, which has no space in it
        seen = (
            line
            for line in reversed(server.logs(job=job))
            if gateway.sees_run_of(principal, line.run, line.message.partition(" ")[0])
        )
        lines = list(islice(seen, tail))[::-1]
    rows = [{"time": views.stamp(line.time), "run": line.run, **views.log_row(line)} for line in lines]
    # `follow since=` with the number before `next` goes on in the server's stream.
    return {"lines": rows, "next": server.last_event + 1} | _life(context)


def _life(context: Context) -> Reply:
    """Tell to which life of the journal the number of the next event belongs."""
    life = context.gateway.server.life
    return {"life": life} if life else {}

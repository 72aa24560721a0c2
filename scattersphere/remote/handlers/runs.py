"""Runs: started, controlled, looked at."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._text import did_you_mean
from scattersphere.errors import DefinitionError, UnresolvedError
from scattersphere.remote import views
from scattersphere.remote.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.execution.reused import Reused
    from scattersphere.execution.run import Run
    from scattersphere.model.problem import Problem
    from scattersphere.remote.handlers.scene import Scene
    from scattersphere.remote.roles import Principal

REUSED_SHOWN = 1_000
"""Tasks whose results were reused that the reply to `rerun` names; the log of the run counts all."""


async def run(scene: Scene, arguments: Any) -> Any:
    """Start a run."""
    front, principal = scene.front, scene.principal
    definition = front.job(principal, arguments.job)
    if front.covers_code(principal, definition) is not None:
        raise RequestError("forbidden", f"job {arguments.job!r} uses code that your token does not cover")
    with _suggesting(arguments.params, in_words=scene.in_words):
        started = await front.server.start(
            arguments.job, arguments.params, key=_key(principal, arguments.job, arguments.key)
        )
    return {"run": started.id}


async def run_task(scene: Scene, arguments: Any) -> Any:
    """Start a run of one task."""
    front, principal = scene.front, scene.principal
    found = front.task(principal, arguments.task, "task")
    key = _key(principal, found.full_path, arguments.key)
    with _suggesting(arguments.args, in_words=scene.in_words):
        started = await front.server.start_task(found.full_path, arguments.args, key=key)
    front.note_task_run(started)
    return {"run": started.id}


@contextmanager
def _suggesting(values: Mapping[str, Any], *, in_words: bool) -> Iterator[None]:
    """Where a person typed `steps=10` and a number is wanted, suggest `steps:=10`."""
    try:
        yield
    except (DefinitionError, UnresolvedError) as exc:
        if in_words:
            exc.problems = tuple(_suggested(problem, values) for problem in exc.problems)
        raise


def _suggested(problem: Problem, values: Mapping[str, Any]) -> Problem:
    name = problem.path.rpartition(".")[2]
    value = values.get(name)
    if problem.suggestion or not isinstance(value, str):
        return problem
    try:
        json.loads(value)
    except ValueError:  # it would be no JSON either
        return problem
    return attrs.evolve(problem, suggestion=f"{name}:={value}")


def _key(principal: Principal, what: str, key: str | None) -> str | None:
    """Keep the keys of users and jobs apart: one could else learn of, or block, another's runs."""
    return None if key is None else json.dumps([principal.user, what, key])


async def runs(scene: Scene, arguments: Any) -> Any:
    """List runs, newest first."""
    found = scene.front.server.runs
    rows: list[Any] = []
    for number in sorted(found, reverse=True):
        each = found[number]
        if arguments.job not in {None, each.job} or arguments.state not in {None, str(each.state)}:
            continue
        if scene.front.sees_run(scene.principal, each):
            rows.append(views.run_row(each))
            if len(rows) == arguments.limit:
                break
    return {"runs": rows}


async def status(scene: Scene, arguments: Any) -> Any:
    """Show a run."""
    return views.run_view(scene.run(arguments.run))


async def result(scene: Scene, arguments: Any) -> Any:
    """Show results."""
    found = scene.run(arguments.run)
    if arguments.task is None:
        results = found.results.shown()
        reply = {"run": found.id, "state": str(found.state), "results": results}
        left_out = len(found.results) - len(results)
        return reply | ({"left_out": left_out} if left_out else {})
    _task_of(found, arguments.task)
    try:
        result = found.results.shown_of(arguments.task)
    except KeyError as exc:
        raise RequestError("conflict", f"run {found.id}: {exc.args[0]}", field="task") from None
    return {"run": found.id, "task": arguments.task, "result": result}


def _task_of(found: Run, name: str) -> Any:
    if name not in found.tasks:
        hint = did_you_mean(name, found.tasks, quote="'")
        message = f"no task {name[:64]!r} in run {found.id}{hint}"
        raise RequestError("no-such-task", message, field="task")
    return found.tasks[name]


async def explain(scene: Scene, arguments: Any) -> Any:
    """Tell what happened."""
    return {"run": arguments.run, "text": scene.run(arguments.run).explain()}


def _accepted(found: Run) -> Any:
    return {"run": found.id, "state": str(found.state)}


async def pause(scene: Scene, arguments: Any) -> Any:
    """Pause a run."""
    found = scene.run(arguments.run)
    found.pause()
    return _accepted(found)


async def resume(scene: Scene, arguments: Any) -> Any:
    """Resume a run."""
    found = scene.run(arguments.run)
    found.resume()
    return _accepted(found)


async def stop(scene: Scene, arguments: Any) -> Any:
    """Stop a run."""
    found = scene.run(arguments.run)
    found.stop(_reason(scene, arguments))
    return _accepted(found)


async def cancel(scene: Scene, arguments: Any) -> Any:
    """Cancel a run."""
    found = scene.run(arguments.run)
    found.cancel(_reason(scene, arguments), grace=arguments.grace)
    return _accepted(found)


async def kill(scene: Scene, arguments: Any) -> Any:
    """Kill a run."""
    found = scene.run(arguments.run)
    found.kill(_reason(scene, arguments))
    return _accepted(found)


def _reason(scene: Scene, arguments: Any) -> str:
    """Name who asked: the reason is read by those who wonder why a run ended."""
    return (
        f"{arguments.reason} ({scene.principal.user})"
        if arguments.reason
        else f"asked by {scene.principal.user}"
    )


async def rerun(scene: Scene, arguments: Any) -> Any:
    """Do a run again."""
    front = scene.front
    found = scene.run(arguments.run)
    if front.covers_code(scene.principal, found.plan.definition) is not None:
        raise RequestError("forbidden", f"run {found.id} uses code that your token does not cover")
    started = await front.server.rerun(found.id, from_failed=arguments.from_failed, code=arguments.code)
    front.note_rerun(found, started)
    reused = {name: _reused(note) for name, note in islice(started.reused.items(), REUSED_SHOWN)}
    return {"run": started.id, "parent": found.id, "reused": reused}


def _reused(note: Reused) -> dict[str, Any]:
    shown = {"run": note.run, "code": note.code, "older": note.older}
    return shown if note.instances is None else {**shown, "instances": note.instances}


async def wait(scene: Scene, arguments: Any) -> Any:
    """Wait for the end of a run."""
    found = scene.run(arguments.run)
    await found.wait(arguments.timeout)
    return _accepted(found)


async def logs(scene: Scene, arguments: Any) -> Any:
    """Show the log of a run; without one, the server's log of its runs."""
    if arguments.run is None:
        return _server_logs(scene, arguments)
    if arguments.job is not None:
        raise RequestError("bad-args", "job is for the log of all runs; leave out run", field="job")
    found = scene.run(arguments.run)
    if arguments.task is not None:
        _task_of(found, arguments.task)
    lines = found.logs(arguments.task, index=arguments.index, attempt=arguments.attempt, tail=arguments.tail)
    # `follow RUN since=` with the number before `next` goes on exactly where these lines end.
    return {"run": found.id, "lines": [views.log_row(line) for line in lines], "next": found.last_event + 1}


def _server_logs(scene: Scene, arguments: Any) -> Any:
    """Which runs started and how they ended: also those that were evicted. Of each, who may see its job sees it."""
    for name in ("task", "attempt", "index"):
        if getattr(arguments, name) is not None:
            raise RequestError("bad-args", f"{name} needs the number of a run", field=name)
    server, sees = scene.front.server, scene.principal.sees_job
    lines = server.logs(job=lambda job: arguments.job in {None, job} and sees(job), tail=arguments.tail)
    rows = [{"time": views.stamp(line.time), "run": line.run, **views.log_row(line)} for line in lines]
    # `follow since=` with the number before `next` goes on in the server's stream.
    return {"lines": rows, "next": server.last_event + 1}

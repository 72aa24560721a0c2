"""What each command does, against the public names of the Server.

A handler gets a `Scene` and the arguments, and returns the result as JSON or raises; errors of the
engine keep their codes (`errors.wire_error`). The table at the end is the only way from a name in
`commands.py` to a function.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from scattersphere.errors import DefinitionError
from scattersphere.model.definition import JobDefinition
from scattersphere.model.problem import Problem
from scattersphere.remote import views
from scattersphere.remote.commands import RUN_KINDS, SERVER_KINDS
from scattersphere.remote.errors import RequestError, wire_problems
from scattersphere.remote.places import bundle_file, job_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scattersphere.execution.run import Run
    from scattersphere.model.events import Event
    from scattersphere.remote.arguments import Definition
    from scattersphere.remote.front import Front
    from scattersphere.remote.roles import Principal


class Follower(Protocol):
    """The connection, as far as subscriptions go."""

    def follow(
        self,
        events: AsyncIterator[Event],
        since: int,
        kinds: frozenset[str],
        shown: Callable[[Event, Principal], bool],
    ) -> int:
        """Send events from now on, after the reply; return the subscription's number."""
        ...

    def unfollow(self, number: int) -> None:
        """End a subscription. Raises `RequestError`."""
        ...


@attrs.frozen
class Scene:
    """Who asks, of which server, over which connection."""

    front: Front
    principal: Principal
    follower: Follower

    def run(self, number: int) -> Run:
        """Return a run that exists for who asks."""
        return self.front.run(self.principal, number)


# ---- code


async def bundles(scene: Scene, arguments: Any) -> Any:
    """List bundles."""
    front, principal = scene.front, scene.principal
    sees_run = front.sees_run_number(principal)
    if arguments.name is not None:
        return {"bundles": [views.bundle_view(front.bundle(principal, arguments.name), sees_run)]}
    found = front.server.registry.bundles
    return {
        "bundles": [views.bundle_view(found[name], sees_run) for name in found if principal.sees_bundle(name)]
    }


async def tasks(scene: Scene, arguments: Any) -> Any:
    """List task classes."""
    front, principal = scene.front, scene.principal
    if arguments.bundle is not None:
        front.bundle(principal, arguments.bundle, "bundle")
    rows = [
        views.task_row(path, task)
        for path, task in front.server.registry.tasks.items()
        if principal.sees_bundle(task.bundle) and arguments.bundle in {None, task.bundle}
    ]
    return {"tasks": sorted(rows, key=lambda row: row["task"])}


async def task(scene: Scene, arguments: Any) -> Any:
    """Show a task class."""
    return views.task_view(scene.front.task(scene.principal, arguments.path))


async def register(scene: Scene, arguments: Any) -> Any:
    """Load a bundle from the roots."""
    front = scene.front
    place = bundle_file(arguments.file, front.bundle_roots)
    name = arguments.name or place.name.split(".")[0].split("-")[0].lower()
    if not scene.principal.sees_bundle(name):
        raise RequestError(
            "forbidden", f"your token covers no bundle of the name {name[:64]!r}", field="name"
        )
    bundle = await front.server.register(place, name=name)
    return {"bundle": bundle.name} | views.bundle_view(bundle, front.sees_run_number(scene.principal))


async def deregister(scene: Scene, arguments: Any) -> Any:
    """Withdraw a bundle."""
    front, principal = scene.front, scene.principal
    bundle = front.bundle(principal, arguments.name)
    hidden = [run for run in bundle.runs if not front.sees_run_number(principal)(run)]
    if arguments.force and hidden:
        raise RequestError("forbidden", "runs need the bundle that your token does not cover", field="force")
    await front.server.deregister(arguments.name, force=arguments.force, require_idle=arguments.require_idle)
    return {"bundle": arguments.name}


async def reload(scene: Scene, arguments: Any) -> Any:
    """Take up what changed in a bundle."""
    front = scene.front
    front.bundle(scene.principal, arguments.name)
    bundle = await front.server.reload(arguments.name)
    return {"bundle": bundle.name} | views.bundle_view(bundle, front.sees_run_number(scene.principal))


# ---- jobs


async def jobs(scene: Scene, _: Any) -> Any:
    """List jobs."""
    server = scene.front.server
    return {
        "jobs": [
            views.job_row(definition, server.registry)
            for name, definition in server.definitions.items()
            if scene.principal.sees_job(name)
        ]
    }


async def job(scene: Scene, arguments: Any) -> Any:
    """Show a definition."""
    definition = scene.front.job(scene.principal, arguments.name, "name")
    return {"job": definition.name, "definition": json.loads(definition.dumps())}


async def define(scene: Scene, arguments: Any) -> Any:
    """Define a job."""
    front, principal = scene.front, scene.principal
    definition = _read(arguments.definition)
    _refuse_uncovered(front, principal, definition)
    if definition.name in front.server.definitions and not arguments.replace:
        message = f"job {definition.name!r} is defined already; pass replace=true"
        raise RequestError("exists", message, field="replace")
    resolved = front.server.define(definition, replace=arguments.replace)
    row = views.job_row(resolved, front.server.registry)
    lacking = front.server.validate(resolved) if row["state"] == "unresolved" else []
    return {"job": resolved.name, "state": row["state"], "problems": wire_problems(lacking)}


async def validate(scene: Scene, arguments: Any) -> Any:
    """Tell what is wrong with a definition."""
    try:
        definition = _read(arguments.definition)
    except DefinitionError as exc:
        return {"problems": wire_problems(exc.problems)}
    uncovered = scene.front.covers_code(scene.principal, definition)
    if uncovered is not None:
        return {"problems": wire_problems([_uncovered(uncovered, definition)])}
    return {"problems": wire_problems(scene.front.server.validate(definition))}


def _read(definition: Definition) -> JobDefinition:
    """Read a definition; the columns of problems become those of the line that the client sent."""
    try:
        return JobDefinition.loads(definition.text)
    except DefinitionError as exc:
        moved = [
            attrs.evolve(problem, column=(problem.column or 1) + definition.column - 1)
            if problem.line == 1
            else problem
            for problem in exc.problems
        ]
        raise DefinitionError(moved, source=exc.source) from None


def _uncovered(name: str, definition: JobDefinition) -> Problem:
    path = definition.tasks[name].task
    return Problem(f"tasks.{name}.task", f'no task "{path[:128]}" in the bundles that your token covers')


def _refuse_uncovered(front: Front, principal: Principal, definition: JobDefinition) -> None:
    if not principal.sees_job(definition.name):
        message = f"your token covers no job of the name {definition.name[:64]!r}"
        raise RequestError("forbidden", message, field="definition")
    uncovered = front.covers_code(principal, definition)
    if uncovered is not None:
        raise DefinitionError([_uncovered(uncovered, definition)], source=definition.name)


async def undefine(scene: Scene, arguments: Any) -> Any:
    """Forget a job."""
    scene.front.job(scene.principal, arguments.job)
    scene.front.server.undefine(arguments.job)
    return {"job": arguments.job}


async def save(scene: Scene, arguments: Any) -> Any:
    """Write a job to the operator's folder."""
    scene.front.job(scene.principal, arguments.job)
    place = job_file(arguments.job, scene.front.job_folder)
    scene.front.server.save(arguments.job, place, overwrite=arguments.overwrite)
    return {"job": arguments.job, "file": place.name}


async def load(scene: Scene, arguments: Any) -> Any:
    """Read a job from the operator's folder."""
    front, principal = scene.front, scene.principal
    place = job_file(arguments.job, front.job_folder)
    if not principal.sees_job(arguments.job) or not place.is_file():
        raise RequestError("no-such-job", f"no file {place.name!r} in the job folder", field="job")
    definition = JobDefinition.load(place)
    if definition.name != arguments.job:
        message = f"the file {place.name!r} holds the job {definition.name!r}"
        raise RequestError("conflict", message, field="job")
    if not principal.unbounded:
        # The bundles that the file names would be registered: that is for those who may use them.
        for name in definition.bundles:
            front.bundle(principal, name, "job")
        _refuse_uncovered(front, principal, definition)
    resolved = await front.server.load(place, replace=arguments.replace)
    return {
        "job": resolved.name,
        "file": place.name,
        "state": views.job_row(resolved, front.server.registry)["state"],
    }


# ---- runs


async def run(scene: Scene, arguments: Any) -> Any:
    """Start a run."""
    front, principal = scene.front, scene.principal
    definition = front.job(principal, arguments.job)
    if front.covers_code(principal, definition) is not None:
        raise RequestError("forbidden", f"job {arguments.job!r} uses code that your token does not cover")
    started = await front.server.start(arguments.job, arguments.params, key=_key(principal, arguments.key))
    return {"run": started.id}


async def run_task(scene: Scene, arguments: Any) -> Any:
    """Start a run of one task."""
    front, principal = scene.front, scene.principal
    found = front.task(principal, arguments.task, "task")
    key = _key(principal, arguments.key)
    started = await front.server.start_task(found.full_path, arguments.args, key=key)
    front.note_task_run(started)
    return {"run": started.id}


def _key(principal: Principal, key: str | None) -> str | None:
    """Keep the keys of users apart: one could else learn of, or block, another's runs."""
    return None if key is None else f"{principal.user}/{key}"


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
        return {"run": found.id, "state": str(found.state), "results": views.plain(dict(found.results))}
    state = _task_of(found, arguments.task).state
    if arguments.task not in found.results:
        message = f"task {arguments.task!r} of run {found.id} has no result: it is {state}"
        raise RequestError("conflict", message, field="task")
    return {"run": found.id, "task": arguments.task, "result": views.plain(found.results[arguments.task])}


def _task_of(found: Run, name: str) -> Any:
    if name not in found.tasks:
        from scattersphere.remote.front import near  # noqa: PLC0415 - only errors need it

        message = f"no task {name[:64]!r} in run {found.id}{near(name, list(found.tasks))}"
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
    again = getattr(front.server, "rerun", None)
    if again is None:
        raise RequestError("unsupported", "this server cannot rerun")
    started = await again(found.id, from_failed=arguments.from_failed, code=arguments.code)
    return {"run": started.id}


async def wait(scene: Scene, arguments: Any) -> Any:
    """Wait for the end of a run."""
    found = scene.run(arguments.run)
    await found.wait(arguments.timeout)
    return _accepted(found)


async def logs(scene: Scene, arguments: Any) -> Any:
    """Show the log of a run."""
    found = scene.run(arguments.run)
    if arguments.task is not None:
        _task_of(found, arguments.task)
    lines = found.logs(arguments.task, index=arguments.index, attempt=arguments.attempt, tail=arguments.tail)
    return {"run": found.id, "lines": [views.log_row(line) for line in lines]}


# ---- events


async def follow(scene: Scene, arguments: Any) -> Any:
    """Subscribe to events."""
    if arguments.run is None:
        return _follow_server(scene, arguments)
    found = scene.run(arguments.run)
    kinds = _kinds(arguments.kinds, RUN_KINDS, "a run")
    since = found.last_event if arguments.since is None else arguments.since
    number = scene.follower.follow(found.events(since), since, kinds, lambda _, __: True)
    state = str(found.state)
    return {"subscription": number, "run": found.id, "state": state, "next": since + 1}


def _follow_server(scene: Scene, arguments: Any) -> Any:
    server = scene.front.server
    kinds = _kinds(arguments.kinds, SERVER_KINDS, "the server")
    # In this stream the moves are those of runs.
    kinds = frozenset("state" if kind == "runs" else kind for kind in kinds)
    since = server.last_event if arguments.since is None else arguments.since
    number = scene.follower.follow(server.events(since), since, kinds, views.visible)
    return {"subscription": number, "next": since + 1}


def _kinds(asked: list[str] | None, offered: tuple[str, ...], what: str) -> frozenset[str]:
    wrong = [kind for kind in asked or () if kind not in offered]
    if wrong:
        message = f"{what} has the kinds {', '.join(offered)}, not {wrong[0]!r}"
        raise RequestError("bad-args", message, field="kinds")
    return frozenset(asked or offered)


async def unfollow(scene: Scene, arguments: Any) -> Any:
    """End a subscription."""
    scene.follower.unfollow(arguments.subscription)
    return {"subscription": arguments.subscription}


# ---- the server


async def stats(scene: Scene, _: Any) -> Any:
    """Count what is there."""
    return {**scene.front.server.stats(), "sessions": len(scene.front.sessions)}


async def sessions(scene: Scene, _: Any) -> Any:
    """List the sessions."""
    rows = []
    for name, record in scene.front.sessions.items():
        principal = record.session.principal
        row = {
            "session": name,
            "peer": record.peer,
            "since": record.since,
            "requests": record.session.requests,
        }
        if principal is not None:
            row |= {"user": principal.user, "role": str(principal.role)}
        rows.append(row | {"follows": record.session.follows})
    return {"sessions": rows}


async def shutdown(scene: Scene, _: Any) -> Any:
    """End the server, where its host lets sessions do that."""
    if scene.front.on_shutdown is None:
        raise RequestError("unsupported", "the program that holds this server does not let sessions end it")
    scene.front.on_shutdown()
    return {}


Handler = Callable[[Scene, Any], Awaitable[Any]]

HANDLERS: dict[str, Handler] = {
    "bundles": bundles,
    "tasks": tasks,
    "task": task,
    "register": register,
    "deregister": deregister,
    "reload": reload,
    "jobs": jobs,
    "job": job,
    "define": define,
    "validate": validate,
    "undefine": undefine,
    "save": save,
    "load": load,
    "run": run,
    "run_task": run_task,
    "runs": runs,
    "status": status,
    "result": result,
    "explain": explain,
    "pause": pause,
    "resume": resume,
    "stop": stop,
    "cancel": cancel,
    "kill": kill,
    "rerun": rerun,
    "wait": wait,
    "logs": logs,
    "follow": follow,
    "unfollow": unfollow,
    "stats": stats,
    "sessions": sessions,
    "shutdown": shutdown,
}

"""Definitions: shown, checked, taken up, forgotten, saved and loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.errors import DefinitionError
from scattersphere.model.definition import JobDefinition
from scattersphere.model.problem import Problem
from scattersphere.remote import views
from scattersphere.remote.errors import RequestError, wire_problems
from scattersphere.remote.places import job_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.remote.arguments import Definition
    from scattersphere.remote.front import Front
    from scattersphere.remote.handlers.scene import Scene
    from scattersphere.remote.roles import Principal


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
    shown = json.loads(definition.dumps())
    found = {"job": definition.name, "digest": definition.digest, "definition": shown}
    lacking = scene.front.server.unresolved.get(definition.name, ())
    # The words may suggest names of other bundles: those are for who sees them all.
    return found | ({"problems": wire_problems(lacking)} if lacking and scene.principal.unbounded else {})


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
    lacking: list[Problem] = []
    if row["state"] == "unresolved":
        lacking = _moved(front.server.validate(arguments.definition.text), arguments.definition)
    return {"job": resolved.name, "state": row["state"], "problems": wire_problems(lacking)}


async def validate(scene: Scene, arguments: Any) -> Any:
    """Tell what is wrong with a definition."""
    server, text = scene.front.server, arguments.definition
    try:
        definition = _read(text)
    except DefinitionError as exc:
        # What the code has to say could name tasks that a bounded token does not see.
        told = _moved(server.validate(text.text), text) if scene.principal.unbounded else exc.problems
        return {"problems": wire_problems(told)}
    uncovered = scene.front.covers_code(scene.principal, definition)
    if uncovered is not None:
        return {"problems": wire_problems([_uncovered(uncovered, definition)])}
    return {"problems": wire_problems(_moved(server.validate(text.text), text))}


def _read(definition: Definition) -> JobDefinition:
    """Read a definition; the columns of problems become those of the line that the client sent."""
    try:
        return JobDefinition.loads(definition.text)
    except DefinitionError as exc:
        raise DefinitionError(_moved(exc.problems, definition), source=exc.source) from None


def _moved(problems: Iterable[Problem], definition: Definition) -> list[Problem]:
    return [
        attrs.evolve(problem, column=(problem.column or 1) + definition.column - 1)
        if problem.line == 1
        else problem
        for problem in problems
    ]


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

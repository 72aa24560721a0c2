"""Commands about job definitions: shown, checked, defined, undefined, saved and loaded."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import attrs

from scattersphere._gc import free
from scattersphere._threads import in_thread
from scattersphere._turns import count, holds
from scattersphere.commands import views
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.arguments import Arg, Definition
from scattersphere.commands.errors import RequestError, wire_problems
from scattersphere.commands.gateway import Context, Gateway
from scattersphere.commands.masking import MASK_HINTS, masks
from scattersphere.commands.paging import LIMIT, Cursor, Limit, page
from scattersphere.commands.paths import job_file
from scattersphere.commands.table import Reply, command
from scattersphere.definitions import loads_definition, read_definition, without_secrets
from scattersphere.errors import DefinitionError
from scattersphere.jobs.jobs import is_long
from scattersphere.model.definition import JobDefinition, Parameter
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

JobName = Annotated[str, Arg("the name of a job")]
Text = Annotated[Definition, Arg("a job definition, on one line")]
Replace = Annotated[bool, Arg("replace a job of this name")]
LARGE_TEXT = 1 << 20
"""Characters of a definition above which they are read one after the other: each takes seconds and much memory."""
VALUES, CONTAINERS = 500_000, 500_000
"""What may stand in one of those, by its commas and brackets: 10 MiB of real tasks have four fifths of the first and
two thirds of the second, but as lists of nothing they would be three million objects."""
T = TypeVar("T")
EXAMPLE = '{"format": 1, "name": "hi", "tasks": {"a": {"task": "Greet"}}}'


@command("jobs", role=Role.VIEWER, example="jobs", method="GET", path="/jobs", idempotent=True)
async def jobs(context: Context, *, limit: Limit = LIMIT, cursor: Cursor = None) -> Reply:
    """List the defined jobs."""
    server = context.gateway.server
    names, more = page(
        (
            name
            for name in sorted(server.definitions)
            if (cursor is None or name > cursor) and context.principal.sees_job(name)
        ),
        limit,
    )
    return {"jobs": [views.job_row(server.definitions[name], server.registry) for name in names], **more}


@command("job", role=Role.VIEWER, example="job nightly", method="GET", path="/jobs/{name}", idempotent=True)
async def job(context: Context, *, name: JobName) -> Reply:
    """Show a job's definition."""
    definition = context.gateway.job(context.principal, name, "name")
    text = await _apart(len(definition.tasks) > views.MANY_TASKS, without_secrets(definition).dumps)
    if len(text) > context.gateway.limits.output:
        message = f"the definition has {len(text)} characters, more than {context.gateway.limits.output}"
        raise RequestError("too-large", f"{message}; `save` it, and look at the file")
    shown = json.loads(text)
    found = {"job": definition.name, "digest": await views.digest_of(definition), "definition": shown}
    await context.gateway.judge(definition.name)
    lacking = context.gateway.server.unresolved.get(definition.name, ())
    # The words may suggest names of other bundles: those are for who sees them all.
    return found | ({"problems": wire_problems(lacking)} if lacking and context.principal.unbounded else {})


@command(
    "define", role=Role.OPERATOR, example=f"define {EXAMPLE}", method="POST", path="/jobs", whole="definition"
)
async def define(context: Context, *, definition: Text, replace: Replace = False) -> Reply:
    """Define a job."""
    async with _in_turn(context.gateway, definition):
        return await _define(context, definition, replace=replace)


async def _define(context: Context, definition: Definition, *, replace: bool) -> Reply:
    gateway, principal = context.gateway, context.principal
    read = await _apart(is_long(definition.text), _read, definition)
    _refuse_uncovered(gateway, principal, read)
    _refuse_env(principal, read)
    if problems := await _apart(is_long(definition.text), masks, read, definition.text):
        raise DefinitionError(_moved(problems, definition), source=read.name)
    if read.name in gateway.server.definitions and not replace:
        raise RequestError(
            "exists", f"job {read.name!r} is defined already; pass replace=true", field="replace"
        )
    resolved = await gateway.server.adefine(read, replace=replace)
    given = list[object]([read])
    del read
    await _apart(is_long(definition.text), free, given)
    row = views.job_row(resolved, gateway.server.registry)
    lacking: list[Problem] = []
    if row["state"] == "unresolved":
        lacking = _moved(await gateway.server.avalidate(definition.text), definition)
    return {"job": resolved.name, "state": row["state"], "problems": wire_problems(lacking)}


@command(
    "validate",
    role=Role.VIEWER,
    example=f"validate {EXAMPLE}",
    method="POST",
    path="/validate",
    idempotent=True,
    whole="definition",
)
async def validate(context: Context, *, definition: Text) -> Reply:
    """Tell everything that is wrong with a definition."""
    async with _in_turn(context.gateway, definition):
        return await _validate(context, definition)


async def _validate(context: Context, definition: Definition) -> Reply:
    server, principal = context.gateway.server, context.principal
    if not principal.unbounded:
        # What the code has to say could name tasks that a bounded token does not see.
        try:
            read = await _apart(is_long(definition.text), _read, definition)
        except DefinitionError as exc:
            return {"problems": wire_problems(exc.problems)}
        uncovered = context.gateway.uncovered(principal, read)
        if uncovered is not None:
            return {"problems": wire_problems([_uncovered(uncovered, read)])}
    problems = await server.avalidate(definition.text)
    if found := await _apart(is_long(definition.text), _masks, definition.text):
        problems = sorted([*problems, *found], key=lambda problem: (problem.line or 0, problem.column or 0))
    return {"problems": wire_problems(_moved(problems, definition))}


def _masks(text: str) -> list[Problem]:
    """Find `***` for secrets in a text, which may be no right definition yet."""
    if not any(holds(text, hint) for hint in MASK_HINTS):
        return []
    try:
        reading = read_definition(text)
    except DefinitionError:
        return []  # no JSON
    found = [] if reading.definition is None else masks(reading.definition, text)
    reading.discard()
    return found


@asynccontextmanager
async def _in_turn(gateway: Gateway, definition: Definition) -> AsyncIterator[None]:
    """Let one large definition at a time through. Raises `RequestError` (`too-large`) for what holds too much."""
    text = definition.text
    if len(text) <= LARGE_TEXT:
        yield
        return
    if await in_thread(lambda: _holds_too_much(text)):
        raise RequestError(
            "too-large",
            f"a definition may hold some {VALUES:,} values and {CONTAINERS:,} lists and objects over the network; "
            "put the data into a file whose path is an argument",
            field="definition",
        )
    async with gateway.large_definitions:
        yield


def _holds_too_much(text: str) -> bool:
    return count(text, ",") > VALUES or count(text, "[") + count(text, "{") > CONTAINERS


async def _apart(takes_long: bool, work: Callable[..., T], *args: object) -> T:  # noqa: FBT001 - it comes before the work
    """Do work on a definition, in a thread where it takes long: nobody else's session is to wait for it."""
    return await in_thread(partial(work, *args)) if takes_long else work(*args)


def _read(definition: Definition) -> JobDefinition:
    """Read a definition; the columns of problems become those of the line that the client sent."""
    try:
        return loads_definition(definition.text)
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


def _refuse_uncovered(gateway: Gateway, principal: Principal, definition: JobDefinition) -> bool:
    """Judge a definition that is to be taken up; return whether it brings code that would be loaded."""
    if not principal.sees_job(definition.name):
        message = f"your token covers no job of the name {definition.name[:64]!r}"
        raise RequestError("forbidden", message, field="definition")
    brings_code = gateway.check_bundles(principal, definition.bundles.items())
    # A job with schedules runs by itself: nobody is asked then whether the code is covered.
    trusted = brings_code and not definition.schedules
    uncovered = None if trusted else gateway.uncovered(principal, definition)
    if uncovered is not None:
        raise DefinitionError([_uncovered(uncovered, definition)], source=definition.name)
    return brings_code


def _refuse_env(principal: Principal, definition: JobDefinition) -> None:
    """Let nobody but an admin say what is read from the environment: a task could tell it to who wrote the job."""
    if principal.role.covers(Role.ADMIN):
        return
    for name, declared in definition.params.items():
        if isinstance(declared, Parameter) and declared.env is not None:
            message = f"params.{name}.env: to name a variable of the environment needs the role {Role.ADMIN}"
            raise RequestError("forbidden", message, field="definition")


@command("undefine", role=Role.OPERATOR, example="undefine nightly", method="DELETE", path="/jobs/{job}")
async def undefine(context: Context, *, job: JobName) -> Reply:
    """Forget a job; its runs go on."""
    context.gateway.job(context.principal, job)
    await context.gateway.server.aundefine(job)
    return {"job": job}


@command(
    "save",
    role=Role.OPERATOR,
    example="save nightly overwrite=true",
    method="POST",
    path="/jobs/{job}/save",
    slow=True,
)
async def save(
    context: Context,
    *,
    job: JobName,
    overwrite: Annotated[bool, Arg("replace a file that was changed since it was loaded")] = False,
) -> Reply:
    """Save a job in the operator's folder."""
    gateway = context.gateway
    definition = gateway.job(context.principal, job)
    place = job_file(job, gateway.job_folder)
    # What lies in the folder is loaded when the server starts, and the code that it names with it.
    gateway.check_bundles(context.principal, definition.bundles.items())
    await in_thread(partial(definition.save, place, overwrite=overwrite))
    return {"job": job, "file": place.name}


@command(
    "load", role=Role.OPERATOR, example="load nightly", method="POST", path="/jobs/{job}/load", slow=True
)
async def load(context: Context, *, job: JobName, replace: Replace = False) -> Reply:
    """Load a job from the operator's folder."""
    gateway, principal = context.gateway, context.principal
    place = job_file(job, gateway.job_folder)
    if not principal.sees_job(job) or not place.is_file():
        raise RequestError("no-such-job", f"no file {place.name!r} in the job folder", field="job")
    definition = await in_thread(partial(JobDefinition.load, place))
    if definition.name != job:
        message = f"the file {place.name!r} holds the job {definition.name!r}"
        raise RequestError("conflict", message, field="job")
    if _refuse_uncovered(gateway, principal, definition):
        resolved = await gateway.server.load(place, replace=replace)
    else:  # no code comes with it
        resolved = await gateway.server.adefine(definition, replace=replace)
    state = views.job_row(resolved, gateway.server.registry)["state"]
    return {"job": resolved.name, "file": place.name, "state": state}

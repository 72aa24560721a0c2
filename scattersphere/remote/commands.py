"""The one table of commands. Help, `commands`, `schema`, rights and dispatch are made from it.

A command that is not here does not exist: names that clients send are looked up in this table and
nowhere else, and handlers are found in a table of their own (`handlers.HANDLERS`).
"""

from __future__ import annotations

# ruff: noqa: RUF009 - `argument` returns an attrs field; the rule knows only attrs' own names
from typing import Any

import attrs

from scattersphere.model.states import RunState
from scattersphere.remote.arguments import Kind, argument
from scattersphere.remote.roles import Role

RUN_KINDS = ("state", "log", "progress")
SERVER_KINDS = ("bundles", "jobs", "runs")
FORMATS = ("json", "pretty", "table")


def _run() -> Any:
    return argument(Kind.INTEGER, "the number of a run", low=1)


def _job() -> Any:
    return argument(Kind.TEXT, "the name of a job")


def _bundle() -> Any:
    return argument(Kind.TEXT, "the name of a bundle")


def _optional(kind: Kind, help_: str, **more: Any) -> Any:
    return argument(kind, help_, default=None, **more)


def _flag(help_: str) -> Any:
    return argument(Kind.FLAG, help_, default=False)


@attrs.frozen(kw_only=True)
class Nothing:
    """No arguments."""


@attrs.frozen(kw_only=True)
class Hello:
    """Which protocol the client speaks."""

    protocol: int | None = _optional(Kind.INTEGER, "the protocol that you speak: 1")


@attrs.frozen(kw_only=True)
class Auth:
    """The proof of who the client is; never shown."""

    token: str = argument(Kind.TEXT, "the token", secret=True)


@attrs.frozen(kw_only=True)
class OneCommand:
    """A command to be told about."""

    command: str | None = _optional(Kind.TEXT, "the name of a command")


@attrs.frozen(kw_only=True)
class Schema:
    """What to describe."""

    command: str | None = _optional(Kind.TEXT, "a command, or `definition`; by default all of them")


@attrs.frozen(kw_only=True)
class Output:
    """How replies are written."""

    format: str = argument(Kind.TEXT, "json, pretty or table", choices=FORMATS)


@attrs.frozen(kw_only=True)
class Drop:
    """The role to keep at most."""

    role: str = argument(Kind.TEXT, "the highest role to keep", choices=tuple(Role))


@attrs.frozen(kw_only=True)
class OptionalBundle:
    """One bundle, or all."""

    name: str | None = _optional(Kind.TEXT, "only this bundle")


@attrs.frozen(kw_only=True)
class BundleTasks:
    """The tasks of one bundle, or all."""

    bundle: str | None = _optional(Kind.TEXT, "only the tasks of this bundle")


@attrs.frozen(kw_only=True)
class TaskPath:
    """A task class."""

    path: str = argument(Kind.TEXT, "the path of a task, as `tasks` shows it")


@attrs.frozen(kw_only=True)
class Register:
    """A file in the operator's bundle roots."""

    file: str = argument(Kind.TEXT, "the name of a file or folder in the bundle roots")
    name: str | None = _optional(Kind.TEXT, "the bundle's name; by default the file's")


@attrs.frozen(kw_only=True)
class Deregister:
    """A bundle to withdraw."""

    name: str = _bundle()
    force: bool = _flag("cancel the runs that need it first")
    require_idle: bool = _flag("refuse while runs need it")


@attrs.frozen(kw_only=True)
class OneBundle:
    """A bundle."""

    name: str = _bundle()


@attrs.frozen(kw_only=True)
class OneJobName:
    """A job by `name`."""

    name: str = _job()


@attrs.frozen(kw_only=True)
class OneJob:
    """A job by `job`."""

    job: str = _job()


@attrs.frozen(kw_only=True)
class Define:
    """A definition to take up."""

    definition: Any = argument(Kind.DEFINITION, "a job definition, on one line")
    replace: bool = _flag("replace a job of this name")


@attrs.frozen(kw_only=True)
class Validate:
    """A definition to check."""

    definition: Any = argument(Kind.DEFINITION, "a job definition, on one line")


@attrs.frozen(kw_only=True)
class Save:
    """A job to write to the operator's folder."""

    job: str = _job()
    overwrite: bool = _flag("replace a file that was changed since it was loaded")


@attrs.frozen(kw_only=True)
class Load:
    """A job to read from the operator's folder."""

    job: str = _job()
    replace: bool = _flag("replace a job of this name")


@attrs.frozen(kw_only=True)
class StartRun:
    """A job to run."""

    job: str = _job()
    params: dict[str, Any] = argument(Kind.OBJECT, "parameters of the run", default=attrs.Factory(dict))
    key: str | None = _optional(Kind.TEXT, "the same key gives the same run: retry without doubling")


@attrs.frozen(kw_only=True)
class StartTask:
    """A task to run by itself."""

    task: str = argument(Kind.TEXT, "the path of a task")
    args: dict[str, Any] = argument(Kind.OBJECT, "its arguments", default=attrs.Factory(dict))
    key: str | None = _optional(Kind.TEXT, "the same key gives the same run: retry without doubling")


@attrs.frozen(kw_only=True)
class Runs:
    """Which runs to list."""

    job: str | None = _optional(Kind.TEXT, "only the runs of this job")
    state: str | None = _optional(Kind.TEXT, "only runs in this state", choices=tuple(RunState))
    limit: int = argument(Kind.INTEGER, "at most so many", default=50, low=1, high=1_000)


@attrs.frozen(kw_only=True)
class OneRun:
    """A run."""

    run: int = _run()


@attrs.frozen(kw_only=True)
class RunTask:
    """A run, or one task of it."""

    run: int = _run()
    task: str | None = _optional(Kind.TEXT, "only this task")


@attrs.frozen(kw_only=True)
class Control:
    """A run to be controlled."""

    run: int = _run()
    reason: str | None = _optional(Kind.TEXT, "why, for those who look later")
    grace: float | None = _optional(Kind.NUMBER, "seconds to clean up (cancel)", low=0, high=86_400)


@attrs.frozen(kw_only=True)
class Rerun:
    """A run to be done again."""

    run: int = _run()
    from_failed: bool = argument(Kind.FLAG, "keep the results of what succeeded", default=True)
    code: str = argument(Kind.TEXT, "which code", default="pinned", choices=("pinned", "latest"))


@attrs.frozen(kw_only=True)
class Wait:
    """A run to wait for."""

    run: int = _run()
    timeout: float = argument(Kind.NUMBER, "seconds", default=60, low=0, high=3_600)


@attrs.frozen(kw_only=True)
class Logs:
    """Which lines of a run's log, or of the server's log of its runs."""

    run: int | None = _optional(Kind.INTEGER, "the number of a run; without it the server's own log", low=1)
    task: str | None = _optional(Kind.TEXT, "only this task")
    attempt: int | None = _optional(Kind.INTEGER, "only this attempt", low=1)
    tail: int = argument(Kind.INTEGER, "at most so many of the last lines", default=100, low=1, high=10_000)
    index: int | None = _optional(Kind.INTEGER, "only this instance of a mapped task", low=0)
    job: str | None = _optional(Kind.TEXT, "without a run: only the runs of this job")


@attrs.frozen(kw_only=True)
class Follow:
    """What to be told of."""

    run: int | None = _optional(Kind.INTEGER, "a run; without it the server's own stream", low=1)
    kinds: list[str] | None = _optional(
        Kind.WORDS, "only these kinds, with commas between", choices=RUN_KINDS + SERVER_KINDS
    )
    since: int | None = _optional(Kind.INTEGER, "the number of the last event that you have", low=0)


@attrs.frozen(kw_only=True)
class Unfollow:
    """A subscription to end."""

    subscription: int = argument(Kind.INTEGER, "the number that `follow` gave", low=1)


@attrs.frozen(kw_only=True)
class Command:
    """One row. `role` None needs none; `slow` ones may suspend for long, so they get a task of their own.

    `extra` names the object that takes the other `key=value` of a word command; `whole` the argument
    that takes the rest of its line.
    """

    name: str
    arguments: type[Any]
    role: Role | None
    handler: str
    help: str
    example: str
    before_auth: bool = False
    slow: bool = False
    whole_server: bool = False
    extra: str | None = None
    whole: str | None = None


_V, _R, _O, _A = Role.VIEWER, Role.RUNNER, Role.OPERATOR, Role.ADMIN


def _row(
    name: str, arguments: type[Any], role: Role | None, help_: str, example: str, **more: Any
) -> Command:
    handler = more.pop("handler", name.replace("-", "_"))
    return Command(
        name=name, arguments=arguments, role=role, handler=handler, help=help_, example=example, **more
    )


_ROWS = (
    _row("hello", Hello, None, "Say which protocol you speak; tells who you are", "hello", before_auth=True),
    _row("auth", Auth, None, "Prove who you are", "auth TOKEN", before_auth=True),
    _row("ping", Nothing, None, "Ask for a sign of life", "ping", before_auth=True),
    _row("help", OneCommand, None, "Explain the commands, or one of them", "help run", before_auth=True),
    _row("quit", Nothing, None, "End the session; runs go on", "quit", before_auth=True),
    _row("whoami", Nothing, None, "Tell your user name and role", "whoami"),
    _row("commands", Nothing, None, "List the commands that you may use", "commands"),
    _row("schema", Schema, None, "Give the JSON Schema of requests and of definitions", "schema run"),
    _row("output", Output, _V, "Choose how replies are written", "output table"),
    _row("drop", Drop, _V, "Give up rights, for the rest of the session", "drop viewer"),
    _row("bundles", OptionalBundle, _V, "List bundles, their versions and errors", "bundles etl"),
    _row("tasks", BundleTasks, _V, "List the tasks that jobs can be made of", "tasks etl"),
    _row("task", TaskPath, _V, "Show a task and its parameters", "task etl.load.LoadDay"),
    _row("register", Register, _A, "Load a bundle from the bundle roots", "register etl.py", slow=True),
    _row("deregister", Deregister, _A, "Withdraw a bundle", "deregister etl require_idle", slow=True),
    _row("reload", OneBundle, _A, "Take up what changed in a bundle", "reload etl", slow=True),
    _row("jobs", Nothing, _V, "List the defined jobs", "jobs"),
    _row("job", OneJobName, _V, "Show a job's definition", "job nightly"),
    _row(
        "define",
        Define,
        _O,
        "Define a job",
        'define {"format": 1, "name": "hi", "tasks": {"a": {"task": "Greet"}}}',
        whole="definition",
    ),
    _row(
        "validate",
        Validate,
        _V,
        "Tell everything that is wrong with a definition",
        'validate {"format": 1, "name": "hi", "tasks": {"a": {"task": "Greet"}}}',
        whole="definition",
    ),
    _row("undefine", OneJob, _O, "Forget a job; its runs go on", "undefine nightly"),
    _row("save", Save, _O, "Save a job in the operator's folder", "save nightly overwrite=true"),
    _row("load", Load, _O, "Load a job from the operator's folder", "load nightly", slow=True),
    _row(
        "run", StartRun, _R, "Start a run of a job", "run nightly day=2026-11-23 retries:=3", extra="params"
    ),
    _row("run-task", StartTask, _O, "Start a run of one task", "run-task etl.Load day=1", extra="args"),
    _row("runs", Runs, _V, "List runs, newest first", "runs nightly failed limit=5"),
    _row("status", OneRun, _V, "Show where a run and its tasks are", "status 17"),
    _row("result", RunTask, _V, "Show the results of a run", "result 17 count"),
    _row("explain", OneRun, _V, "Tell what happened in a run, and why", "explain 17"),
    _row("pause", Control, _R, "Start no further task of a run", "pause 17"),
    _row("resume", Control, _R, "Go on after a pause", "resume 17"),
    _row("stop", Control, _R, "Let executing tasks finish, start no more", "stop 17 'enough for today'"),
    _row("cancel", Control, _R, "Cancel what executes, with time to clean up", "cancel 17 grace=30"),
    _row("kill", Control, _R, "End a run now", "kill 17"),
    _row("rerun", Rerun, _R, "Do a run again, from what failed", "rerun 17 code=latest", slow=True),
    _row("wait", Wait, _V, "Wait until a run has ended", "wait 17 timeout=600", slow=True),
    _row("logs", Logs, _V, "Show the log of a run, or which runs there were", "logs 17 count tail=20"),
    _row("follow", Follow, _V, "Be told what happens, as it happens", "follow 17 kinds=state,log"),
    _row("unfollow", Unfollow, _V, "End a subscription", "unfollow 1"),
    _row("stats", Nothing, _O, "Count what is there", "stats", whole_server=True),
    _row("sessions", Nothing, _O, "List the sessions", "sessions", whole_server=True),
    _row("shutdown", Nothing, _A, "End the server", "shutdown", whole_server=True),
)

COMMANDS: dict[str, Command] = {row.name: row for row in _ROWS}

IN_SESSION = frozenset(
    {"hello", "auth", "ping", "help", "quit", "whoami", "commands", "schema", "output", "drop"}
)
"""Answered by the session itself (`answers.py`): they need no server."""

"""The one table of commands: `@command` enters a typed handler, and everything else is made from its row.

A command that is not here does not exist: names that clients send are looked up in `COMMANDS` and nowhere else.
What a handler takes is its keyword-only parameters; each is annotated with what it means (`Arg`), so that arguments,
help, schema and the wire's words come from the signature, and a renamed parameter is a type error in its body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import attrs

from scattersphere._text import did_you_mean
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.arguments import CommandArgument, arguments_of
from scattersphere.commands.errors import RequestError

P = ParamSpec("P")
R = TypeVar("R")
Reply = dict[str, Any]
"""What a handler returns: JSON, an object."""


@attrs.frozen(kw_only=True)
class CommandSpec:
    """One row. `handler` is awaited with a `Context`; one `in_session` is called with the session, and does not wait.

    `role` None needs none. `late`: its reply may come after those to later requests. `slow`: it may take long, and
    the session waits for it. `in_session`: answered by the session itself. `whole_server`: not for a principal with
    patterns. `extra` names the object that takes the other `key=value` of a command in words; `whole` the argument
    that takes the rest of its line.
    """

    name: str
    handler: Callable[..., Any] = attrs.field(repr=False)
    arguments: dict[str, CommandArgument] = attrs.field(repr=False)
    role: Role | None
    help: str
    example: str
    group: str
    method: str | None = None
    path: str | None = None
    late: bool = False
    slow: bool = False
    idempotent: bool = False
    streaming: bool = False
    in_session: bool = False
    before_auth: bool = False
    whole_server: bool = False
    extra: str | None = None
    whole: str | None = None

    changes: bool = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: self.role is not None and self.role.covers(Role.RUNNER) and self.method != "GET",
            takes_self=True,
        ),
    )
    """Whether it may change anything: who only looks has no right to."""


COMMANDS: dict[str, CommandSpec] = {}
"""All commands by name; `scattersphere.commands.handlers` fills it."""
GROUPS = ("session", "code", "jobs", "runs", "schedules", "events", "host")
"""The modules of `handlers`, in the order in which help shows their commands."""


def command(
    name: str, *, role: Role | None, example: str, **more: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Enter a handler in the table; `more` are the members of `CommandSpec`. Its first docstring line is the help."""

    def enter(handler: Callable[P, R]) -> Callable[P, R]:
        if name in COMMANDS:
            raise ValueError(f"there are two commands {name!r}")
        COMMANDS[name] = CommandSpec(
            name=name,
            handler=handler,
            arguments=arguments_of(handler),
            role=role,
            help=(handler.__doc__ or "").partition("\n")[0].rstrip("."),
            example=example,
            group=handler.__module__.rpartition(".")[2],
            **more,
        )
        return handler

    return enter


def find_command(name: str) -> CommandSpec:
    """Return a row of the table. Raises `RequestError` (`unknown-command`) with a suggestion."""
    found = COMMANDS.get(name)
    if found is None:
        raise unknown_command(name)
    return found


def unknown_command(name: str) -> RequestError:
    """Return the error for a name that is not in the table."""
    hint = did_you_mean(name, COMMANDS, quote="'") or "; type: help"
    return RequestError("unknown-command", f"no command {name[:32]!r}{hint}")


def check_right(principal: Principal, row: CommandSpec) -> None:
    """Raise `RequestError` (`forbidden`) unless the principal may use a command at all."""
    if principal.may_use(row.role, whole_server=row.whole_server):
        return
    what = f"the role {row.role}"
    if row.role is None or principal.role.covers(row.role):
        what = "rights on the whole server"
    raise RequestError("forbidden", f"{row.name} needs {what}")

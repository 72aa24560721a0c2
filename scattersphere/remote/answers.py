"""The commands that a session answers by itself: they need no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.model.definition import JobDefinition
from scattersphere.remote import manual
from scattersphere.remote.commands import COMMANDS, Command
from scattersphere.remote.errors import RequestError
from scattersphere.remote.render import RENDERERS
from scattersphere.remote.requests import find_command
from scattersphere.remote.roles import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.remote.session import Session

PROTOCOLS = (1,)


def _allowed(session: Session) -> list[Command]:
    principal = session.principal
    if principal is None:
        return [command for command in COMMANDS.values() if command.before_auth]
    return [
        command
        for command in COMMANDS.values()
        if (command.role is None or principal.role.covers(command.role))
        and (principal.unbounded or not command.whole_server)
    ]


def _hello(session: Session, arguments: Any) -> Any:
    if arguments.protocol is not None and arguments.protocol not in PROTOCOLS:
        raise RequestError("unsupported", f"this server speaks protocol {PROTOCOLS[0]}", field="protocol")
    told: dict[str, Any] = {"protocol": PROTOCOLS[0], "session": session.name}
    if session.principal is not None:
        told |= {"user": session.principal.user, "role": session.principal.role}
        told["limits"] = {"line": session.line_limit, "rate": session.limits.rate}
    return told


def _auth(session: Session, arguments: Any) -> Any:
    if session.principal is not None:
        # Else `drop` could be undone by whoever still knows the token.
        raise RequestError("conflict", "this session is authenticated; open another one")
    if wait := session.gate.blocked():
        message = f"too many failures from your address; try again in {wait:.0f} s"
        raise RequestError("rate-limited", message, retry_after=round(wait, 1))
    session.principal = session.gate.authenticate(arguments.token)
    if session.principal is None:
        session.tries += 1
        raise RequestError("auth-failed", "no such token, or it has expired")
    return {"user": session.principal.user, "role": session.principal.role}


def _ping(_: Session, __: Any) -> Any:
    return {"pong": True}


def _help(session: Session, arguments: Any) -> Any:
    if arguments.command is None:
        return {"help": manual.overview(_allowed(session))}
    return {"help": manual.explain_command(find_command(arguments.command))}


def _quit(_: Session, __: Any) -> Any:
    return {}


def _whoami(session: Session, _: Any) -> Any:
    principal = session.known()
    return {"user": principal.user, "role": principal.role, "patterns": list(principal.patterns)}


def _commands(session: Session, _: Any) -> Any:
    return {"commands": manual.listing(_allowed(session))}


def _schema(session: Session, arguments: Any) -> Any:
    if arguments.command is None:
        return {"commands": manual.schemas(_allowed(session)), "definition": JobDefinition.schema()}
    if arguments.command == "definition":
        return {"schema": JobDefinition.schema()}
    return {"schema": manual.schema_of(find_command(arguments.command))}


def _output(session: Session, arguments: Any) -> Any:
    session.render = RENDERERS[arguments.format]
    return {"format": arguments.format}


def _drop(session: Session, arguments: Any) -> Any:
    session.principal = session.known().dropped(Role(arguments.role))
    return {"role": session.principal.role}


ANSWERS: dict[str, Callable[[Session, Any], Any]] = {
    "hello": _hello,
    "auth": _auth,
    "ping": _ping,
    "help": _help,
    "quit": _quit,
    "whoami": _whoami,
    "commands": _commands,
    "schema": _schema,
    "output": _output,
    "drop": _drop,
}
"""Names to functions, written out: nothing that a client sends is ever used as an attribute's name."""

"""Commands that a session answers by itself: identity, form of replies, help."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from scattersphere.commands import help as manual
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.arguments import Arg
from scattersphere.commands.errors import RequestError
from scattersphere.commands.limits import Limits
from scattersphere.commands.table import COMMANDS, CommandSpec, Reply, command, find_command
from scattersphere.model.definition import JobDefinition

PROTOCOLS = (2,)
CommandName = Annotated[str | None, Arg("the name of a command")]


class Authenticator(Protocol):
    """How a session proves who it acts for. Made by the listener for each connection."""

    def blocked(self) -> float:
        """Return for how many seconds this source may not try, because of earlier failures."""
        ...

    def authenticate(self, token: str) -> Principal | None:
        """Return who the token stands for. A failure is remembered against the source.

        Raises `RequestError` (`busy`) where that user has too many sessions.
        """
        ...

    def current(self, principal: Principal) -> bool:
        """Return whether what the principal was proved with still holds."""
        ...


class Conversation(Protocol):
    """A session, as far as these commands are concerned."""

    name: str
    gate: Authenticator
    limits: Limits
    line_limit: int
    tries: int

    principal: Principal | None

    def act_for(self, principal: Principal | None) -> None:
        """Act for somebody from now on; for None before authentication."""
        ...

    def known(self) -> Principal:
        """Return who the session acts for. Raises `RequestError` (`auth-required`)."""
        ...

    def write_as(self, output: str) -> None:
        """Write replies in this format from now on."""
        ...


def allowed(principal: Principal | None) -> list[CommandSpec]:
    """Return the commands that a principal may use."""
    if principal is None:
        return [row for row in COMMANDS.values() if row.before_auth]
    return [row for row in COMMANDS.values() if principal.may_use(row.role, whole_server=row.whole_server)]


@command("hello", role=None, example="hello", in_session=True, before_auth=True)
def hello(
    session: Conversation,
    *,
    protocol: Annotated[int | None, Arg(f"the protocol that you speak: {PROTOCOLS[0]}")] = None,
) -> Reply:
    """Say which protocol you speak; tells who you are."""
    if protocol is not None and protocol not in PROTOCOLS:
        raise RequestError("unsupported", f"this server speaks protocol {PROTOCOLS[0]}", field="protocol")
    told: dict[str, object] = {"protocol": PROTOCOLS[0], "session": session.name}
    if session.principal is not None:
        told |= {"user": session.principal.user, "role": session.principal.role}
        told["limits"] = {"line": session.line_limit, "rate": session.limits.rate}
    return told


@command("auth", role=None, example="auth TOKEN", in_session=True, before_auth=True)
def auth(session: Conversation, *, token: Annotated[str, Arg("the token", secret=True)]) -> Reply:
    """Prove who you are."""
    if session.principal is not None:
        # Else `drop` could be undone by whoever still knows the token.
        message = f"this session acts for {session.principal.user} already; leave the token out, or open another one"
        raise RequestError("conflict", message)
    if wait := session.gate.blocked():
        message = f"too many failures from your address; try again in {wait:.0f} s"
        raise RequestError("rate-limited", message, retry_after=round(wait, 1))
    principal = session.gate.authenticate(token)
    session.act_for(principal)
    if principal is None:
        session.tries += 1
        raise RequestError("auth-failed", "no such token, or it has expired")
    return {"user": principal.user, "role": principal.role}


@command(
    "ping",
    role=None,
    example="ping",
    method="GET",
    path="/ping",
    idempotent=True,
    in_session=True,
    before_auth=True,
)
def ping(session: Conversation) -> Reply:
    """Ask for a sign of life."""
    del session
    return {"pong": True}


@command(
    "help",
    role=None,
    example="help run",
    method="GET",
    path="/help",
    idempotent=True,
    in_session=True,
    before_auth=True,
)
def help_(session: Conversation, *, command: CommandName = None) -> Reply:
    """Explain the commands, or one of them."""
    if command is None:
        return {"help": manual.overview(allowed(session.principal))}
    return {"help": manual.explain_command(find_command(command))}


@command("quit", role=None, example="quit", in_session=True, before_auth=True)
def quit_(session: Conversation) -> Reply:
    """End the session; runs go on."""
    del session
    return {}


@command(
    "whoami", role=None, example="whoami", method="GET", path="/whoami", idempotent=True, in_session=True
)
def whoami(session: Conversation) -> Reply:
    """Tell your user name and role."""
    principal = session.known()
    return {"user": principal.user, "role": principal.role, "patterns": list(principal.patterns)}


@command(
    "commands",
    role=None,
    example="commands",
    method="GET",
    path="/commands",
    idempotent=True,
    in_session=True,
)
def commands(session: Conversation) -> Reply:
    """List the commands that you may use."""
    return {"commands": manual.listing(allowed(session.principal))}


@command(
    "schema", role=None, example="schema run", method="GET", path="/schema", idempotent=True, in_session=True
)
def schema(
    session: Conversation,
    *,
    command: Annotated[str | None, Arg("a command, or `definition`; by default all of them")] = None,
) -> Reply:
    """Give the JSON Schema of requests and of definitions."""
    if command is None:
        return {"commands": manual.schemas(allowed(session.principal)), "definition": JobDefinition.schema()}
    if command == "definition":
        return {"schema": JobDefinition.schema()}
    return {"schema": manual.schema_of(find_command(command))}


@command("output", role=Role.VIEWER, example="output table", in_session=True)
def output(
    session: Conversation,
    *,
    format: Annotated[Literal["json", "pretty", "table"], Arg("json, pretty or table")],  # noqa: A002 - its name on the wire
) -> Reply:
    """Choose how replies are written."""
    session.write_as(format)
    return {"format": format}


@command("drop", role=Role.VIEWER, example="drop viewer", in_session=True)
def drop(session: Conversation, *, role: Annotated[Role, Arg("the highest role to keep")]) -> Reply:
    """Give up rights, for the rest of the session."""
    principal = session.known().dropped(role)
    session.act_for(principal)
    return {"role": principal.role}

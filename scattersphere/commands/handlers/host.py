"""Commands about the server as a whole."""

from __future__ import annotations

from scattersphere.commands.access import Role
from scattersphere.commands.errors import RequestError
from scattersphere.commands.gateway import Context
from scattersphere.commands.table import Reply, command


@command(
    "stats",
    role=Role.OPERATOR,
    example="stats",
    method="GET",
    path="/stats",
    idempotent=True,
    whole_server=True,
)
async def stats(context: Context) -> Reply:
    """Count what is there."""
    gateway = context.gateway
    return {**gateway.server.stats(), "sessions": len(gateway.sessions), "refused": gateway.refused}


@command(
    "sessions",
    role=Role.OPERATOR,
    example="sessions",
    method="GET",
    path="/sessions",
    idempotent=True,
    whole_server=True,
)
async def sessions(context: Context) -> Reply:
    """List the sessions."""
    rows = []
    for name, record in context.gateway.sessions.items():
        row = {"session": name, "peer": record.peer, "since": record.since, "requests": record.requests}
        if record.principal is not None:
            row |= {"user": record.principal.user, "role": str(record.principal.role)}
        rows.append(row | {"follows": record.follows})
    return {"sessions": rows}


@command("shutdown", role=Role.ADMIN, example="shutdown", method="POST", path="/shutdown", whole_server=True)
async def shutdown(context: Context) -> Reply:
    """End the server, where its host lets sessions do that."""
    if context.gateway.on_shutdown is None:
        raise RequestError("unsupported", "the program that holds this server does not let sessions end it")
    context.gateway.on_shutdown()
    return {}

"""The server as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.remote.errors import RequestError

if TYPE_CHECKING:
    from scattersphere.remote.handlers.scene import Scene


async def stats(scene: Scene, _: Any) -> Any:
    """Count what is there."""
    return {
        **scene.front.server.stats(),
        "sessions": len(scene.front.sessions),
        "refused": scene.front.refused,
    }


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

"""Subscriptions to what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.remote import views
from scattersphere.remote.commands import RUN_KINDS, SERVER_KINDS
from scattersphere.remote.errors import RequestError

if TYPE_CHECKING:
    from scattersphere.remote.handlers.scene import Scene


async def follow(scene: Scene, arguments: Any) -> Any:
    """Subscribe to events."""
    if arguments.run is None:
        return _follow_server(scene, arguments)
    found = scene.run(arguments.run)
    kinds = _kinds(arguments.kinds, RUN_KINDS, "a run")
    since = found.last_event if arguments.since is None else arguments.since
    number = scene.follower.follow(found.events(since), kinds, lambda _, __: True)
    state = str(found.state)
    return {"subscription": number, "run": found.id, "state": state, "next": since + 1}


def _follow_server(scene: Scene, arguments: Any) -> Any:
    server = scene.front.server
    kinds = _kinds(arguments.kinds, SERVER_KINDS, "the server")
    # In this stream the moves are those of runs.
    kinds = frozenset("state" if kind == "runs" else kind for kind in kinds)
    since = server.last_event if arguments.since is None else arguments.since
    number = scene.follower.follow(server.events(since), kinds, views.visible)
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

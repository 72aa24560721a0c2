"""Commands about subscriptions to events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from scattersphere.commands.access import Role
from scattersphere.commands.arguments import Arg, EventPlace
from scattersphere.commands.errors import RequestError
from scattersphere.commands.gateway import Context
from scattersphere.commands.table import Reply, command
from scattersphere.engine.events.streams import place_afar, since_of

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN_KINDS = ("state", "log", "progress")
SERVER_KINDS = ("bundles", "jobs", "runs")


@command(
    "follow",
    role=Role.VIEWER,
    example="follow 17 kinds=state,log",
    method="GET",
    path="/events",
    idempotent=True,
    streaming=True,
)
async def follow(
    context: Context,
    *,
    run: Annotated[int | None, Arg("a run; without it the server's own stream", low=1)] = None,
    kinds: Annotated[
        list[str] | None, Arg("only these kinds, with commas between", choices=RUN_KINDS + SERVER_KINDS)
    ] = None,
    since: Annotated[EventPlace | None, Arg("the number or id of the last event that you have")] = None,
) -> Reply:
    """Be told what happens, as it happens."""
    gateway, follower = context.gateway, context.follower
    if run is None:
        server = gateway.server
        wanted = server_kinds(kinds)
        last = server.last_event
        place = last if since is None else place_afar(since, server.life, last)
        number = follower.follow(server.events(place), wanted, gateway.sees_event)
        return {"subscription": number, **_next(place, server.life)}
    found = await context.run(run)
    wanted = run_kinds(kinds)
    last = found.last_event
    place = last if since is None else place_afar(since, gateway.server.life, last)
    number = follower.follow(found.events(place), wanted, lambda _, __: True)
    told = {"subscription": number, "run": found.id, "state": str(found.state)}
    return told | _next(place, gateway.server.life)


def _next(place: int | str, life: int) -> Reply:
    """Tell the number of the next event, and with a journal in which life."""
    number, _ = since_of(place, life)
    return {"next": number + 1} | ({"life": life} if life else {})


def server_kinds(asked: Sequence[str] | None) -> frozenset[str]:
    """Return the kinds of events that somebody wants of the server's own stream. Raises `RequestError`."""
    # In this stream the moves are those of runs.
    return frozenset(
        "state" if kind == "runs" else kind for kind in _kinds(asked, SERVER_KINDS, "the server")
    )


def run_kinds(asked: Sequence[str] | None) -> frozenset[str]:
    """Return the kinds of events that somebody wants of a run. Raises `RequestError`."""
    return _kinds(asked, RUN_KINDS, "a run")


def _kinds(asked: Sequence[str] | None, offered: tuple[str, ...], what: str) -> frozenset[str]:
    wrong = [kind for kind in asked or () if kind not in offered]
    if wrong:
        message = f"{what} has the kinds {', '.join(offered)}, not {wrong[0][:64]!r}"
        raise RequestError("bad-args", message, field="kinds")
    return frozenset(asked or offered)


@command("unfollow", role=Role.VIEWER, example="unfollow 1", idempotent=True)
async def unfollow(
    context: Context, *, subscription: Annotated[int, Arg("the number that `follow` gave", low=1)]
) -> Reply:
    """End a subscription."""
    context.follower.unfollow(subscription)
    return {"subscription": subscription}

"""A Starlette application that starts jobs and streams their events. Run it: `uvicorn web:app`.

One Server lives as long as the application: the lifespan enters it, so that leaving cancels what still runs.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobs import JOB, Count
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scattersphere import DefinitionError, NoSuchRunError, Run, Server


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Enter the Server when the application starts, leave it when it ends."""
    async with Server(grace=5) as server:
        server.register_tasks("app", [Count])
        server.define(JOB)
        app.state.jobs = server
        yield


async def start(request: Request) -> Response:
    """POST /jobs/count with parameters as JSON: start a run, answer at once with its number."""
    server: Server = request.app.state.jobs
    try:
        run = await server.start(request.path_params["job"], await request.json())
    except DefinitionError as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    return JSONResponse({"run": run.id, "events": f"/runs/{run.id}/events"}, status_code=202)


async def events(request: Request) -> Response:
    """GET /runs/1/events: what happens to a run, as server-sent events, from the first one on.

    A browser that comes back sends the number of the last event that it has seen, and gets the rest.
    """
    server: Server = request.app.state.jobs
    try:
        run = server.runs[request.path_params["id"]]
    except NoSuchRunError as error:
        return JSONResponse({"error": str(error)}, status_code=404)
    since = int(request.headers.get("last-event-id", "0"))
    return StreamingResponse(stream(run, since), media_type="text/event-stream")


async def stream(run: Run, since: int) -> AsyncIterator[str]:
    """Write events in the format of the browser's EventSource."""
    async for event in run.events(since):
        data = {"task": event.task, "state": event.state, "done": event.done, "total": event.total}
        yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n"


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/jobs/{job}", start, methods=["POST"]),
        Route("/runs/{id:int}/events", events),
    ],
)

"""A Starlette application that starts jobs and streams their events. Run it: `uvicorn web:app`.

One Server lives as long as the application: the lifespan enters it, so that leaving cancels what still runs. Errors of
the engine become problem documents at one place.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobs import JOB, Count
from problems import TYPE, problem_of, status_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scattersphere import Run, ScattersphereError, Server


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Enter the Server when the application starts, leave it when it ends."""
    async with Server(grace=5) as server:
        server.register_tasks("app", [Count])
        server.define(JOB)
        app.state.jobs = server
        yield


async def start(request: Request) -> Response:
    """POST /jobs/count with parameters as JSON: start a run, answer at once with its number.

    A request that is sent again with the same Idempotency-Key gets the same run.
    """
    server: Server = request.app.state.jobs
    key = request.headers.get("idempotency-key")
    run = await server.start(request.path_params["job"], await request.json(), key=key)
    return JSONResponse({"run": run.id, "events": f"/runs/{run.id}/events"}, status_code=202)


async def cancel(request: Request) -> Response:
    """POST /runs/1/cancel: ask a run to end; 409 if it has ended."""
    server: Server = request.app.state.jobs
    run = server.runs[request.path_params["id"]]
    run.cancel("asked by a client")
    return JSONResponse({"run": run.id, "state": run.state}, status_code=202)


async def events(request: Request) -> Response:
    """GET /runs/1/events: what happens to a run, as server-sent events, from the first one on.

    A browser that comes back sends the number of the last event that it has seen, and gets the rest.
    """
    server: Server = request.app.state.jobs
    run = server.runs[request.path_params["id"]]
    seen = request.headers.get("last-event-id", "")
    return StreamingResponse(
        stream(run, int(seen) if seen.isdecimal() else 0), media_type="text/event-stream"
    )


async def stream(run: Run, since: int) -> AsyncIterator[str]:
    """Write events in the format of the browser's EventSource."""
    async for event in run.events(since):
        data = {"task": event.task, "state": event.state, "done": event.done, "total": event.total}
        yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n"


async def refuse(request: Request, error: ScattersphereError) -> Response:
    """Answer an error of the engine with a problem document."""
    del request
    return JSONResponse(problem_of(error), status_of(error), media_type=TYPE)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/jobs/{job}", start, methods=["POST"]),
        Route("/runs/{id:int}/cancel", cancel, methods=["POST"]),
        Route("/runs/{id:int}/events", events),
    ],
    exception_handlers={ScattersphereError: refuse},
)

"""A FastAPI application whose requests start jobs. Run it: `uvicorn fastapi_app:app`, then look at /docs.

The Server is entered in the lifespan and handed to the requests as a dependency.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from jobs import JOB, Count
from problems import TYPE, problem_of, status_of
from pydantic import BaseModel, Field

from scattersphere import Run, ScattersphereError, Server


class Order(BaseModel):
    """What a client sends; what pydantic has checked, the job need not refuse."""

    n: int = Field(5, ge=1, le=10_000_000, description="How far to count")


class Status(BaseModel):
    """What a client gets."""

    run: int
    state: str
    result: int | None = None

    @classmethod
    def of(cls, run: Run) -> "Status":
        """Describe a run."""
        return cls(run=run.id, state=run.state, result=run.results.get("count"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Enter the Server when the application starts, leave it when it ends."""
    async with Server(grace=5) as server:
        server.register_tasks("app", [Count])
        server.define(JOB)
        app.state.jobs = server
        yield


def jobs(request: Request) -> Server:
    """Return the Server of the application."""
    server: Server = request.app.state.jobs
    return server


Jobs = Annotated[Server, Depends(jobs)]
app = FastAPI(lifespan=lifespan)


@app.post("/counts", status_code=202)
async def start(order: Order, server: Jobs) -> Status:
    """Start counting, and answer at once."""
    return Status.of(await server.start("count", order.model_dump()))


@app.get("/counts/{run}")
async def status(run: int, server: Jobs, wait: float = 0) -> Status:
    """Tell how far a run is; `wait` so many seconds for its end."""
    found = server.runs[run]
    if wait:
        with suppress(TimeoutError):
            await found.wait(min(wait, 60))
    return Status.of(found)


@app.delete("/counts/{run}", status_code=202)
async def cancel(run: int, server: Jobs) -> Status:
    """Ask a run to end; 409 if it has ended."""
    found = server.runs[run]
    found.cancel("asked by a client")
    return Status.of(found)


@app.exception_handler(ScattersphereError)
async def refuse(request: Request, error: ScattersphereError) -> JSONResponse:
    """Answer an error of the engine with a problem document."""
    del request
    return JSONResponse(problem_of(error), status_of(error), media_type=TYPE)

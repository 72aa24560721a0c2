"""The pages of one job: what it is, the form that starts a run of it, and its definition to be edited."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from markupsafe import Markup
from starlette.responses import RedirectResponse

from scattersphere._gc import free
from scattersphere._threads import in_thread
from scattersphere.commands.arguments import Definition
from scattersphere.commands.errors import RequestError
from scattersphere.definitions import without_secrets
from scattersphere.pictures.nodes import nodes_of
from scattersphere.pictures.svg import graph
from scattersphere.web import content, fields
from scattersphere.web.calls import CallError
from scattersphere.web.guard import base_of, read_form
from scattersphere.web.rendering import drawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from scattersphere.commands.gateway import Gateway
    from scattersphere.model.definition import JobDefinition
    from scattersphere.web.calls import Calls

NEW_JOB = """{
  "name": "my-job",
  "tasks": {
    "first": {"task": "bundle.Task"}
  }
}
"""
DEFINITION = 1024 * 1024
"""Bytes of a definition that is edited in a browser."""


class Show(Protocol):
    """Draws a page from a template and its values, below one of the words of the navigation."""

    def __call__(
        self, request: Request, look: content.VisibleServer, template: str, here: str, **values: object
    ) -> Awaitable[Response]:
        """Return the page."""
        ...


class JobPages:
    """The handlers of the addresses of one job."""

    def __init__(self, gateway: Gateway, calls: Calls, show: Show) -> None:
        self._gateway = gateway
        self._calls = calls
        self._show = show

    async def job(
        self,
        request: Request,
        look: content.VisibleServer,
        *,
        typed: Mapping[str, str] | None = None,
        wrong: Mapping[str, str] | None = None,
        refused: str = "",
    ) -> Response:
        """Show a job, with the form that starts it: as it was typed, if something was wrong."""
        name = request.path_params["job"]
        job = self._gateway.job(look.principal, name)
        text = await _text_of(job)

        picture = await drawn(lambda: _graph_of(job), tasks=len(job.tasks))
        like = content.number_of(request.query_params.get("like"))
        given = None if like is None else (await self._gateway.run(look.principal, like)).params
        answer = await self._show(
            request,
            look,
            "job.html",
            "Jobs",
            job=job,
            graph=Markup(picture),  # noqa: S704 - escaped where it is drawn
            text=text if len(text) <= DEFINITION else "",
            longer=_longer(text),
            lacks=look.lacks(name),
            folder=self._gateway.job_folder is not None,
            schedules=[
                (each.name, each.words())
                for (of, _), each in look.server.schedules.items()
                if of == name and each.fires
            ][:3],
            recent=[
                content.run_row(run)
                for run in islice((run for run in look.take().runs if run.job == name), 10)
            ],
            fields=fields.fields_of(job, typed, wrong, given),
            refused=refused,
        )
        if typed is not None:
            answer.status_code = 422
        return answer

    async def start(self, request: Request, look: content.VisibleServer) -> Response:
        """Start a run from the form; what is wrong is said beside its field."""
        typed = await read_form(request.receive, request.state.csrf)
        name = request.path_params["job"]
        params, wrong = fields.read(self._gateway.job(look.principal, name), typed)
        if wrong:
            return await self.job(request, look, typed=typed, wrong=wrong)
        key = typed.get("key", "").strip()
        try:
            reply = await self._calls.ask(
                request, "start", job=name, params=params, **({"key": key} if key else {})
            )
        except CallError as error:
            if error.code in {"forbidden", "rate-limited"}:
                raise
            wrong = {
                problem["path"].partition(".")[2]: problem["message"]
                for problem in error.document.get("problems", ())
            }
            return await self.job(request, look, typed=typed, wrong=wrong, refused=str(error))
        return RedirectResponse(f"{base_of(request.scope)}/runs/{reply['run']}", 303)

    async def define(
        self,
        request: Request,
        look: content.VisibleServer,
        *,
        typed: Mapping[str, str] | None = None,
        **said: object,
    ) -> Response:
        """Show a definition to be edited: that of a job, or a new one."""
        name = request.query_params.get("job", "")
        if typed is not None:
            text = typed.get("definition", "")
        else:
            text = await _text_of(self._gateway.job(look.principal, name)) if name else NEW_JOB
            if len(text) > DEFINITION:
                raise RequestError("too-large", _longer(text))
        values = {"problems": (), "refused": "", "checked": False} | said
        page = await self._show(
            request, look, "define.html", "Jobs", text=text, job=name, replace=bool(name), **values
        )
        page.status_code = 422 if values["problems"] or values["refused"] else 200
        return page

    async def defined(self, request: Request, look: content.VisibleServer) -> Response:
        """Check a definition, or define the job; what is wrong is told with its line, and nothing typed is lost."""
        typed = await read_form(request.receive, request.state.csrf, DEFINITION)
        text = typed["definition"] = typed.get("definition", "").replace("\r\n", "\n")
        asked: dict[str, object] = {"definition": Definition(text, 1)}
        try:
            if typed.get("do") == "check":
                reply = await self._calls.ask(request, "validate", **asked)
                found = reply["problems"]
                return await self.define(request, look, typed=typed, problems=found, checked=not found)
            reply = await self._calls.ask(request, "define", replace="replace" in typed, **asked)
        except CallError as error:
            if error.code in {"forbidden", "rate-limited"}:
                raise
            told = error.document.get("problems", ())
            return await self.define(request, look, typed=typed, problems=told, refused=str(error))
        return RedirectResponse(f"{base_of(request.scope)}/jobs/{quote(reply['job'])}", 303)


async def _text_of(job: JobDefinition) -> str:
    """Return the text of a definition, without its secrets; it is written in a thread."""
    return await in_thread(lambda: without_secrets(job).dumps())


def _graph_of(job: JobDefinition) -> str:
    nodes = nodes_of(job.tasks)
    picture, made = graph(nodes, job.upstreams, fit=760), list[object]([nodes])
    del nodes
    free(made)
    return picture


def _longer(text: str) -> str:
    return (
        f"The definition has {len(text):,} characters, more than a page shows: save it, and look at the file."
    )

"""The pages: which address shows what, and what a form does. Rendered on the server, readable without a script."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from scattersphere._turns import EACH
from scattersphere.commands.errors import wire_error
from scattersphere.commands.exits import CONTAINED
from scattersphere.commands.gateway import SourceAuthenticator
from scattersphere.errors import BundleLoadError, ScattersphereError
from scattersphere.web import content, forms, lists, runpage
from scattersphere.web.api import STATUS, Api, refusal, tagged
from scattersphere.web.calls import CallError, Calls
from scattersphere.web.guard import (
    API,
    Guard,
    RefusedError,
    base_of,
    cookie_header,
    cookies_of,
    path_of,
    read_form,
)
from scattersphere.web.jobpages import JobPages
from scattersphere.web.live import write_run, write_table
from scattersphere.web.openapi import openapi
from scattersphere.web.paths import NUMBER
from scattersphere.web.rendering import asset, drawn, html, templates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from scattersphere._json_words import JsonObject
    from scattersphere.commands.access import Principal
    from scattersphere.commands.gateway import Gateway
    from scattersphere.engine.run import Run
    from scattersphere.model.logs import LogLine
    from scattersphere.web.guard import Authorize, Links

EVERY = 10**15
"""Above the numbers of all runs."""
RUN = f"/runs/{{run:{NUMBER}}}"
"""The path of a run's page."""
REGIONS = {
    "run-state": "run-state",
    "run-buttons": "run-buttons",
    "run-failure": "run-failure",
    "run-facts": "run-facts",
    "run-results": "run-results",
    "run-events": "run-events",
    "task": "run-task",
    "gantt": "run-timeline",
    "instances-live": "run-instances",
}
"""The parts of the page of a run that are drawn again as it goes on, and their templates."""


def pages_over(
    gateway: Gateway, *, authorize: Authorize | None, links: Links | None, hosts: tuple[str, ...]
) -> Guard:
    """Return the pages and the API as an ASGI application."""
    pages = Pages(gateway, links)

    def find(token: str, source: str) -> Principal | None:
        """Return who a token stands for; whoever guesses must wait longer each time."""
        who = SourceAuthenticator(gateway, source, time.monotonic)
        return None if who.blocked() else who.authenticate(token)

    return Guard(
        pages.application(), authorize=authorize, links=links, tokens=find, hosts=hosts, refuse=pages.refuse
    )


class Pages:
    """The handlers of all addresses."""

    def __init__(self, gateway: Gateway, links: Links | None) -> None:
        self._gateway = gateway
        self._links = links
        self._calls = Calls(gateway)
        self._api = Api(self._calls)

    def application(self) -> Starlette:
        """Return the routes. Static files, the log-in and the health of the process need no rights."""
        templates()  # before anybody waits for it
        jobs = JobPages(self._gateway, self._calls, self._show)

        def page(path: str, handler: Callable[..., Awaitable[Response]], method: str = "GET") -> Route:
            return Route(path, self._with_rights(handler), methods=[method])

        return Starlette(
            routes=[
                self._api.route(),
                Route("/healthz", self.health),
                Route("/readyz", self.ready),
                page("/api/docs", self.api_page),
                page("/api/openapi.json", self.openapi),
                Route("/static/{name}", self.static),
                Route("/login", self.login, methods=["GET", "POST"]),
                page("/", self.overview),
                page("/live", self.overview_live),
                page("/go", self.go),
                page("/theme", self.theme, "POST"),
                page("/logout", self.logout, "POST"),
                page("/jobs", self.jobs),
                page("/jobs/{job}", jobs.job),
                page("/jobs/{job}/runs", jobs.start, "POST"),
                page("/runs", self.runs),
                page(RUN, self.run),
                page(RUN + "/live", self.run_live),
                page(RUN + "/log.txt", self.log_text),
                page("/bundles", self.bundles),
                page("/bundles/live", self.bundles_live),
                page("/schedules", self.schedules),
                page("/define", jobs.define),
                page("/define", jobs.defined, "POST"),
                *(page(form.path, partial(self.submit, form=form), "POST") for form in forms.FORMS),
            ],
            exception_handlers={
                404: self._not_found,
                405: self._not_allowed,
                RefusedError: self._refused,
                ScattersphereError: self._error,
            },
        )

    # ---- rights and errors

    def _with_rights(self, handler: Callable[..., Awaitable[Response]]) -> Callable[[Request], object]:
        async def handle(request: Request) -> Response:
            principal = request.state.principal
            if principal is None:
                if self._links is not None and self._links.ask():
                    raise RefusedError(
                        401, "A link was printed where the server runs: open it within a minute."
                    )
                raise RefusedError(
                    401, "Open the link that was printed, or ask whoever runs the server for one."
                )
            if request.method != "POST":  # a form counts as the command that it is
                self._calls.spend(principal)
            with CONTAINED:
                await self._gateway.judge()
                answer: Response = await handler(request, content.VisibleServer(self._gateway, principal))
                return answer

        return handle

    async def refuse(self, scope: Scope, receive: Receive, send: Send, refused: RefusedError) -> None:
        """Answer a request that the guard refuses."""
        request = Request(scope, receive)
        await (await self._refused(request, refused))(scope, receive, send)

    async def _refused(self, request: Request, error: Exception) -> Response:
        if path_of(request.scope).startswith(API) and isinstance(error, RefusedError):
            return refusal(error)
        status = error.status if isinstance(error, RefusedError) else 500
        title = {401: "Please log in", 403: "Refused", 404: "Not found"}.get(status, "This did not work")
        return self._lone(request, status, title, str(error))

    async def _not_found(self, request: Request, error: Exception) -> Response:
        del error
        return self._lone(request, 404, "Not found", "There is no such page.")

    async def _not_allowed(self, request: Request, error: Any) -> Response:
        """Answer a method that an address does not take, or that nobody knows."""
        if path_of(request.scope).startswith(f"{API}/"):
            return await self._api.find(request)
        answer = self._lone(request, 405, "This did not work", "This address takes another method.")
        answer.headers.update(error.headers)
        return answer

    async def _error(self, request: Request, error: Exception) -> Response:
        document = error.document if isinstance(error, CallError) else wire_error(error)
        document = document or self._gateway.incident(error)
        status = STATUS.get(str(document["code"]), 409)
        title = {403: "Refused", 404: "Not found"}.get(status, "This did not work")
        answer = self._lone(
            request, status, title, str(document["message"]), problems=document.get("problems", ())
        )
        if "retry_after" in document:
            answer.headers["retry-after"] = str(max(1, round(float(document["retry_after"]))))
        return answer

    def _lone(
        self, request: Request, status: int, title: str, message: str, *, problems: object = ()
    ) -> Response:
        base = base_of(request.scope)
        page = templates().get_template("lone.html")
        link = f"{base}/" if getattr(request.state, "principal", None) else ""
        text = page.render(
            title=title,
            message=message,
            problems=problems,
            theme=_theme(request),
            base=base,
            link=link,
            link_words="Overview",
        )
        return HTMLResponse(text, status)

    async def _show(
        self, request: Request, look: content.VisibleServer, template: str, here: str, **values: object
    ) -> Response:
        common = self._common(request, look) | {"here": here} | values
        return await html(request, partial(templates().get_template(template).render, **common))

    def _common(self, request: Request, look: content.VisibleServer) -> dict[str, object]:
        return {
            "base": base_of(request.scope),
            "theme": _theme(request),
            "principal": look.principal,
            "token": request.state.csrf,
            "can": look.can,
        }

    # ---- for programs

    async def health(self, request: Request) -> Response:
        """Tell that the process answers."""
        del request
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """Tell whether runs can be started: 503 before the Server is entered and once it closes."""
        del request
        open_ = self._gateway.server.is_open
        return PlainTextResponse("ready\n" if open_ else "not ready\n", 200 if open_ else 503)

    async def openapi(self, request: Request, look: content.VisibleServer) -> Response:
        """Give the description of the API, for programs that make clients of it."""
        del look
        return tagged(request, JSONResponse(openapi(base_of(request.scope))))

    async def api_page(self, request: Request, look: content.VisibleServer) -> Response:
        """Show the description of the API to people."""
        document = openapi(base_of(request.scope))
        operations = [
            {"method": method.upper(), "path": path, **operation, "arguments": _arguments(operation)}
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        used = {tag for operation in operations for tag in operation["tags"]}
        tags = [tag for tag in document["tags"] if tag["name"] in used]
        return await self._show(request, look, "api.html", "API", tags=tags, operations=operations)

    # ---- coming in

    async def static(self, request: Request) -> Response:
        """Give a file that never changes under its address."""
        found = asset(request, request.path_params["name"])
        return await self._not_found(request, Exception()) if found is None else found

    async def login(self, request: Request) -> Response:
        """Take the code of a one-time link. A preview of the link (HEAD) does not use it up."""
        base = base_of(request.scope)
        if self._links is None:
            return await self._not_found(request, Exception())
        if request.method != "GET":
            return self._lone(request, 405, "This did not work", "Open the link in a browser.")
        secret = self._links.log_in(request.query_params.get("code", ""))
        if secret is None:
            return self._lone(
                request, 401, "This link does not hold", "It holds for a minute, and once. Ask for another."
            )
        answer = RedirectResponse(f"{base}/", 303)
        answer.raw_headers.append((b"set-cookie", cookie_header(request.scope, secret).encode()))
        return answer

    async def logout(self, request: Request, look: content.VisibleServer) -> Response:
        """Forget this browser."""
        del look
        await read_form(request.receive, request.state.csrf)
        if self._links is not None:
            self._links.log_out(cookies_of(request.headers).get("scattersphere", ""))
        return self._lone(request, 200, "Logged out", "This browser is forgotten.")

    async def theme(self, request: Request, look: content.VisibleServer) -> Response:
        """Choose light, dark, or as the system; a cookie, so that the first byte is in the right theme."""
        del look
        chosen = (await read_form(request.receive, request.state.csrf)).get("theme", "")
        answer = _back(request)
        path = base_of(request.scope) or "/"
        if chosen in {"light", "dark", ""}:
            answer.set_cookie("theme", chosen, max_age=365 * 86400, path=path, samesite="strict")
        return answer

    async def go(self, request: Request, look: content.VisibleServer) -> Response:
        """Go to a run by its number, or to a job by its name."""
        base, find = base_of(request.scope), request.query_params.get("q", "").strip().lstrip("#")
        if find.isdecimal() and find.isascii() and len(find) < 19:  # noqa: PLR2004 - no run has more digits
            return RedirectResponse(f"{base}/runs/{find}", 303)
        if find in look.take().jobs:
            return RedirectResponse(f"{base}/jobs/{find}", 303)
        return RedirectResponse(f"{base}/jobs?{urlencode({'q': find})}", 303)

    # ---- pages

    async def overview(self, request: Request, look: content.VisibleServer) -> Response:
        """Show what runs, what failed last, what needs a look."""
        base = base_of(request.scope)
        found = await drawn(partial(lists.overview, look.take()))
        return await self._show(request, look, "overview.html", "Overview", live=f"{base}/live", **found)

    async def overview_live(self, request: Request, look: content.VisibleServer) -> Response:
        """Stream the overview as it changes."""
        common = self._common(request, look)
        page = templates().get_template("overview-live.html")

        def parts(taken: content.Taken) -> dict[str, str]:
            return {"overview": page.render(**common, **lists.overview(taken))}

        return self._calls.stream(look.principal, partial(write_table, look, parts))

    async def jobs(self, request: Request, look: content.VisibleServer) -> Response:
        """Show the jobs."""
        found = await drawn(partial(lists.jobs_page, look.take(), request.query_params))
        return await self._show(request, look, "jobs.html", "Jobs", **found)

    async def runs(self, request: Request, look: content.VisibleServer) -> Response:
        """Show the runs, filtered and by pages; the address says which. `before` shows those of the journal, too."""
        before = content.number_of(request.query_params.get("before"))
        if before:
            found = await lists.history_page(look, request.query_params, before)
            return await self._show(request, look, "history.html", "Runs", newest=EVERY, **found)
        found = await drawn(partial(lists.runs_page, look.take(), request.query_params))
        kept = look.server.history.has_journal
        return await self._show(request, look, "runs.html", "Runs", kept=kept, newest=EVERY, **found)

    async def _run(self, request: Request, look: content.VisibleServer) -> Run:
        return await self._gateway.run(look.principal, request.path_params["run"], results=True)

    async def run(self, request: Request, look: content.VisibleServer) -> Response:
        """Show a run: what went wrong first, then its graph, timeline and log, which are drawn meanwhile."""
        run, query = await self._run(request, look), runpage.Query.of(request.query_params)
        base, tasks = base_of(request.scope), len(run.definition.tasks)
        live = "" if run.state.ended else f"{base}/runs/{run.id}/live?{request.query_params}"
        common = self._common(request, look) | {"here": "Runs", "live": live}
        common["events"] = await runpage.last_events(run)
        head = await drawn(partial(runpage.head_parts, look, run, query), tasks=tasks)
        page = templates().get_template("run.html").render(**common, **head)
        top, _, bottom = page.partition(runpage.REST)

        def rest() -> str:
            parts = common | head | runpage.rest_parts(look, run, query, head)
            return templates().get_template("run-rest.html").render(**parts) + bottom

        return await html(request, lambda: top, rest, tasks=tasks)

    async def run_live(self, request: Request, look: content.VisibleServer) -> Response:
        """Stream the parts of a run's page as they change, and the lines of its log."""
        run, query = await self._run(request, look), runpage.Query.of(request.query_params)
        common = self._common(request, look)

        def parts(events: list[object]) -> dict[str, str]:
            values = common | runpage.live_parts(look, run, query) | {"events": events}
            shown = {
                region: templates().get_template(f"{name}.html").render(**values)
                for region, name in REGIONS.items()
                if (region != "task" or values["chosen"])
                and (region != "instances-live" or values["instances"])
            }
            return shown | {"dag": str(values["graph"]), "run-window": str(values["window"])}

        def lines(found: list[LogLine]) -> str:
            rows = content.log_rows(found, level=query.level, find=query.find)
            return templates().get_template("run-lines.html").render(lines=rows)

        return self._calls.stream(look.principal, partial(write_run, run, query, parts, lines))

    async def log_text(self, request: Request, look: content.VisibleServer) -> Response:
        """Give the kept log as text."""
        run = await self._run(request, look)
        text = await drawn(lambda: "".join(f"{line}\n" for line in EACH.get()(run.logs())))
        return PlainTextResponse(text)

    async def submit(self, request: Request, look: content.VisibleServer, form: forms.Form) -> Response:
        """Carry out the command of a form, and go on to the page that shows what came of it."""
        del look
        typed = await read_form(request.receive, request.state.csrf)
        row, path = forms.row_of(form), request.path_params

        async def values() -> dict[str, object]:
            return forms.arguments(row, typed) | path

        try:
            reply = await self._calls.make(request, row, values)
        except CallError as error:
            if not (form.told and isinstance(error.__cause__, BundleLoadError)):
                raise
            reply = {}
        if reply.get("started") is False:  # a backfill that was only to be told
            return self._lone(
                request, 200, f"{len(reply['times'])} runs would start", ", ".join(reply["times"][:200])
            )
        return RedirectResponse(base_of(request.scope) + form.leads_to({**path, **reply}), 303)

    async def bundles(self, request: Request, look: content.VisibleServer) -> Response:
        """Show the bundles: their versions, who holds them, what is wrong."""
        taken, base = look.take(), base_of(request.scope)
        found = await drawn(partial(lists.bundles_page, look, taken, request.query_params))
        live = f"{base}/bundles/live?{request.query_params}"
        return await self._show(request, look, "bundles.html", "Bundles", live=live, **found)

    async def bundles_live(self, request: Request, look: content.VisibleServer) -> Response:
        """Stream the bundles as they are loaded and let go."""
        common, query = self._common(request, look), request.query_params
        page = templates().get_template("bundles-live.html")

        def parts(taken: content.Taken) -> dict[str, str]:
            return {"bundles": page.render(**common, **lists.bundles_page(look, taken, query))}

        return self._calls.stream(look.principal, partial(write_table, look, parts))

    async def schedules(self, request: Request, look: content.VisibleServer) -> Response:
        """Show the schedules: when each fires next, and how it went last."""
        found = await drawn(partial(lists.schedules_page, look.take(), request.query_params))
        return await self._show(request, look, "schedules.html", "Schedules", **found)


def _arguments(operation: JsonObject) -> str:
    names = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return ", ".join([*names, *body.get("properties", {})])


def _theme(request: Request) -> str:
    theme = request.cookies.get("theme", "")
    return theme if theme in {"light", "dark"} else ""


def _back(request: Request) -> Response:
    """Go back to the page that sent the form, as long as it is one of ours."""
    base = base_of(request.scope)
    came = request.headers.get("referer", "")
    own = f"{request.scope.get('scheme', 'http')}://{request.headers.get('host', '')}{base}/"
    return RedirectResponse(came if came.startswith(own) else f"{base}/", 303)

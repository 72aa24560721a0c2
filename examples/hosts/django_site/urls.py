"""Async views that start runs and tell of them."""

import json

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from problems import TYPE, problem_of, status_of

from django_site.jobs_server import server
from scattersphere import ScattersphereError


def refused(error: ScattersphereError) -> JsonResponse:
    """Answer an error of the engine with a problem document."""
    return JsonResponse(problem_of(error), status=status_of(error), content_type=TYPE)


@csrf_exempt
async def start(request: HttpRequest) -> HttpResponseBase:
    """POST /counts: start counting, and answer at once."""
    try:
        run = await server.start("count", json.loads(request.body))
    except ScattersphereError as error:
        return refused(error)
    return JsonResponse({"run": run.id, "state": run.state}, status=202)


async def status(request: HttpRequest, run: int) -> HttpResponseBase:
    """GET /counts/1: wait for a run, and tell how it went."""
    del request
    try:
        found = await server.runs[run].wait(60)
    except ScattersphereError as error:
        return refused(error)
    return JsonResponse({"run": found.id, "state": found.state, "result": found.results.get("count")})


urlpatterns = [path("counts", start), path("counts/<int:run>", status)]

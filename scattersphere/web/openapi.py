"""The API described in OpenAPI 3.1, made from the table of commands (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere._json_words import JsonObject
from scattersphere._version import own_version
from scattersphere.commands.arguments import ArgumentKind
from scattersphere.commands.errors import CODES
from scattersphere.commands.handlers.events import RUN_KINDS, SERVER_KINDS
from scattersphere.commands.table import COMMANDS
from scattersphere.model.events import EVENT_ID
from scattersphere.model.states import RunState
from scattersphere.web.api import KEY, PROBLEM, STATUS, addresses, made_by
from scattersphere.web.guard import API

if TYPE_CHECKING:
    from scattersphere.commands.arguments import CommandArgument
    from scattersphere.commands.table import CommandSpec
    from scattersphere.web.api import Address

GROUPS = {
    "code": "Bundles and the tasks in them",
    "jobs": "Definitions of jobs",
    "runs": "Runs: started, controlled, looked at",
    "events": "What happens, as it happens",
    "host": "The server as a whole",
    "session": "Who you are, and what there is to ask",
    "schedules": "When jobs start by themselves",
}
ERRORS = {
    400: "The request cannot be read",
    401: "Nobody, or a token that does not hold",
    403: "Not with this role, or not for these objects",
    404: "There is no such thing, or not for you",
    405: "Another method is meant",
    409: "The state of things forbids it",
    413: "Too large",
    422: "An argument is wrong; `problems` says which",
    429: "Too many requests; `Retry-After` says when to try again",
    500: "A defect; the log of the server has its number",
    503: "Too busy, or shutting down",
    504: "It took too long",
}
_SSE = "text/event-stream"


def openapi(root: str) -> JsonObject:
    """Return the document; `root` is the path that the application is mounted below."""
    paths: dict[str, dict[str, object]] = {}
    for address in addresses():
        paths[f"{API}{address.path}"] = {
            method.lower(): _operation(row, address) for method, row in address.methods.items()
        }
    paths[f"{API}/events"] = {
        "get": _stream("server-events", "Be told what happens to bundles, jobs and runs", SERVER_KINDS, [])
    }
    run = [{"name": "run", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}]
    paths[f"{API}/runs/{{run}}/events"] = {
        "get": _stream("run-events", "Be told what happens to a run", RUN_KINDS, run)
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Scattersphere",
            "version": own_version(),
            "description": "Jobs, runs and bundles: the commands, rights and codes of the line protocol.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root or "/"}],
        "tags": [{"name": name, "description": words} for name, words in GROUPS.items()],
        "security": [{"token": []}, {"cookie": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "scattersphere"},
            },
            "schemas": {"Problem": _PROBLEM},
            "responses": {str(status): _refusal(words) for status, words in ERRORS.items()},
        },
    }


def _operation(row: CommandSpec, address: Address) -> dict[str, object]:
    parameters, members, required = list[object](), JsonObject(), list[str]()
    places = {argument: name for name, argument in address.arguments(row).items()}
    for name, taken in row.arguments.items():
        schema = _schema(taken)
        if name in places:
            parameters.append(
                {
                    "name": places[name],
                    "in": "path",
                    "required": True,
                    "description": taken.help,
                    "schema": schema,
                }
            )
        elif row.method in {"GET", "DELETE"} or row.whole is not None:
            if name != row.whole:
                parameters.append(_query(name, taken, schema))
        else:
            members[name] = schema | {"description": taken.help}
            if taken.required:
                required.append(name)
    parameters += _headers(row)
    operation: dict[str, object] = {
        "operationId": row.name,
        "summary": row.help,
        "tags": [row.group],
        "parameters": parameters,
        "responses": _responses(row),
    }
    if row.role is not None:
        operation["description"] = f"Needs the role `{row.role}`."
    if (body := _body(row, members, required)) is not None:
        operation["requestBody"] = body
    return operation


def _body(row: CommandSpec, members: JsonObject, required: list[str]) -> JsonObject | None:
    """Return what the body of a request holds: a definition, or an object of arguments; None where there is none."""
    if row.whole is not None:
        # Any text is answered, with what is wrong with it as a definition.
        words = "A job definition; its schema is that of `scattersphere schema`"
        return {"required": True, "description": words, "content": {"application/json": {"schema": {}}}}
    if not members:
        return None
    schema: JsonObject = {"type": "object", "properties": members, "additionalProperties": False}
    if required:
        schema["required"] = required
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


def _headers(row: CommandSpec) -> list[dict[str, object]]:
    found = []
    if row.method == "GET":
        words = "The `ETag` of a reply that you have: 304 if it still holds"
        found.append(_header("If-None-Match", words, {"type": "string"}))
    if "key" in row.arguments:
        words = "The same key gives the same run: a request that is sent again starts nothing twice"
        found.append(_header("Idempotency-Key", words, {"type": "string", "maxLength": KEY}))
    return found


def _header(name: str, words: str, schema: dict[str, object]) -> dict[str, object]:
    return {"name": name, "in": "header", "description": words, "schema": schema}


def _query(name: str, taken: CommandArgument, schema: dict[str, object]) -> dict[str, object]:
    style = {"style": "form", "explode": False} if taken.kind is ArgumentKind.WORDS else {}
    return {
        "name": name,
        "in": "query",
        "required": taken.required,
        "description": taken.help,
        "schema": schema,
        **style,
    }


def _schema(taken: CommandArgument) -> dict[str, object]:
    kind = ArgumentKind.OBJECT if taken.kind is ArgumentKind.DEFINITION else taken.kind
    schema: dict[str, object] = {"type": str(kind)}
    if kind is ArgumentKind.OBJECT:
        schema["additionalProperties"] = True
    if kind is ArgumentKind.WORDS:
        schema["items"] = {"type": "string", **({"enum": list(taken.choices)} if taken.choices else {})}
    elif taken.choices:
        schema["enum"] = list(taken.choices)
    if kind is ArgumentKind.TEXT and not taken.choices:
        schema["maxLength"] = 4_096
    bounds = {"minimum": taken.low, "maximum": taken.high}
    schema |= {word: limit for word, limit in bounds.items() if limit is not None}
    if taken.default is not None:
        schema["default"] = (
            taken.default if isinstance(taken.default, bool | int | float) else str(taken.default)
        )
    return schema


_RUN: JsonObject = {"run": {"type": "integer", "minimum": 1, "description": "The number of the run"}}
_RUN_STATE: JsonObject = _RUN | {"state": {"type": "string", "enum": [str(state) for state in RunState]}}
_ROWS: JsonObject = {"type": "array", "items": {"type": "object", "additionalProperties": True}}
_OBJECT: JsonObject = {"type": "object", "additionalProperties": True}
REPLIES: dict[str, JsonObject] = {
    **dict.fromkeys(("start", "start-task", "run-schedule"), _RUN),
    **dict.fromkeys(("run", "run-task", "wait", "pause", "resume", "stop", "cancel", "kill"), _RUN_STATE),
    "rerun": _RUN | {"parent": {"type": "integer"}, "reused": _OBJECT},
    "status": _RUN_STATE | {"job": {"type": "string"}, "params": _OBJECT, "counts": _OBJECT, "tasks": _ROWS},
    "runs": {"runs": _ROWS},
    "jobs": {"jobs": _ROWS},
    "bundles": {"bundles": _ROWS},
    "tasks": {"tasks": _ROWS},
    "schedules": {"schedules": _ROWS, "count": {"type": "integer"}},
    "validate": {"problems": _ROWS},
    "explain": _RUN | {"text": {"type": "string"}},
    "logs": {"lines": _ROWS, "next": {"type": "integer"}},
}
"""Members that a reply has for sure, by command; it may have others."""


_MAKE_RUNS = frozenset({"start", "start-task", "run-schedule", "rerun", "run", "run-task"})
LINKS: dict[str, JsonObject] = {
    name: {
        "operationId": name,
        "parameters": {"run": "$response.body#/run"},
        "description": f"{COMMANDS[name].help}: this run",
    }
    for name in ("status", "wait", "result", "explain", "pause", "resume", "stop", "cancel", "kill", "rerun")
}
"""What can be done next with a run that was made."""


def _responses(row: CommandSpec) -> dict[str, object]:
    members = REPLIES.get(row.name, {})
    schema = _OBJECT | ({"properties": members, "required": list(members)} if members else {})
    done = {"description": row.help, "content": {"application/json": {"schema": schema}}}
    if row.name in _MAKE_RUNS:
        done["links"] = LINKS
    return {
        **{str(status): done for status in made_by(row)},
        **({"304": {"description": "You have it already"}} if row.method == "GET" else {}),
        **{str(status): {"$ref": f"#/components/responses/{status}"} for status in ERRORS},
    }


def _stream(
    name: str, words: str, kinds: tuple[str, ...], parameters: list[dict[str, object]]
) -> dict[str, object]:
    place = {"type": "string", "pattern": EVENT_ID}
    return {
        "operationId": name,
        "summary": words,
        "tags": ["events"],
        "description": "Server-sent events. Send the `id` of the last one as `Last-Event-ID`: the rest follows.",
        "parameters": [
            *parameters,
            {
                "name": "since",
                "in": "query",
                "description": "The number of the last event that you have, or its `id`",
                "schema": place,
            },
            {
                "name": "kinds",
                "in": "query",
                "description": "Only these, with commas between",
                "style": "form",
                "explode": False,
                "schema": {"type": "array", "items": {"type": "string", "enum": list(kinds)}},
            },
            {"name": "Last-Event-ID", "in": "header", "description": "As `since`", "schema": place},
        ],
        "responses": {
            "200": {"description": words, "content": {_SSE: {"schema": {"type": "string"}}}},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in ERRORS},
        },
    }


def _refusal(words: str) -> dict[str, object]:
    return {"description": words, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


_PROBLEM: JsonObject = {
    "type": "object",
    "description": "A problem document (RFC 9457). `code` is stable; `detail` is for people.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(CODES & STATUS.keys())},
        "field": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {
                    "path": {"type": "string"},
                    "message": {"type": "string"},
                    "suggestion": {"type": "string"},
                    "warning": {"type": "boolean"},
                    "line": {"type": "integer"},
                    "column": {"type": "integer"},
                },
            },
        },
    },
}

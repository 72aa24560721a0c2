"""Errors of commands: their stable codes, and how every error of the engine is told outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.errors import (
    BundleBusyError,
    BundleLoadError,
    DefinitionError,
    ScattersphereError,
    UnresolvedError,
)

if TYPE_CHECKING:
    from scattersphere._json_words import JsonObject

CODES = frozenset(
    {
        "bad-frame",
        "bad-utf8",
        "line-too-long",
        "too-deep",
        "truncated",
        "bad-request",
        "unknown-command",
        "bad-args",
        "auth-required",
        "auth-failed",
        "forbidden",
        "no-such-bundle",
        "no-such-job",
        "no-such-run",
        "no-such-schedule",
        "no-such-task",
        "no-such-subscription",
        "exists",
        "conflict",
        "invalid-job",
        "busy",
        "rate-limited",
        "too-large",
        "timeout",
        "cancelled",
        "unsupported",
        "journal-unavailable",
        "shutting-down",
        "internal",
    }
)
"""The stable codes."""

SHOWN_PROBLEMS = 100
SHOWN_MESSAGE = 4_000


class RequestError(ScattersphereError):
    """A request that is answered with an error. `code` is one of `CODES`; `more` are further members."""

    def __init__(self, code: str, message: str, **more: object) -> None:
        self.code = code
        self.more = more
        super().__init__(message)


class ListenError(ScattersphereError):
    """A listener would be unsafe, or its address cannot be used. Nothing listens.

    `lacks` is the argument of `listen` that would make it safe; a command line has another name for it.
    """

    code = "unsupported"

    def __init__(self, message: str, *, lacks: str | None = None) -> None:
        self.reason: str = message
        self.lacks: str | None = lacks
        super().__init__(f"{message}: give {lacks}=" if lacks else message)


def wire_error(exc: BaseException) -> JsonObject | None:
    """Return the `error` member for an exception, or None where only an incident may be shown.

    An exception that is not of our tree, or that stands for a defect, could carry anything in its
    text (paths, values, secrets), so nothing of it is shown.
    """
    if isinstance(exc, RequestError):
        return {"code": exc.code, "message": str(exc)[:SHOWN_MESSAGE], **exc.more}
    if isinstance(exc, TimeoutError):
        return {"code": "timeout", "message": str(exc)[:SHOWN_MESSAGE] or "it took too long"}
    if isinstance(exc, OSError):
        # Its text names a path of the server; its reason is enough to act on.
        return {"code": "conflict", "message": f"the server's files: {exc.strerror or 'an error'}"}
    if not isinstance(exc, ScattersphereError) or exc.code == "internal":
        return None
    error: JsonObject = {"code": exc.code, "message": str(exc)[:SHOWN_MESSAGE]}
    if isinstance(exc, DefinitionError | UnresolvedError):
        error["message"] = error["message"].partition("\n")[0].removesuffix(":")
        error["problems"] = wire_problems(exc.problems)
    elif isinstance(exc, BundleBusyError):
        error["runs"] = list(exc.runs)
    elif isinstance(exc, BundleLoadError) and exc.details:
        error["details"] = exc.details[-SHOWN_MESSAGE:]
    return error


def wire_problems(problems: Any) -> list[JsonObject]:
    """Return problems as the wire shows them; members that are unknown are left out."""
    shown = []
    for problem in list(problems)[:SHOWN_PROBLEMS]:
        members = {
            "path": problem.path,
            "line": problem.line,
            "column": problem.column,
            "message": problem.message,
            "suggestion": problem.suggestion,
            "warning": problem.is_warning or None,
        }
        shown.append({name: value for name, value in members.items() if value is not None})
    return shown

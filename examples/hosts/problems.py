"""Errors of the job engine as answers of a web application: RFC 9457 problem documents, for any framework.

Each error of Scattersphere has a stable `code`; a status of HTTP belongs to it. What is wrong with parameters is told
all at once, each problem at its place.
"""

from typing import Any

from scattersphere import DefinitionError, NotFoundError, ScattersphereError, UnresolvedError

STATUS = {
    "bad-args": 422,
    "invalid-job": 422,
    "exists": 409,
    "conflict": 409,
    "forbidden": 403,
    "busy": 503,
    "shutting-down": 503,
}
TYPE = "application/problem+json"


def status_of(error: ScattersphereError) -> int:
    """Return the status for an error: 404 for what is not there, 500 for what should not happen."""
    return 404 if isinstance(error, NotFoundError) else STATUS.get(error.code, 500)


def problem_of(error: ScattersphereError) -> dict[str, Any]:
    """Return the document for an error."""
    document: dict[str, Any] = {
        "title": error.code.replace("-", " "),
        "status": status_of(error),
        "detail": str(error).partition("\n")[0],
        "code": error.code,
    }
    if isinstance(error, DefinitionError | UnresolvedError):
        document["problems"] = [{"path": found.path, "message": found.message} for found in error.problems]
    return document

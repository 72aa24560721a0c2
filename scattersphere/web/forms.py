"""Forms of the pages that carry out a command: one table of which form asks what, and where it leads then.

A form has a field for each argument that it offers, named as the argument; an empty field is left out, a checkbox is
true or false. Rights, rate, masking and audit are those of the command, whoever presses the button.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs

from scattersphere import _json
from scattersphere.commands import handlers
from scattersphere.commands.arguments import ArgumentKind, from_word
from scattersphere.commands.errors import RequestError
from scattersphere.commands.table import COMMANDS
from scattersphere.web.paths import NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.commands.table import CommandSpec


@attrs.frozen
class Form:
    """Where a form is sent, which command it is, and the page to go on to: `{name}` is of the reply or the path."""

    path: str
    command: str
    page: str
    told: bool = False
    """Whether what went wrong is told by the page that it leads to."""

    def leads_to(self, values: Mapping[str, object]) -> str:
        """Return the path of the next page."""
        return self.page.format_map({name: quote(str(value), safe="") for name, value in values.items()})


_ = handlers  # importing it fills the table
_RUN = f"/runs/{{run:{NUMBER}}}"
_SCHEDULE = "/jobs/{job}/schedules/{schedule}"
FORMS = (
    *(
        Form(f"{_RUN}/{verb}", verb, "/runs/{run}")
        for verb in ("pause", "resume", "stop", "cancel", "kill", "rerun")
    ),
    Form("/jobs/{job}/undefine", "undefine", "/jobs"),
    Form("/jobs/{job}/save", "save", "/jobs/{job}"),
    Form("/jobs/{job}/load", "load", "/jobs/{job}"),
    Form("/load", "load", "/jobs/{job}"),
    Form("/register", "register", "/bundles#b-{bundle}"),
    Form("/bundles/{name}/reload", "reload", "/bundles#b-{name}", told=True),
    Form("/bundles/{name}/deregister", "deregister", "/bundles"),
    Form("/tasks/{task}/runs", "start-task", "/runs/{run}"),
    Form(f"{_SCHEDULE}/pause", "pause-schedule", "/schedules"),
    Form(f"{_SCHEDULE}/resume", "resume-schedule", "/schedules"),
    Form(f"{_SCHEDULE}/run", "run-schedule", "/runs/{run}"),
    Form(f"{_SCHEDULE}/backfill", "backfill", "/runs?job={job}"),
)
"""All of them but those with a page of their own: the start of a job, and a definition."""


def arguments(row: CommandSpec, typed: Mapping[str, str]) -> dict[str, object]:
    """Return the arguments of a command that a form gives. Raises `RequestError` (`bad-args`) naming the field."""
    found: dict[str, object] = {}
    for name, taken in row.arguments.items():
        word = typed.get(name, "").strip()
        if taken.kind is ArgumentKind.FLAG:
            if name in typed:
                found[name] = word in {"on", "true"}
        elif taken.kind is ArgumentKind.OBJECT and word:
            found[name] = _object(name, word)
        elif word:
            found[name] = from_word(name, taken, word)
    return found


def _object(name: str, word: str) -> object:
    try:
        return _json.loads(word)
    except _json.JsonTextError as error:
        raise RequestError("bad-args", f"{name} is no JSON: {error}", field=name) from None


def row_of(form: Form) -> CommandSpec:
    """Return the command of a form."""
    return COMMANDS[form.command]

"""Masking: the values of secret parameters in errors and definitions that leave: who reads them may not know them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._json import Path, RawProblem, locate, show_path
from scattersphere.definitions import MASK, secret_names
from scattersphere.errors import DefinitionError, ScattersphereError, UnresolvedError
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.model.definition import JobDefinition

BARE = 4
"""Characters of a secret that is also masked where it stands without quotes: shorter ones are in many words."""
QUOTED = 200
"""Characters of a value that messages quote."""


MASK_HINTS = (MASK, "\\u")
"""What stands in a text that may hold the mask: it may be written with escapes."""


def masks(definition: JobDefinition, text: str) -> list[Problem]:
    """Find `***` for secrets, with the places in the text: taken up from what is shown, a definition loses them."""
    names = secret_names(definition)
    places: list[Path] = [
        ("params", name, "default") for name in sorted(names) if definition.params[name].default == MASK
    ]
    places += [
        ("schedules", name, "params", key)
        for name, schedule in definition.schedules.items()
        for key in sorted(names & schedule.params.keys())
        if schedule.params[key] == MASK
    ]
    words = f'"{MASK}" is shown in place of a secret; write the secret itself, or "env" beside "secret"'
    found = locate(text, [RawProblem(place, words) for place in places])
    return [Problem(show_path(raw.path), raw.message, line, column) for raw, line, column in found]


@contextmanager
def masked(definition: JobDefinition, params: Mapping[str, Any]) -> Iterator[None]:
    """Replace the values of secret parameters in the errors of this tree that are raised inside."""
    try:
        yield
    except ScattersphereError as exc:
        names = secret_names(definition) & params.keys()
        texts = sorted({text for name in names for text in _texts(params[name])}, key=len, reverse=True)
        if texts:
            exc.args = tuple(_mask(each, texts) if isinstance(each, str) else each for each in exc.args)
            if isinstance(exc, DefinitionError | UnresolvedError):
                exc.problems = tuple(
                    attrs.evolve(
                        problem,
                        path=_mask(problem.path, texts),
                        message=_mask(problem.message, texts),
                        suggestion=None,
                    )
                    for problem in exc.problems
                )
        raise


def _texts(value: Any) -> Iterator[str]:
    """Yield how a value, and what is inside it, may stand in a message."""
    if isinstance(value, dict):
        for inner in (*value, *value.values()):
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        text = str(value)
        yield from (repr(value), json.dumps(value), *([text] if len(text) >= BARE else []))
        if len(text) > QUOTED:
            yield text[:QUOTED]


def _mask(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text

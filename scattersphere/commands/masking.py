"""Masking of secret parameters in errors and definitions that leave the Server."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from scattersphere._json import locate
from scattersphere._json_words import Path, RawProblem, show_path
from scattersphere.definitions import MASK, secret_names
from scattersphere.errors import ScattersphereError
from scattersphere.jobs.secrets import hide_in_error
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.model.definition import JobDefinition


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
def masked(definition: JobDefinition, params: Mapping[str, object]) -> Iterator[None]:
    """Replace the values of secret parameters in the errors of this tree that are raised inside."""
    try:
        yield
    except ScattersphereError as exc:
        names = secret_names(definition) & params.keys()
        hide_in_error(exc, [params[name] for name in names])
        raise

"""Masking of secret values in texts: `***` stands for each, however it was written out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scattersphere.model.logs import MASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEAST = 6
"""Characters of a value that is masked in logs and failures: shorter ones are in many words."""


def hidden_texts(values: Iterable[Any]) -> tuple[str, ...]:
    """Return how secret values may stand in a text, those that hold others first."""
    texts = {text for value in values for plain in _plain(value) for text in _written(plain)}
    return tuple(sorted((text for text in texts if len(text) >= LEAST), key=lambda text: (-len(text), text)))


def hide(text: str, hidden: Iterable[str]) -> str:
    """Return a text with `***` in place of what is hidden."""
    for secret in hidden:
        text = text.replace(secret, MASK)
    return text


def _plain(value: Any) -> Iterator[str]:
    """Yield a value as text, its lines, and what is inside it."""
    if isinstance(value, dict):
        for inner in (*value, *value.values()):
            yield from _plain(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _plain(inner)
    elif value is not None and not isinstance(value, bool):
        text = str(value)
        yield from (text, text.strip(), *map(str.strip, text.splitlines()))


def _written(text: str) -> tuple[str, ...]:
    """Return a text as it is, as Python writes it, and as JSON does, without the quotes."""
    return text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]

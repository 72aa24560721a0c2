"""Masking of secret values in texts: `***` stands for each, however it was written out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from scattersphere.model.logs import MASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEAST = 6
"""Characters of a value that is masked in logs and failures: shorter ones are in many words."""
LEAST_PART = 3
"""Characters of a value from which on what is left of it at a cut is masked: fewer stand there by chance."""

CUT = re.compile(r"\s\.\.\. more than \d+ characters left out \.\.\.\s")
"""What stands in a text, in place of its middle, that was shortened; a worker has no secrets to look for before."""


def hidden_texts(values: Iterable[object]) -> tuple[str, ...]:
    """Return how secret values may stand in a text, those that hold others first."""
    texts = {text for value in values for plain in _plain(value) for text in _written(plain)}
    return tuple(sorted((text for text in texts if len(text) >= LEAST), key=lambda text: (-len(text), text)))


def hide(text: str, hidden: Iterable[str]) -> str:
    """Return a text with `***` in place of what is hidden, and of the parts of it at which the text was cut."""
    for secret in hidden:
        text = text.replace(secret, MASK)
    return text if "left out" not in text else _hide_at_cuts(text, hidden)


def _hide_at_cuts(text: str, hidden: Iterable[str]) -> str:
    cuts = list(CUT.finditer(text))
    starts, ends = [0, *(cut.end() for cut in cuts)], [*(cut.start() for cut in cuts), len(text)]
    shown = list[str]()
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        after, before = number > 0, number < len(cuts)
        piece = text[start:end]
        if after and before and len(piece) >= LEAST_PART and any(piece in secret for secret in hidden):
            piece = MASK
        if before and (length := max((_begun(piece, secret) for secret in hidden), default=0)):
            piece = piece[:-length] + MASK
        if after and (length := max((_ended(piece, secret) for secret in hidden), default=0)):
            piece = MASK + piece[length:]
        shown += [piece, text[end : starts[number + 1]] if before else ""]
    return "".join(shown)


def _begun(piece: str, secret: str) -> int:
    """Return how much of the beginning of a secret stands at the end of a piece."""
    at = max(0, len(piece) - len(secret) + 1)
    while (at := piece.find(secret[:LEAST_PART], at)) >= 0:
        if secret.startswith(piece[at:]):
            return len(piece) - at
        at += 1
    return 0


def _ended(piece: str, secret: str) -> int:
    """Return how much of the end of a secret stands at the beginning of a piece."""
    end = min(len(piece), len(secret) - 1)
    while (at := piece.rfind(secret[-LEAST_PART:], 0, end)) >= 0:
        size = at + LEAST_PART
        if secret.endswith(piece[:size]):
            return size
        end = size - 1
    return 0


def _plain(value: object) -> Iterator[str]:
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

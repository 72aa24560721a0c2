"""Lines of a run's log as a journal keeps them: JSON lines, compressed."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUICKLY = 1
"""The level of compression: lines are written while runs go on."""


def pack_lines(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Return lines, as `LogLine.as_dict` gives them, as the bytes of one `LogRow`."""
    return zlib.compress("\n".join(map(json.dumps, lines)).encode(), QUICKLY)


def unpack_lines(data: bytes) -> list[dict[str, Any]]:
    """Return what `pack_lines` was given. Raises `ValueError` for damaged bytes."""
    try:
        return [json.loads(line) for line in zlib.decompress(data).decode().split("\n")]
    except zlib.error as error:
        raise ValueError(f"lines of a log are damaged: {error}") from None

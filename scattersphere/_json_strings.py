"""JSON strings and UTF-8 of megabytes, read piece by piece: each call of the stdlib's keeps the interpreter's lock."""

from __future__ import annotations

import codecs
import json.decoder
import re
from typing import TYPE_CHECKING

from scattersphere._turns import STEP, give_way, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_scan_string: Callable[[str, int], tuple[str, int]] = vars(json.decoder)["scanstring"]
_INSIDE = re.compile(r'(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
"""What the stdlib takes inside a string, up to the quote that ends it."""
_LONGEST_ESCAPE = 6
_FIRST_HALVES = range(0xD800, 0xDC00)
"""Of surrogate pairs."""


def decode_utf8(text: bytes | bytearray) -> str:
    """Do as `text.decode("utf-8")`, piece by piece. Raises `UnicodeDecodeError`."""
    if len(text) <= STEP:
        return text.decode("utf-8")
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        found = [decode(text[start:end]) for start, end in pieces(len(text))]
        decode(b"", True)
    except UnicodeDecodeError:
        return text.decode("utf-8")  # which says where
    return "".join(found)


def pieces_of_string(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Yield where the pieces begin and end of the string whose quote stands before `at`, and give way between them.

    Raises `ValueError` where the stdlib does.
    """
    while (inside := _INSIDE.match(text, at, at + STEP + _LONGEST_ESCAPE)) is not None and inside.end() > at:
        yield at, inside.end()
        at = inside.end()
        if text.startswith('"', at):
            return
        give_way()
    if not text.startswith('"', at):
        raise ValueError("it is no string")


def read_string(text: str, at: int) -> tuple[str, int]:
    """Return the string whose quote stands before `at`, and where it ends: as the stdlib does, but piece by piece.

    Halves of surrogate pairs may only stand in it as escapes: a text with others is refused before it is read.
    Raises `json.JSONDecodeError` as the stdlib does.
    """
    quote_at = text.find('"', at, at + STEP)
    if quote_at >= 0 and text[quote_at - 1] != "\\":
        return _scan_string(text, at)
    found, end, is_cut = list[str](), at, False
    try:
        for start, end in pieces_of_string(text, at):
            piece = text[start:end]
            found.append(_scan_string(piece + '"', 0)[0] if "\\" in piece else piece)
            is_cut = is_cut or ord(found[-1][-1]) in _FIRST_HALVES
    except ValueError:
        return _scan_string(text, at)  # which says what is wrong, and where
    value = "".join(found)
    if is_cut:  # between the halves of a pair
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return value, end + 1

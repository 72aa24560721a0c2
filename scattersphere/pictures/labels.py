"""Text in pictures: states and durations in words, and names cut to the room that there is.

The width of a text is counted in letters: a letter of East Asia or an emoji is as wide as two.
"""

from __future__ import annotations

from unicodedata import east_asian_width

LETTER = 7.6
"""Pixels of a letter of a name at 13 px: that of DejaVu Sans, the widest system font met."""
SMALL_LETTER = 6.1
"""The same at 11.5 px."""

_WORDS = {
    "up_for_retry": "waits to retry",
    "upstream_failed": "upstream failed",
}


def words(state: str) -> str:
    """Return a state as people read it."""
    return _WORDS.get(state, state)


def duration(seconds: float) -> str:
    """Return a duration in at most three figures and two units."""
    if seconds < 0.0005:  # noqa: PLR2004 - what rounds to no millisecond still took time
        return "< 1 ms"
    if seconds < 0.9995:  # noqa: PLR2004 - what rounds to 1,000 ms is a second
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:  # noqa: PLR2004 - what rounds to 60.0 s is a minute
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


def width_of(text: str) -> int:
    """Return the width of a text, in letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _fitting(text: str, room: int) -> int:
    """Return how many characters from the beginning fit into so many letters."""
    wide = 0
    for at, letter in enumerate(text):
        wide += 2 if east_asian_width(letter) in "WF" else 1
        if wide > room:
            return at
    return len(text)


def shorten_middle(text: str, room: int) -> str:
    """Cut a name in the middle: what tells task names apart is at their beginning or their end."""
    if width_of(text) <= room:
        return text
    tail = _fitting(text[::-1], room // 3)
    return text[: _fitting(text, room - room // 3 - 1)] + "…" + text[len(text) - tail :]


def shorten_end(text: str, room: int) -> str:
    """Cut a text at its end."""
    if width_of(text) <= room:
        return text
    return text[: _fitting(text, room - 1)].rstrip(" ·") + "…"

"""Problem: one thing that is wrong with a definition, where, and what to write instead."""

from __future__ import annotations

import attrs

LONGEST = 8_000
"""Characters of a path, and of a message; both together stay below the limit of any message of ours."""


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


@attrs.frozen
class Problem:
    """A located fault: `path` in the document, `line` and `column` from 1 where text is known."""

    path: str = attrs.field(converter=_clipped)
    message: str = attrs.field(converter=_clipped)
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None
    is_warning: bool = False
    """Whether the definition can be defined and started all the same."""

    def __str__(self) -> str:
        """Return the line that section 4 of the design shows."""
        where = f"{self.line}:{self.column}  " if self.line is not None else ""
        hint = f'; did you mean "{self.suggestion}"?' if self.suggestion else ""
        kind = "warning: " if self.is_warning else ""
        return f"{where}{self.path or '(document)'}  {kind}{self.message}{hint}"

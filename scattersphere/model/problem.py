"""One thing that is wrong with a definition, said so that a person can mend it."""

from __future__ import annotations

import attrs

SHOWN = 200
"""Characters of a value or name that a message quotes."""


@attrs.frozen
class Problem:
    """A located fault: `path` in the document, `line` and `column` from 1 where text is known."""

    path: str
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        """Return the line that section 4 of the design shows."""
        where = f"{self.line}:{self.column}  " if self.line is not None else ""
        hint = f'; did you mean "{self.suggestion}"?' if self.suggestion else ""
        return f"{where}{self.path or '(document)'}  {self.message}{hint}"

"""Reused: where a result comes from that a run did not make itself."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Reused:
    """Where a result comes from that a run did not make itself."""

    run: int
    """The run that made it."""
    code: str
    """The version of the code that made it: `etl@91be07`."""
    older: bool
    """Whether that is other code than this run has for the task."""
    instances: int | None = None
    """How many instances of a mapped task were taken over where not all were; else None."""
    digest: str = attrs.field(default="", repr=False)

    def __str__(self) -> str:
        older = f" (made by {self.code}, which is older code)" if self.older else ""
        return f"run {self.run}{older}"

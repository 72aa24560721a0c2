"""Exit codes of the command line, and refusals before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.model.problem import Problem

SUCCEEDED, FAILED, USAGE, BAD_FILE, INTERRUPTED = 0, 1, 2, 3, 130


class Refusal(Exception):  # noqa: N818 - no error of ours, but the end of a command
    """Nothing was run; the message says why, `problems` one by one."""

    def __init__(self, exit_code: int, message: str, problems: Iterable[Problem] = ()) -> None:
        self.exit_code = exit_code
        self.problems: list[Problem] = list(problems)
        super().__init__(message)

    def as_dict(self) -> dict[str, object]:
        """Return what a program reads in its place."""
        problems = [attrs.asdict(problem) for problem in self.problems]
        return {"error": {"message": str(self).rstrip(), "problems": problems}}

"""The commands of the line protocol, from their one table: the directive `commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils.parsers.rst import Directive
from text_tables import table

from scattersphere.commands.help import usage
from scattersphere.commands.table import COMMANDS

if TYPE_CHECKING:
    from docutils import nodes


def rows() -> list[tuple[str, str, str]]:
    """Return what is typed, the role that it needs, and what it does, for each command."""
    return [
        (usage(command), "-" if command.role is None else str(command.role), f"{command.help}.")
        for command in COMMANDS.values()
    ]


class Commands(Directive):
    """`{commands}`."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return [table((5, 1, 4), ("command", "role", ""), rows())]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

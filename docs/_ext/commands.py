"""The commands of the line protocol, from their one table: the directive `commands`."""

from __future__ import annotations

from docutils import nodes
from docutils.parsers.rst import Directive

from scattersphere.commands.help import usage
from scattersphere.commands.table import COMMANDS


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
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (5, 1, 4)]
        head, body = nodes.thead(), nodes.tbody()
        for parent, cells in [(head, ("command", "role", "")), *((body, row) for row in rows())]:
            row = nodes.row()
            for number, cell in enumerate(cells):
                text = nodes.literal(text=cell) if parent is body and not number else nodes.Text(cell)
                row += nodes.entry("", nodes.paragraph("", "", text))
            parent += row
        group += [head, body]
        return [nodes.table("", group)]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

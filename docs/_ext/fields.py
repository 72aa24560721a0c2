"""The fields of the definition file, from the rows that stand at them: the directive `fields`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from docutils.parsers.rst import Directive
from text_tables import table

from scattersphere.model import definition
from scattersphere.model.fields import rows as rows_of
from scattersphere.model.forms import COMMENT

if TYPE_CHECKING:
    from docutils import nodes


def rows(cls: type) -> list[tuple[str, str, str, str]]:
    """Return the key, what it takes, its default and its meaning, for each field of a class of definitions."""
    found = []
    for row in rows_of(cls).values():
        if row.key != COMMENT:
            since = f" Since format {row.since}." if row.since > 1 else ""
            found.append((row.key, row.json.words, default_of(row), f"{row.help}{since}"))
    return found


def default_of(row: object) -> str:
    """Return the default as a file would write it."""
    if row.required:
        return "required"
    default = row.default
    if isinstance(default, bool):
        return "true" if default else "false"
    if default in (None, "", (), {}) or attrs.has(type(default)):
        return "none"
    return str(default)


class Fields(Directive):
    """`{fields} TaskDefinition`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        cls = getattr(definition, self.arguments[0])
        return [table((2, 4, 2, 5), ("key", "JSON", "default", "meaning"), rows(cls))]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("fields", Fields)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

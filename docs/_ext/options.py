"""The options of a Server, of watching, of listening: tables made from the classes: the directive `options`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import attrs
from docutils.parsers.rst import Directive
from text_tables import table

from scattersphere._options import option_rows

if TYPE_CHECKING:
    from docutils import nodes


def rows(cls: type) -> list[tuple[str, str, str, str]]:
    """Return the name, default, unit and meaning of each option of a class."""
    return [(row.name, shown(row.default), row.unit or "-", row.meaning) for row in option_rows(cls)]


def shown(value: Any) -> str:
    """Return a default as a person would write it."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:  # noqa: PLR2004 - read in threes
        return f"{value:_}"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})" if value else "none"
    return f"{type(value).__name__}()" if attrs.has(type(value)) else str(value)


class Options(Directive):
    """`{options} scattersphere.ServerOptions`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        module, _, name = self.arguments[0].rpartition(".")
        cls = getattr(import_module(module), name)
        return [table((3, 2, 2, 7), ("option", "default", "unit", "meaning"), rows(cls))]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("options", Options)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

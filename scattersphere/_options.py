"""Options as classes: each attribute with its default, unit, meaning and check.

The documentation's tables, and what files of options may hold, are made from the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import attrs

Check = Callable[[Any, str], None]
"""`check(value, name)` raises `TypeError` or `ArgumentError` for a value that cannot be meant."""


def option(
    default: object,
    meaning: str,
    *,
    unit: str = "",
    check: Check | None = None,
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """Return an attribute of an attrs class. The value is checked as it was given, and converted then."""

    def checked(value: object, field: attrs.Attribute[object]) -> object:
        if check is not None:
            check(value, field.name)
        return value if convert is None else convert(value)

    converter: Any = attrs.Converter(checked, takes_field=True)
    return attrs.field(default=default, converter=converter, metadata={"meaning": meaning, "unit": unit})


class OptionRow(NamedTuple):
    """What the documentation shows of an option."""

    name: str
    default: object
    unit: str
    meaning: str


def option_rows(cls: type) -> list[OptionRow]:
    """Return the rows of a class of options, in their order."""
    return [
        OptionRow(field.name, field.default, field.metadata["unit"], field.metadata["meaning"])
        for field in attrs.fields(cls)
    ]

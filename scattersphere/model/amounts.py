"""Amounts of a pool that a task needs, `2` or `"4GiB"`: their meaning in places, and how their field is read."""

from __future__ import annotations

import re
from typing import Final

import attrs

from scattersphere._json_words import RawProblem, describe
from scattersphere.model.forms import COMMENT, COMMENT_SCHEMA, MOST, Simple, WrongPartsError, WrongValueError

_SIZE = re.compile(r"([1-9][0-9]{0,8})(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS: Final[dict[str, int]] = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}


def places_of(amount: int | str) -> int:
    """Return how many places of a pool an amount means: `2` is 2, `"4GiB"` the bytes that it says."""
    if isinstance(amount, int):
        return amount
    match = _SIZE.fullmatch(amount)
    if match is None:
        raise ValueError(amount)
    return int(match[1]) * _UNITS[match[2]]


@attrs.frozen
class Amounts(Simple):
    """An object of amounts by the names of pools: `{"gpu": 1, "memory": "4GiB"}`."""

    words: str = 'an object of amounts: {"gpu": 1, "memory": "4GiB"}'

    holds_names = True

    def read(self, value: object, _: object = None) -> dict[str, int | str]:
        if type(value) is not dict:
            hint = (
                '; the tasks that must end before are in "depends_on"' if type(value) in (list, str) else ""
            )
            raise WrongValueError(
                f'must be an object {{"pool": amount}}, not {describe(value)}{hint}',
                "depends_on" if hint else None,
            )
        parts = [
            RawProblem(
                (name,),
                f'must be a whole number from 1 to {MOST:,}, or a size such as "4GiB", not {describe(item)}',
            )
            for name, item in value.items()
            if not _is_amount(item)
        ]
        if parts:
            raise WrongPartsError(parts)
        found: dict[str, int | str] = value
        return found

    def write(self, value: object) -> object:
        return dict(value) if isinstance(value, dict) else value

    def schema(self) -> dict[str, object]:
        size = {"type": "string", "pattern": rf"^{_SIZE.pattern}$(?!\n)"}
        whole = {"type": "integer", "minimum": 1, "maximum": MOST}
        return {
            "type": "object",
            "properties": {COMMENT: COMMENT_SCHEMA},
            "additionalProperties": {"anyOf": [whole, size]},
        }


def _is_amount(item: object) -> bool:
    if type(item) is str:
        return _SIZE.fullmatch(item) is not None
    return type(item) is int and 1 <= item <= MOST

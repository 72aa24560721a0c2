"""Copies of JSON containers, so that what one attempt changes no other sees."""

from __future__ import annotations

from typing import Any


def fresh(value: Any) -> Any:
    """Return `value` with its dicts and lists copied at every depth; anything else is kept as it is."""
    if type(value) is dict:
        return {key: fresh(child) for key, child in value.items()}
    if type(value) is list:
        return [fresh(child) for child in value]
    return value

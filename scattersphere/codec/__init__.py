"""JSON and the model: strict, located, with suggestions."""

from scattersphere.codec.definition import (
    check_definition,
    dumps_definition,
    load_definition,
    loads_definition,
    save_definition,
)
from scattersphere.codec.params import resolve_params, secret_names
from scattersphere.codec.schema import definition_schema

__all__ = [
    "check_definition",
    "definition_schema",
    "dumps_definition",
    "load_definition",
    "loads_definition",
    "resolve_params",
    "save_definition",
    "secret_names",
]

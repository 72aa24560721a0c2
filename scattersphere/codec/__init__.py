"""JSON and the model: strict, located, with suggestions."""

from scattersphere.codec.collecting import collection_paused
from scattersphere.codec.definition import (
    check_definition,
    checked,
    load_definition,
    loads_definition,
    locate,
    read_definition,
    read_definition_file,
    save_definition,
    with_origin,
    with_tasks,
)
from scattersphere.codec.params import resolve_params, secret_names
from scattersphere.codec.schema import definition_schema
from scattersphere.codec.writing import digest_definition, dumps_definition

__all__ = [
    "check_definition",
    "checked",
    "collection_paused",
    "definition_schema",
    "digest_definition",
    "dumps_definition",
    "load_definition",
    "loads_definition",
    "locate",
    "read_definition",
    "read_definition_file",
    "resolve_params",
    "save_definition",
    "secret_names",
    "with_origin",
    "with_tasks",
]

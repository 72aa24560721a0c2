"""Reading and writing job definitions as JSON: strict, with places and suggestions."""

from scattersphere.definitions.dump import digest_definition, dumps_definition
from scattersphere.definitions.load import (
    check_definition,
    checked,
    load_definition,
    loads_definition,
    placed,
    read_definition,
    read_definition_file,
    save_definition,
    untold,
)
from scattersphere.definitions.parameters import resolve_params, secret_names, without_secrets
from scattersphere.definitions.schema import definition_schema
from scattersphere.model.logs import MASK

__all__ = [
    "MASK",
    "check_definition",
    "checked",
    "definition_schema",
    "digest_definition",
    "dumps_definition",
    "load_definition",
    "loads_definition",
    "placed",
    "read_definition",
    "read_definition_file",
    "resolve_params",
    "save_definition",
    "secret_names",
    "untold",
    "without_secrets",
]

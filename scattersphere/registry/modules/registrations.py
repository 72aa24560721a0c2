"""Entries of one version in tables of the whole process, taken out with it: libraries register themselves at import.

What code enters while it is imported is noted module by module; what lies in the caches of other libraries is found by
its owner. Entries that a task makes while it runs are left alone, and reported as leaks: somebody may count on them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.registry.modules.leak_checks import Suspect

    Table = list[Any] | MutableMapping[Any, Any]

AT_IMPORT = (
    ("sys", "meta_path"),
    ("sys", "path_hooks"),
    ("warnings", "filters"),
    ("copyreg", "dispatch_table"),
)
"""Tables in which libraries enter themselves when they are imported: six, bottle, sympy."""

CACHES = (
    (
        "typing",
        "_cleanups",
    ),  # a function that typing decorates anew, as typing_extensions does, stays in these two
    ("typing", "_caches"),
    ("pydantic._internal._generics", "_GENERIC_TYPES_CACHE"),  # its keys hold the arguments of Box[Item]
    ("ctypes", "_pointer_type_cache"),
)
"""Caches that hold what they were once given."""


class Registrations:
    """What the modules of one version have entered into the tables of AT_IMPORT."""

    def __init__(self) -> None:
        self._entered: list[tuple[Table, Any]] = []

    def seen(self) -> list[tuple[Table, frozenset[int]]]:
        """Return what is in the tables before a module is executed."""
        return [(table, frozenset(map(id, _entries(table)))) for table in _tables(AT_IMPORT)]

    def note(self, before: list[tuple[Table, frozenset[int]]]) -> None:
        """Note what has come since."""
        for table, known in before:
            entries = _entries(table)
            if len(entries) != len(known) or not known.issuperset(map(id, entries)):
                self._entered += [(table, entry) for entry in entries if id(entry) not in known]

    def take_out(self, suspect: Suspect) -> None:
        """Take out what is the version's own: of its tables what was noted, of the caches everything."""
        entered, self._entered = self._entered, []
        for table, entry in entered:
            value = table.get(entry) if isinstance(table, MutableMapping) else None
            if suspect.owns(entry) or suspect.owns(value):
                _remove(table, entry)
        for table in _tables(CACHES):
            items = (
                list(table.items())
                if isinstance(table, MutableMapping)
                else [(entry, None) for entry in table]
            )
            for entry, value in items:
                if suspect.owns(entry) or suspect.owns(value):
                    _remove(table, entry)


def _tables(names: Iterable[tuple[str, str]]) -> list[Table]:
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return [table for table in found if isinstance(table, list | MutableMapping)]


def _entries(table: Table) -> list[Any]:
    return list(table)


def _remove(table: Table, entry: Any) -> None:
    """Take one entry out. Other threads may do the same meanwhile; what is equal and not the same is left."""
    if isinstance(table, MutableMapping):
        table.pop(entry, None)
        return
    at = next((index for index, other in enumerate(table) if other is entry), None)
    if at is not None:
        del table[at]
    if table is warnings.filters and (mutated := getattr(warnings, "_filters_mutated", None)):
        mutated()

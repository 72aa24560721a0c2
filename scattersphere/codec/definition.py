"""Job definitions in texts and files: load, check, save."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._text import suggestion_budget
from scattersphere.codec.collecting import collection_paused
from scattersphere.codec.faults import Fault, describe, unplaced
from scattersphere.codec.limits import FILE_BYTES
from scattersphere.codec.plainjson import plain_faults
from scattersphere.codec.structure import structure, structure_counting
from scattersphere.codec.text import UNREAD, has_all_keys, place, read_text, read_unchecked, read_value
from scattersphere.codec.writing import JOB_COMMENTS, TASK_COMMENTS, dumps_definition, to_value
from scattersphere.errors import DefinitionError, ExistsError, FileChangedError
from scattersphere.files import atomic_write
from scattersphere.model.definition import FileOrigin, JobDefinition, TaskDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.model.problem import Problem


@attrs.frozen
class DefinitionReading:
    """What a text holds: a definition, or what could be read of one with all that is wrong."""

    definition: JobDefinition | None
    faults: list[Fault]
    text: str
    source: str | None

    def problems(self, more: list[Fault] | None = None) -> list[Problem]:
        """Return the problems, and those that others have found, in the text's order."""
        return place(self.text, [*self.faults, *(more or ())])


@suggestion_budget()
def read_definition(text: str | bytes, *, source: str | None = None) -> DefinitionReading:
    """Read a definition, right or wrong. Raises `DefinitionError` only where the text is no JSON."""
    with collection_paused(characters=len(text)):
        content = read_text(text, source=source)
        value = read_unchecked(content)
        if value is not UNREAD:
            definition, faults, keys = structure_counting(value)
            if has_all_keys(content, keys):
                return DefinitionReading(definition, faults, content, source)
        reading = read_value(content, source=source)
        definition, faults = structure(reading.value)
    if reading.faults:
        # NaN is told of once, not again as something that is no whole number.
        told = {fault.path for fault in reading.faults}
        faults = reading.faults + [fault for fault in faults if fault.path not in told]
    return DefinitionReading(definition, faults, content, source)


def loads_definition(text: str | bytes, *, source: str | None = None) -> JobDefinition:
    """Read a definition from JSON text.

    Raises `DefinitionError` with everything that can be found wrong without a server, each with line
    and column.
    """
    reading = read_definition(text, source=source)
    if reading.faults or reading.definition is None:
        raise DefinitionError(reading.problems(), source=source)
    return reading.definition


def read_definition_file(path: str | os.PathLike[str]) -> DefinitionReading:
    """Read a definition file, right or wrong. Raises `OSError`, `DefinitionError` as above."""
    source = os.fspath(path)
    with FilePath(path).open("rb") as file:
        content = file.read(FILE_BYTES + 1)
    reading = read_definition(content, source=source)
    if reading.definition is None:
        return reading
    origin = FileOrigin(str(FilePath(path).absolute()), _digest(content))
    return attrs.evolve(reading, definition=with_origin(reading.definition, origin))


def load_definition(path: str | os.PathLike[str]) -> JobDefinition:
    """Read a definition file. Raises `DefinitionError`, `OSError`."""
    reading = read_definition_file(path)
    if reading.faults or reading.definition is None:
        raise DefinitionError(reading.problems(), source=reading.source)
    return reading.definition


def with_origin(definition: JobDefinition, origin: FileOrigin | None) -> JobDefinition:
    """Return a copy that comes from a file; what was checked stays so."""
    return _copy(definition, origin=origin)


def with_tasks(definition: JobDefinition, tasks: Mapping[str, TaskDefinition]) -> JobDefinition:
    """Return a copy whose tasks name their bundles: it differs in nothing that was checked."""
    return _copy(definition, tasks=tasks)


def _copy(definition: JobDefinition, **changes: Any) -> JobDefinition:
    copy = definition.evolve(**changes)
    kept = ("checked", "upstreams", "upstream_indices")
    vars(copy).update({name: vars(definition)[name] for name in kept if name in vars(definition)})
    return copy


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=20).digest()


@suggestion_budget()
def checked(definition: JobDefinition) -> tuple[JobDefinition | None, list[Fault]]:
    """Return a definition as its file would give it, with all that a file would be refused for.

    One that was read is itself. None stands for one of which nothing can be said but the faults.
    """
    if not isinstance(definition, JobDefinition):
        return None, [Fault((), f"a JobDefinition is wanted, not {describe(definition)}")]
    if definition.checked:
        return definition, []
    value = to_value(definition)
    faults = _comment_faults(definition) + plain_faults(value)
    if faults:
        return None, faults
    with collection_paused(tasks=len(value["tasks"])):
        read, faults = structure(value)
    return (None if read is None else with_origin(read, definition.origin)), faults


def _comment_faults(definition: JobDefinition) -> list[Fault]:
    holders: list[tuple[tuple[str, ...], Any, tuple[str, ...]]] = [((), definition, JOB_COMMENTS)]
    tasks = definition.tasks if isinstance(definition.tasks, dict) else {}
    holders += [
        (("tasks", str(name)), task, TASK_COMMENTS)
        for name, task in tasks.items()
        if isinstance(task, TaskDefinition) and task.comments
    ]
    faults = []
    for path, holder, places in holders:
        if not isinstance(holder.comments, dict) or holder.comments.keys() - set(places):
            words = f"maps {' and '.join(places)} to the comments inside them, and nothing else"
            faults.append(Fault((*path, "comments"), words))
    return faults


def check_definition(definition: JobDefinition) -> list[Problem]:
    """Return everything wrong with a definition by itself: what a file would be refused for."""
    return unplaced(checked(definition)[1])


def locate(definition: JobDefinition, faults: list[Fault]) -> list[Problem]:
    """Give faults found later their places in the definition's file, if that still says the same."""
    origin = definition.origin
    if faults and origin is not None and definition.checked:
        try:
            content = FilePath(origin.path).read_bytes()
            if _digest(content) == origin.digest:
                return place(read_text(content), faults)
        except (OSError, DefinitionError):
            pass  # the file is gone or was changed: the paths still tell
    return unplaced(faults)


def save_definition(
    definition: JobDefinition, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a definition file atomically.

    Raises `FileChangedError` if the file was changed since it was loaded, `ExistsError` if there is
    a file from which it was not loaded, unless `overwrite`; `DefinitionError` rather than writing
    something that could not be read again.
    """
    if problems := check_definition(definition):
        raise DefinitionError(problems, source=definition.path or definition.name)
    target = FilePath(path).resolve()
    origin = definition.origin
    if origin is not None and FilePath(origin.path).resolve() != target:
        origin = None
    if not overwrite and target.exists():
        if origin is None:
            raise ExistsError(f"{os.fspath(path)} exists already; pass overwrite=True to replace it")
        if _digest(target.read_bytes()) != origin.digest:
            raise FileChangedError(
                f"{os.fspath(path)} was changed since it was loaded; load it again, or pass overwrite=True"
            )
    content = dumps_definition(definition).encode("utf-8")
    atomic_write(target, content)
    if origin is not None:
        origin.digest = _digest(content)  # its copies know too
    else:
        # Whoever made it in Python, or saved it elsewhere, has a file now, and may save it again there.
        vars(definition)["origin"] = FileOrigin(str(FilePath(path).absolute()), _digest(content))

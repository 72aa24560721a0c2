"""Job definitions that a bundle carries: the files `jobs/*.json` at its top, or in one of its packages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scattersphere.codec.definition import loads_definition
from scattersphere.errors import BundleLoadError, DefinitionError

if TYPE_CHECKING:
    from collections.abc import Collection

    from scattersphere.model.definition import JobDefinition
    from scattersphere.registry.sources import Snapshot

_FILE = re.compile(r"(?:([^/]+)/)?jobs/[^/]+\.json")


def carried_definitions(snapshot: Snapshot, bundle: str, paths: Collection[str]) -> tuple[JobDefinition, ...]:
    """Return the definitions in the files of a bundle, in the order of their names.

    A task of theirs that names no bundle means the one in this bundle, if its path is among `paths`.
    BundleLoadError says everything that is wrong with them.
    """
    found: dict[str, JobDefinition] = {}
    wrong = []
    for name in sorted(snapshot.files):
        match = _FILE.fullmatch(name)
        if match is None or match[1] in snapshot.layout.dependencies:
            continue
        try:
            definition = loads_definition((snapshot.folder / name).read_bytes(), source=name)
        except DefinitionError as error:
            wrong.append(str(error))
            continue
        if definition.name in found:
            wrong.append(f"{name}: another file defines the job {definition.name!r} too")
        found[definition.name] = _at_home(definition, bundle, paths)
    if wrong:
        raise BundleLoadError("\n".join([f"bundle {bundle!r} carries wrong job definitions", *wrong]))
    return tuple(found.values())


def _at_home(definition: JobDefinition, bundle: str, paths: Collection[str]) -> JobDefinition:
    return definition.evolve(
        tasks={
            name: task.evolve(bundle=bundle) if task.bundle is None and task.task in paths else task
            for name, task in definition.tasks.items()
        }
    )

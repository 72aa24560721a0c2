"""Definition files against their code, without running a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from scattersphere._json import RawProblem
from scattersphere.abc.backend import LOOP_TRAITS, BackendTraits
from scattersphere.definitions import definition_schema, read_definition_file, untold
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.engine.planning import code_problems
from scattersphere.errors import DefinitionError, ScattersphereError, listing
from scattersphere.model.logs import make_printable
from scattersphere.model.problem import Problem
from scattersphere.model.taskclass import LOOP
from scattersphere.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.definitions.load import DefinitionReading

RIGHT, WRONG = 0, 3
_BACKENDS = {
    LOOP: LOOP_TRAITS,
    "thread": BackendTraits.of(ThreadBackend),
    "process": BackendTraits.of(ProcessBackend),
}
"""Those that every Server has."""
"""Those of a Server to which the host adds none."""


def check_files(files: Iterable[str], bundles: Iterable[Path], *, as_json: bool) -> int:
    """Print what is wrong with each file; return the exit code."""
    code = RIGHT
    for file in files:
        problems, tasks = anyio.run(check_file, file, Path(file).resolve().parent, list(bundles))
        code = max(code, WRONG if problems else RIGHT)
        if as_json:
            shown = [attrs.asdict(problem) for problem in problems]
            sys.stdout.write(json.dumps({"file": file, "tasks": tasks, "problems": shown}) + "\n")
        elif problems:
            sys.stdout.write(make_printable(listing(file, problems)) + "\n")
        else:
            sys.stdout.write(f"{file}: nothing is wrong, {tasks} task{'' if tasks == 1 else 's'}\n")
    return code


async def check_file(file: str, folder: Path, bundles: list[Path]) -> tuple[list[Problem], int]:
    """Return everything wrong with a definition file, by itself and with its code, and its number of tasks.

    The paths of the bundles that it names begin in `folder`.
    """
    try:
        reading = read_definition_file(file)
    except OSError as exc:
        return [Problem("", exc.strerror or str(exc))], 0
    except DefinitionError as exc:  # it is no JSON
        return list(exc.problems), 0
    if reading.definition is None:
        return reading.problems(), 0
    async with Server() as server:
        problems = await _register(server, reading, folder, bundles)
        if server.registry.bundles:
            found = code_problems(reading.definition, server.registry.find, _BACKENDS)
            problems += untold(found, [*reading.raw_problems, *problems])
    return reading.problems(problems), len(reading.definition.tasks)


async def _register(
    server: Server, reading: DefinitionReading, folder: Path, more: list[Path]
) -> list[RawProblem]:
    problems: list[RawProblem] = []
    named = reading.definition.bundles if reading.definition is not None else {}
    for name, place in named.items():
        try:
            await server.register(folder / place, name=name)
        except (ScattersphereError, OSError) as exc:
            problems.append(RawProblem(("bundles", name), str(exc)))
    for path in more:
        try:
            await server.register(path)
        except (ScattersphereError, OSError) as exc:
            problems.append(RawProblem((), f"--bundle {path}: {exc}"))
    return problems


def schema_with(bundles: tuple[Path, ...]) -> dict[str, Any]:
    """Return the schema that knows the tasks of `bundles`. Raises `BundleError`."""
    return anyio.run(_schema_with, bundles) if bundles else definition_schema()


async def _schema_with(bundles: tuple[Path, ...]) -> dict[str, Any]:
    async with Server() as server:
        for path in bundles:
            await server.register(path)
        return definition_schema(list(server.registry.tasks.values()))

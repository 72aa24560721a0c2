"""Checking definition files against their code, without running a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from scattersphere._json_words import FILE_BYTES, RawProblem
from scattersphere.abc.backend import LOOP_TRAITS, BackendTraits
from scattersphere.definitions import definition_schema, read_definition, read_definition_file, untold
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
    from scattersphere.model.definition import JobDefinition

RIGHT, WRONG = 0, 3
_BACKENDS = {
    LOOP: LOOP_TRAITS,
    "thread": BackendTraits.of(ThreadBackend),
    "process": BackendTraits.of(ProcessBackend),
}
"""Those of a Server to which the host adds none."""
STDIN = "-"


def reading_of(file: str) -> DefinitionReading:
    """Read a definition file, or `-` for standard input. Raises `OSError`, `DefinitionError` for what is no JSON."""
    if file == STDIN:
        return read_definition(sys.stdin.buffer.read(FILE_BYTES + 1), source=name_of(file))
    return read_definition_file(file)


def right(file: str) -> JobDefinition:
    """Return the definition in a file, or on standard input. Raises `OSError`, `DefinitionError`."""
    reading = reading_of(file)
    if reading.definition is None or reading.raw_problems:
        raise DefinitionError(reading.problems(), source=reading.source)
    return reading.definition


def name_of(file: str) -> str:
    """Return what a file is called in messages."""
    return "standard input" if file == STDIN else file


def folder_of(file: str) -> Path:
    """Return the folder in which the paths of a file's bundles begin: the current one for standard input."""
    return Path.cwd() if file == STDIN else Path(file).resolve().parent


def check_files(files: Iterable[str], bundles: Iterable[Path], *, as_json: bool) -> int:
    """Print what is wrong with each file; return the exit code."""
    code = RIGHT
    for file in files:
        problems, tasks = anyio.run(check_file, file, folder_of(file), list(bundles))
        code = max(code, WRONG if problems else RIGHT)
        if as_json:
            shown = [attrs.asdict(problem) for problem in problems]
            sys.stdout.write(json.dumps({"file": file, "tasks": tasks, "problems": shown}) + "\n")
        elif problems:
            sys.stdout.write(make_printable(listing(name_of(file), problems)) + "\n")
        else:
            sys.stdout.write(f"{name_of(file)}: nothing is wrong, {tasks} task{'' if tasks == 1 else 's'}\n")
    return code


async def check_file(file: str, folder: Path, bundles: list[Path]) -> tuple[list[Problem], int]:
    """Return everything wrong with a definition file, by itself and with its code, and its number of tasks.

    The paths of the bundles that it names begin in `folder`.
    """
    try:
        reading = reading_of(file)
    except OSError as exc:
        return [Problem("", exc.strerror or str(exc))], 0
    except DefinitionError as exc:  # it is no JSON
        return list(exc.problems), 0
    if reading.definition is None:
        return reading.problems(), 0
    async with Server() as server:
        return await judge(server, reading.definition, reading, folder, bundles), len(
            reading.definition.tasks
        )


async def judge(
    server: Server, definition: JobDefinition, reading: DefinitionReading, folder: Path, bundles: list[Path]
) -> list[Problem]:
    """Register what a definition names, and return everything that is wrong with it, the code's word included."""
    problems = await _register(server, definition, folder, bundles)
    if server.registry.bundles:
        found = code_problems(definition, server.registry.find, _BACKENDS)
        problems += untold(found, [*reading.raw_problems, *problems])
    return reading.problems(problems)


async def _register(
    server: Server, definition: JobDefinition, folder: Path, more: list[Path]
) -> list[RawProblem]:
    problems: list[RawProblem] = []
    for name, place in definition.bundles.items():
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


def schema_with(bundles: tuple[Path, ...]) -> dict[str, object]:
    """Return the schema that knows the tasks of `bundles`. Raises `BundleError`."""
    return anyio.run(_schema_with, bundles) if bundles else definition_schema()


async def _schema_with(bundles: tuple[Path, ...]) -> dict[str, object]:
    async with Server() as server:
        for path in bundles:
            await server.register(path)
        return definition_schema(list(server.registry.tasks.values()))

"""Loading job definitions from texts, files and Python: read, checked, with everything that is wrong at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._gc import free, gc_paused
from scattersphere._json import JsonTextError, decode, locate, parse, unwritable
from scattersphere._json_words import FILE_BYTES, MOST_PROBLEMS, RawProblem, describe, show_path
from scattersphere._text import suggestion_budget
from scattersphere._turns import EACH, WAY
from scattersphere.definitions.converter import UNREAD, read_record
from scattersphere.definitions.dump import JOB_COMMENTS, SCHEMA_KEY, TASK_COMMENTS, dumps_definition, to_value
from scattersphere.definitions.validate import Unread, validate
from scattersphere.errors import DefinitionError, ExistsError, FileChangedError
from scattersphere.files import atomic_write
from scattersphere.model.definition import FileOrigin, JobDefinition, TaskDefinition
from scattersphere.model.fields import FORMAT
from scattersphere.model.forms import COMMENT
from scattersphere.model.frozen import changed, freeze
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# ---- a JSON value


def read(value: object) -> tuple[JobDefinition | None, list[RawProblem]]:
    """Make a definition of a JSON value, which belongs to it from then on.

    Returns it with what is wrong: form and references together. It is None where nothing of it can be
    made; with problems it holds what could be read, for further checks, and must not be run.
    """
    if type(value) is not dict:
        return None, [RawProblem((), f"a definition is an object, not {describe(value)}")]
    form = value.get("format", FORMAT)
    problems: list[RawProblem] = []
    if type(form) is not int or not 1 <= form <= FORMAT:
        problems, form = [_format_problem(form)], FORMAT
        if type(value["format"]) is int and value["format"] > FORMAT:
            return None, problems  # whatever else it says may be right there
    rest, comments = _without_comments(value, JOB_COMMENTS)
    rest.pop(SCHEMA_KEY, None)
    rest.pop("format", None)
    unread = Unread()
    tasks = _read_tasks(rest.pop("tasks", {}), form, unread, problems)
    if len(problems) >= MOST_PROBLEMS:
        return None, problems
    job, found = read_record(rest, JobDefinition, form, {"name": "_"})
    if found:
        unread.job = {str(problem.path[0]) for problem in found if len(problem.path) == 1}
        unread.schedules = {
            str(problem.path[1]) for problem in found if problem.path[:1] == ("schedules",) != problem.path
        }
    job = changed(job, tasks=freeze(tasks), comments=freeze(comments))
    findings = validate(job, unread)
    problems += found + findings.problems
    if not problems:
        vars(job).update(
            checked=True, upstreams=findings.upstreams, upstream_indices=findings.upstream_indices
        )
    return job, problems


def _format_problem(form: object) -> RawProblem:
    known = " or ".join(map(str, range(1, FORMAT + 1)))
    if type(form) is not int or form < 1:
        return RawProblem(("format",), f"must be {known}, not {describe(form)}")
    words = (
        f"is {describe(form).removeprefix('the number ')}; this program knows {known}: a newer one is needed"
    )
    return RawProblem(("format",), words)


def _without_comments(
    value: dict[str, object], keys: Sequence[str]
) -> tuple[dict[str, object], dict[str, object]]:
    """Take the comments out of the objects under `keys`, so that nobody takes "//" for a name."""
    rest = value
    comments: dict[str, object] = {}
    for key in keys:
        inner = value.get(key)
        if type(inner) is dict and COMMENT in inner:
            rest = dict(value) if rest is value else rest
            rest[key] = {name: item for name, item in inner.items() if name != COMMENT}
            comments[key] = inner[COMMENT]
    return rest, comments


def _read_tasks(
    items: object, form: int, unread: Unread, problems: list[RawProblem]
) -> dict[str, TaskDefinition]:
    if type(items) is not dict:
        words = f'must be an object {{"name": {{"task": ..}}}}, not {describe(items)}'
        problems.append(RawProblem(("tasks",), words))
        return {}
    tasks: dict[str, TaskDefinition] = {}
    for name in EACH.get()(list(items)):
        item = items.pop(name)  # it is freed task by task, not all of it at once
        if type(item) is dict:
            rest, comments = _without_comments(item, TASK_COMMENTS)
            task, found = read_record(rest, TaskDefinition, form, {"task": UNREAD})
            if comments:
                task = changed(task, comments=freeze(comments))
            if WAY.get():
                read_items = list[object]([item])
                del item, rest
                free(read_items)
        else:
            task = TaskDefinition(task=UNREAD)
            found = [RawProblem((), f"must be an object, not {describe(item)}")]
        tasks[name] = task
        if found:
            problems += [attrs.evolve(problem, path=("tasks", name, *problem.path)) for problem in found]
            unread.tasks[name] = {str(problem.path[0]) if problem.path else "" for problem in found}
        if len(problems) >= MOST_PROBLEMS:
            break
    return tasks


# ---- texts and files


@attrs.frozen
class DefinitionReading:
    """What a text holds: a definition, or what could be read of one with all that is wrong.

    After `MOST_PROBLEMS` no more are looked for.
    """

    definition: JobDefinition | None
    raw_problems: list[RawProblem]
    text: str
    source: str | None

    def problems(self, more: Sequence[RawProblem] = ()) -> list[Problem]:
        """Return the problems, and those that others have found, in the text's order."""
        return _placed(self.text, [*self.raw_problems, *more])

    def discard(self) -> None:
        """Take the definition, which nobody else has, to pieces: at once it would hold the loop."""
        if self.definition is not None:
            parts = list(vars(self.definition).values())
            vars(self.definition).clear()
            free(parts)


def read_definition(text: str | bytes, *, source: str | None = None) -> DefinitionReading:
    """Read a definition, right or wrong. Raises `DefinitionError` only where the text is no JSON."""
    with suggestion_budget(), gc_paused(characters=len(text)):
        try:
            content = decode(text)
            parsed = parse(content)
        except JsonTextError as error:
            raise DefinitionError(_placed(error.text, error.problems), source=source) from None
        definition, problems = read(parsed.value)
    if parsed.problems:
        # NaN is told of once, not again as something that is no whole number.
        told = {problem.path for problem in parsed.problems}
        problems = parsed.problems + [problem for problem in problems if problem.path not in told]
    return DefinitionReading(definition, problems, content, source)


def loads_definition(text: str | bytes, *, source: str | None = None) -> JobDefinition:
    """Read a definition from JSON text.

    Raises `DefinitionError` with everything that can be found wrong without a server, each with line
    and column.
    """
    return _right(read_definition(text, source=source))


def _right(reading: DefinitionReading) -> JobDefinition:
    if reading.raw_problems or reading.definition is None:
        raise DefinitionError(reading.problems(), source=reading.source)
    return reading.definition


def read_definition_file(path: str | os.PathLike[str]) -> DefinitionReading:
    """Read a definition file, right or wrong. Raises `OSError`, `DefinitionError` as above."""
    source = os.fspath(path)
    with FilePath(path).open("rb") as file:
        content = file.read(FILE_BYTES + 1)
    reading = read_definition(content, source=source)
    if reading.definition is not None:  # nobody has seen it yet
        vars(reading.definition)["origin"] = FileOrigin(str(FilePath(path).absolute()), _digest(content))
    return reading


def load_definition(path: str | os.PathLike[str]) -> JobDefinition:
    """Read a definition file. Raises `DefinitionError`, `OSError`."""
    return _right(read_definition_file(path))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=20).digest()


# ---- definitions made in Python


def checked(definition: JobDefinition) -> tuple[JobDefinition | None, list[RawProblem]]:
    """Return a definition as its file would give it, with all that a file would be refused for.

    One that was read is itself. None stands for one of which nothing can be said but the problems.
    """
    if not isinstance(definition, JobDefinition):
        return None, [RawProblem((), f"a JobDefinition is wanted, not {describe(definition)}")]
    if definition.checked:
        return definition, []
    value = to_value(definition)
    problems = _comment_problems(definition) + unwritable(value)
    if problems:
        return None, problems
    with suggestion_budget(), gc_paused(tasks=len(value["tasks"])):
        made, problems = read(value)
    if made is not None:
        vars(made)["origin"] = definition.origin
    return made, problems


def _comment_problems(definition: JobDefinition) -> list[RawProblem]:
    holders: list[tuple[tuple[str, ...], Any, tuple[str, ...]]] = [((), definition, JOB_COMMENTS)]
    tasks = definition.tasks if isinstance(definition.tasks, dict) else {}
    holders += [
        (("tasks", str(name)), task, TASK_COMMENTS)
        for name, task in tasks.items()
        if isinstance(task, TaskDefinition) and task.comments
    ]
    problems = []
    for path, holder, places in holders:
        if not isinstance(holder.comments, dict) or holder.comments.keys() - set(places):
            words = f"maps {' and '.join(places)} to the comments inside them, and nothing else"
            problems.append(RawProblem((*path, "comments"), words))
    return problems


def check_definition(definition: JobDefinition) -> list[Problem]:
    """Return everything wrong with a definition by itself: what a file would be refused for."""
    return unplaced(checked(definition)[1])


# ---- problems with their places


def placed(definition: JobDefinition, problems: Sequence[RawProblem]) -> list[Problem]:
    """Give problems found later their places in the definition's file, if that still says the same."""
    origin = definition.origin
    if problems and origin is not None and definition.checked:
        try:
            content = FilePath(origin.path).read_bytes()
            if _digest(content) == origin.digest:
                return _placed(decode(content), problems)
        except (OSError, JsonTextError):
            pass  # the file is gone or was changed: the paths still tell
    return unplaced(problems)


def _placed(text: str, problems: Iterable[RawProblem]) -> list[Problem]:
    return [
        Problem(
            show_path(problem.path),
            problem.message,
            line,
            column,
            problem.suggestion,
            is_warning=problem.is_warning,
        )
        for problem, line, column in locate(text, problems)
    ]


def unplaced(problems: Iterable[RawProblem]) -> list[Problem]:
    """Make problems of what is wrong with something that has no text."""
    return [
        Problem(
            path=show_path(problem.path),
            message=problem.message,
            suggestion=problem.suggestion,
            is_warning=problem.is_warning,
        )
        for problem in problems
    ]


_INSIDE = 3
"""The length of the path of something inside a task. What is told of the task as a whole (it waits for itself in a
circle, its name is none) says nothing of that."""


def untold(problems: Iterable[RawProblem], told: Iterable[RawProblem]) -> list[RawProblem]:
    """Return the problems but for those at, or inside, what was told of already."""
    known = {problem.path for problem in told}
    return [
        problem
        for problem in problems
        if not any(problem.path[:length] in known for length in range(_INSIDE, len(problem.path) + 1))
    ]


# ---- saving


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

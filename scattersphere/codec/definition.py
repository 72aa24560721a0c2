"""Job definitions as JSON: load, dump, save."""

from __future__ import annotations

import gc
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import attrs
from cattrs.errors import AttributeValidationNote, ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from scattersphere.codec.converter import WrongValueError, faults_of, make_converter, structure_enum
from scattersphere.codec.crossrefs import check_references
from scattersphere.codec.faults import Fault, describe, unplaced
from scattersphere.codec.limits import FILE_BYTES
from scattersphere.codec.text import parse_text, place, read_text
from scattersphere.errors import DefinitionError, ExistsError, FileChangedError
from scattersphere.files import atomic_write
from scattersphere.model.definition import FileOrigin, JobDefinition, Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.problem import Problem
from scattersphere.model.states import Overlap, TriggerRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cattrs import Converter

FORMAT = 1
SCHEMA_KEY = "$schema"
SCHEMA_NAME = "job-definition.schema.json"
COMMENT = "//"
RENAMES = {"comment": COMMENT, "finally_": "finally"}
"""Attributes that Python cannot call as JSON does."""
_LARGE = 100_000
"""Characters above which garbage collection is paused while reading: it would look at each new
object again and again, and find nothing."""


def _params_hook(converter: Converter) -> Callable[[Any, Any], dict[str, Any]]:
    def structure_params(value: Any, _: Any) -> dict[str, Any]:
        """A plain default stays as it is; an object is the long form."""
        _require_object(value)
        errors: list[Exception] = []
        found: dict[str, Any] = {}
        for name, item in value.items():
            try:
                found[name] = converter.structure(item, Parameter) if type(item) is dict else item
            except Exception as error:  # noqa: BLE001 - noted with its key, as cattrs does in its own hooks
                error.add_note(AttributeValidationNote(f"parameter {name}", name, Parameter))
                errors.append(error)
        if errors:
            # typeshed gives every exception group the two arguments of ExceptionGroup itself.
            make_group: Any = ClassValidationError
            raise make_group("parameters", errors, JobDefinition)
        return found

    return structure_params


def _structure_json_object(value: Any, _: Any) -> dict[str, Any]:
    _require_object(value)
    found: dict[str, Any] = value
    return found


def _structure_strings(value: Any, _: Any) -> dict[str, str]:
    _require_object(value)
    for name, item in value.items():
        if type(item) is not str:
            raise WrongValueError(f'the path of "{name}" must be a string, not {describe(item)}')
    found: dict[str, str] = value
    return found


def _structure_names(value: Any, _: Any) -> tuple[str, ...]:
    if type(value) is not list:
        hint = f"; write [{json.dumps(value)}]" if type(value) is str else ""
        raise WrongValueError(f"must be a list of names, not {describe(value)}{hint}")
    if any(type(item) is not str for item in value):
        wrong = next(item for item in value if type(item) is not str)
        raise WrongValueError(f"must hold names only, not {describe(wrong)}")
    return tuple(value)


def _require_object(value: Any) -> None:
    if type(value) is not dict:
        raise WrongValueError(f"must be an object, not {describe(value)}")


# An attrs converter of a field makes cattrs leave the field to it: hooks of enums are given by name.
def _teach(converter: Converter) -> Converter:
    names = override(struct_hook=_structure_names)
    json_object = override(struct_hook=_structure_json_object)
    comment = override(rename="//")
    classes: list[tuple[type, dict[str, Any]]] = [
        (RetryPolicy, {"retry_on": names, "comment": comment}),
        (Parameter, {"comment": comment}),
        (
            TaskDefinition,
            {
                "depends_on": names,
                "args": json_object,
                "map": override(
                    struct_hook=lambda value, _: None if value is None else _structure_json_object(value, _)
                ),
                "trigger_rule": override(
                    struct_hook=lambda value, _: None if value is None else structure_enum(value, TriggerRule)
                ),
                "finally_": override(rename="finally"),
                "comment": comment,
                "comments": override(omit=True),
            },
        ),
    ]
    for cls, overrides in classes:
        converter.register_structure_hook(
            cls, _object_only(make_dict_structure_fn(cls, converter, **overrides))
        )
    converter.register_structure_hook(
        JobDefinition,
        _object_only(
            make_dict_structure_fn(
                JobDefinition,
                converter,
                comment=comment,
                overlap=override(struct_hook=lambda value, _: structure_enum(value, Overlap)),
                params=override(struct_hook=_params_hook(converter)),
                bundles=override(struct_hook=_structure_strings),
                tasks=override(omit=True),
                comments=override(omit=True),
                origin=override(omit=True),
            )
        ),
    )
    return converter


def _object_only(structure: Any) -> Any:
    def hook(value: Any, kind: Any) -> Any:
        _require_object(value)
        return structure(value, kind)

    return hook


_converter = _teach(make_converter(detailed=True))
_fast_task = _teach(make_converter(detailed=False)).get_structure_hook(TaskDefinition)
_detailed_task = _converter.get_structure_hook(TaskDefinition)


@contextmanager
def _collection_paused(size: int) -> Iterator[None]:
    paused = size > _LARGE and gc.isenabled()
    if paused:
        gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def loads_definition(text: str | bytes, *, source: str | None = None) -> JobDefinition:
    """Read a definition from JSON text.

    Raises `DefinitionError` with everything that can be found wrong without a server: first the text
    as such, then structure and cross-references together, each with line and column.
    """
    with _collection_paused(len(text)):
        content = read_text(text, source=source)
        value = parse_text(content, source=source)
        definition, faults = structure(value)
        if faults:
            raise DefinitionError(place(content, faults), source=source)
    if definition is None:
        raise AssertionError("no definition and no faults")
    return definition


def structure(value: Any) -> tuple[JobDefinition | None, list[Fault]]:
    """Make a definition of a JSON value; return it, or None and what is wrong."""
    if type(value) is not dict:
        return None, [Fault((), f"a definition is an object, not {describe(value)}")]
    faults: list[Fault] = []
    rest, comments = _without_comments(value, ("params", "bundles", "tasks"))
    task_items = rest.pop("tasks", {})
    rest.pop(SCHEMA_KEY, None)
    form = rest.pop("format", FORMAT)
    if type(form) is not int or form != FORMAT:
        faults.append(Fault(("format",), f"this is format {FORMAT}; {describe(form)} is not known here"))
    tasks = _structure_tasks(task_items, faults)
    job: JobDefinition | None = None
    try:
        job = _converter.structure(rest, JobDefinition)
    except Exception as error:  # noqa: BLE001 - a group of whatever the hooks raised; `faults_of` sorts it
        found = faults_of(error, (), RENAMES)
        faults += [_with_tasks_hint(fault) for fault in found]
        job = _partial(rest)
    if job is not None:
        job = attrs.evolve(job, tasks=tasks, comments=comments)
        faults += check_references(job)
    return (None if faults else job), faults


def _without_comments(
    value: Mapping[str, Any], keys: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the comments out of the objects under `keys`, so that nobody takes "//" for a name."""
    rest, comments = dict(value), {}
    for key in keys:
        inner = rest.get(key)
        if type(inner) is dict and COMMENT in inner:
            rest[key] = {name: item for name, item in inner.items() if name != COMMENT}
            comments[key] = inner[COMMENT]
    return rest, comments


def _with_tasks_hint(fault: Fault) -> Fault:
    # "tasks" is taken out before cattrs sees the object, so it cannot suggest it.
    if len(fault.path) == 1 and fault.message == "unknown key" and fault.suggestion is None:
        word = str(fault.path[0]).lower()
        if word in {"task", "jobs", "steps", "taks", "nodes"}:
            return attrs.evolve(fault, suggestion="tasks")
    return fault


def _partial(rest: Mapping[str, Any]) -> JobDefinition | None:
    """Keep what references need of a job with faults, so that those are reported together."""
    name, params = rest.get("name"), rest.get("params", {})
    if type(params) is not dict:
        return None
    return JobDefinition(name=name if type(name) is str else "_", params=params)


def _structure_tasks(value: Any, faults: list[Fault]) -> dict[str, TaskDefinition]:
    if type(value) is not dict:
        faults.append(
            Fault(("tasks",), f'must be an object {{"name": {{"task": ..}}}}, not {describe(value)}')
        )
        return {}
    tasks: dict[str, TaskDefinition] = {}
    for name, item in value.items():
        try:
            tasks[name] = _structure_task(item, _fast_task)
            continue
        except Exception:  # noqa: BLE001, S110 - read again by the slow converter, which says what is wrong
            pass
        try:
            tasks[name] = _structure_task(item, _detailed_task)
        except Exception as error:  # noqa: BLE001 - as above
            faults += faults_of(error, ("tasks", name), RENAMES)
            tasks[name] = _partial_task(item)
    return tasks


def _structure_task(item: Any, hook: Callable[[Any, Any], Any]) -> TaskDefinition:
    if type(item) is dict and any(
        type(item.get(key)) is dict and COMMENT in item[key] for key in ("args", "map")
    ):
        rest, comments = _without_comments(item, ("args", "map"))
        commented: TaskDefinition = hook(rest, TaskDefinition)
        return commented.evolve(comments=comments)
    task: TaskDefinition = hook(item, TaskDefinition)
    return task


def _partial_task(item: Any) -> TaskDefinition:
    after = item.get("depends_on", ()) if type(item) is dict else ()
    if type(after) is not list or any(type(name) is not str for name in after):
        after = ()
    return TaskDefinition(task="_", depends_on=after)


def load_definition(path: str | os.PathLike[str]) -> JobDefinition:
    """Read a definition file. Raises `DefinitionError`, `OSError`."""
    source = os.fspath(path)
    with FilePath(path).open("rb") as file:
        content = file.read(FILE_BYTES + 1)
    origin = FileOrigin(str(FilePath(path).absolute()), _digest(content))
    return attrs.evolve(loads_definition(content, source=source), origin=origin)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=20).digest()


def check_definition(definition: JobDefinition) -> list[Problem]:
    """Return everything wrong with a definition that was made in Python: what a file would be refused for."""
    try:
        value = json.loads(dumps_definition(definition))
    except (TypeError, ValueError) as exc:
        return [Problem("", f"it cannot be written as JSON: {exc}")]
    _, faults = structure(value)
    return unplaced(faults)


def to_value(definition: JobDefinition) -> dict[str, Any]:
    """Return the JSON value of a definition: key order kept, defaults omitted."""
    value: dict[str, Any] = {SCHEMA_KEY: SCHEMA_NAME, "format": FORMAT, "name": definition.name}
    value |= _plain(definition, skip=("name", "tasks", "origin", "params", "comments"))
    if definition.params:
        value["params"] = {
            name: _plain(item) if isinstance(item, Parameter) else item
            for name, item in definition.params.items()
        }
    value["tasks"] = {name: _task_value(task) for name, task in definition.tasks.items()}
    return _with_comments(value, definition.comments)


def _with_comments(value: dict[str, Any], comments: Mapping[str, Any]) -> dict[str, Any]:
    """Put comments back, first in their objects; in one order, so that equal definitions give equal text."""
    for key in sorted(comments):
        value[key] = {COMMENT: comments[key], **value.get(key, {})}
    return value


def _task_value(task: TaskDefinition) -> dict[str, Any]:
    value = _plain(task, skip=("retry", "comments"))
    if task.retry != _DEFAULT_RETRY:
        value["retry"] = _plain(task.retry)
    return _with_comments(value, task.comments)


_DEFAULT_RETRY = RetryPolicy()


def _plain(item: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in attrs.fields(type(item)):
        content = getattr(item, field.name)
        if field.name in skip or _is_default(field, content):
            continue
        key = str(RENAMES.get(field.name, field.name))
        found[key] = list(content) if isinstance(content, tuple) else content
    return found


def _is_default(field: attrs.Attribute[Any], content: Any) -> bool:
    factory = getattr(field.default, "factory", None)
    if factory is not None:
        return bool(content == factory())
    # By type too: False == 0, and `run_if: 0` must not be lost before it is refused.
    return type(content) is type(field.default) and bool(content == field.default)


def dumps_definition(definition: JobDefinition) -> str:
    """Return the JSON text of a definition. Raises `TypeError` and `ValueError` for what JSON lacks."""
    return json.dumps(to_value(definition), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
        origin.digest = _digest(content)

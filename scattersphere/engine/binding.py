"""The arguments of tasks meet the parameters of their classes: what each attempt gets, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._json import Path, RawProblem
from scattersphere._text import Suggester
from scattersphere.engine.plan import Argument, MadeBy, element_problems, no_results, value_problems
from scattersphere.logs.failures import describe
from scattersphere.model.references import Template, compile_argument
from scattersphere.model.taskclass import LOOP, TaskClass

if TYPE_CHECKING:
    from collections.abc import Container

    from scattersphere.model.taskclass import TaskParameter

_SHARED_TYPES = frozenset({bool, int, float, str, bytes, type(None)})
"""Values of these may be shared by all instances: nobody can change them."""
_EXACT = frozenset({bool, int, str})
"""A value of one of these is right, as it is, for a parameter annotated so."""
_BACKENDS = (LOOP, "thread")
"""Where tasks run that name no backend: async ones, and others."""
Varying = tuple[Argument, ...]
Mapped = tuple[tuple[str, Template], ...]


@attrs.frozen(eq=False)
class Known:
    """What all tasks of one class share."""

    task_class: TaskClass
    backend: str
    """Where they run that do not say it."""
    required: frozenset[str]
    exact: Mapping[str, type]
    """The parameters whose annotation is one of `_EXACT`."""
    made_by: MadeBy
    options: Mapping[str, Any]
    """What the class says of how its tasks want to be run."""
    shared: dict[tuple[str, str], Argument] = attrs.field(factory=dict)
    """Arguments that are a parameter of the run: (argument, parameter)."""

    @classmethod
    def of(cls, found: TaskClass) -> Known:
        """Look once at what is asked for each task."""
        required = frozenset(name for name, parameter in found.parameters.items() if parameter.required)
        exact = {
            name: parameter.annotation
            for name, parameter in found.parameters.items()
            if any(parameter.annotation is kind for kind in _EXACT)
        }
        code = found.bundle if found.version is None else str(found.version)
        options = getattr(found.cls, "__task_options__", None) or {}
        return cls(found, _BACKENDS[not found.is_async], required, exact, MadeBy(code, found.digest), options)


class Binder:
    """Binds the arguments of tasks, and collects the problems."""

    def __init__(self) -> None:
        self.problems: list[RawProblem] = []

    def bind(self, name: str, args: Mapping[str, Any], known: Known) -> tuple[Mapping[str, Any], Varying]:
        """Check the arguments of a task; return those that are fixed (`PlannedTask.fixed`), and those that vary."""
        fixed, varying, exact_of = args, Varying(), known.exact.get
        for key, value in args.items():
            kind = type(value)
            if exact_of(key) is kind:
                continue
            if kind is dict and len(value) == 1 and type(of := value.get("$param")) is str:
                argument = known.shared.get((key, of)) or self._share(name, key, of, known)
            elif (parameter := known.task_class.parameters.get(key)) is not None:
                argument, literal = self._bind_value(("tasks", name, "args", key), value, parameter)
                if argument is None:
                    fixed = {**fixed, key: literal}
            else:
                argument = None
                self._note_unknown(("tasks", name, "args", key), key, known.task_class)
            if argument is not None:
                varying = (*varying, argument)
        return fixed, varying

    def bind_map(self, name: str, lists: Mapping[str, Any], known: Known) -> Mapped:
        """Check what a task is mapped over."""
        mapped: list[tuple[str, Template]] = []
        for key, value in lists.items():
            place: Path = ("tasks", name, "map", key)
            parameter = known.task_class.parameters.get(key)
            template = compile_argument(value)
            mapped.append((key, template))
            if parameter is None:
                self._note_unknown(place, key, known.task_class)
            elif template.constant:
                self.problems += element_problems(place, parameter, template.fill({}, no_results))
        return tuple(mapped)

    def note_missing(self, name: str, known: Known, given: Container[str]) -> None:
        """Note each required argument that is not given."""
        path, parameters = known.task_class.path, known.task_class.parameters
        for key, parameter in parameters.items():
            if key in known.required and key not in given:
                words = f"{path} needs {key!r} ({parameter.type_name})"
                self.problems.append(RawProblem(("tasks", name, "args"), words))

    def _share(self, name: str, key: str, of: str, known: Known) -> Argument | None:
        parameter = known.task_class.parameters.get(key)
        if parameter is None:
            self._note_unknown(("tasks", name, "args", key), key, known.task_class)
            return None
        argument = known.shared[key, of] = Argument(key, compile_argument({"$param": of}), parameter)
        return argument

    def _bind_value(self, place: Path, value: Any, parameter: TaskParameter) -> tuple[Argument | None, Any]:
        """Check one argument. Return it if it is made for each attempt, else None and the value for all of them."""
        template = compile_argument(value)
        if not template.constant:
            return Argument(parameter.name, template, parameter), None
        literal = template.fill({}, no_results)
        if problems := parameter.check(literal):
            self.problems += value_problems(place, problems)
            return None, None
        try:
            structured = parameter.structure(literal)
        except BaseException as exc:  # noqa: BLE001 - a constructor of the user's may raise anything (promise 7)
            self.problems.append(
                RawProblem(place, f"no {parameter.type_name} can be made of it: {describe(exc)}")
            )
            return None, None
        if type(structured) in _SHARED_TYPES:
            return None, structured
        return Argument(parameter.name, template, parameter), None

    def _note_unknown(self, place: Path, key: str, task_class: TaskClass) -> None:
        near = Suggester(task_class.parameters).nearest(key)
        takes = ", ".join(task_class.parameters) or "no arguments"
        hint = "" if near else f"; it takes {takes}"
        self.problems.append(RawProblem(place, f"{task_class.path} takes no {key[:200]!r}{hint}", near))

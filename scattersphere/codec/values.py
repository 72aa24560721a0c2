"""JSON values and the annotations of task parameters: strict checking, then structuring.

One `Structurer` serves the classes of one bundle version and is dropped with it: a converter that is
shared by all would keep every class that it has seen alive.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, cast

import attrs

from scattersphere.codec.kinds import Faults, Kind, kind_of, type_name
from scattersphere.model.taskclass import TaskParameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.task import RunnableTask


class Structurer:
    """Makes the parameters of task classes: what is declared, what is right, how it is built."""

    def __init__(self) -> None:
        self._kinds: dict[Any, Kind] = {}

    def parameters(self, cls: type[RunnableTask]) -> dict[str, TaskParameter]:
        """Return the parameters of `cls` by name. Raises NameError where an annotation means nothing."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return {
            field.alias: self._parameter(field, hints.get(field.name, field.type))
            for field in attrs.fields(cast("Any", cls))
            if field.init
        }

    def _parameter(self, field: attrs.Attribute[Any], annotation: Any) -> TaskParameter:
        kind = self.kind(annotation)
        required = field.default is attrs.NOTHING
        return TaskParameter(
            name=field.alias or field.name,
            annotation=annotation,
            type_name=type_name(annotation),
            required=required,
            default=None if required else _default(field),
            has_json=kind.has_json,
            check=_checker(kind),
            structure=kind.build,
        )

    def _later(self, annotation: Any) -> Kind:
        def check(value: Any, pointer: str, faults: Faults) -> None:
            self._kinds[annotation].check(value, pointer, faults)

        def build(value: Any) -> Any:
            return self._kinds[annotation].build(value)

        return Kind(check, build)

    def kind(self, annotation: Any) -> Kind:
        """Return how values of an annotation are checked and built; looked up once for each."""
        try:
            known = self._kinds.get(annotation)
        except TypeError:  # an annotation that cannot be hashed, such as Annotated[int, []]
            return kind_of(annotation, self.kind)
        if known is None:
            # An alias may contain itself (`type Json = dict[str, Json]`): inside, it is looked up when used.
            self._kinds[annotation] = self._later(annotation)
            try:
                known = kind_of(annotation, self.kind)
            except BaseException:
                del self._kinds[annotation]
                raise
            self._kinds[annotation] = known
        return known


def make_structurer() -> Structurer:
    """Return a structurer for one version."""
    return Structurer()


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    factory = getattr(default, "factory", None)
    if factory is None:
        return default
    return None if default.takes_self else factory()


def _checker(kind: Kind) -> Callable[[Any], list[tuple[str, str]]]:
    def check(value: Any) -> list[tuple[str, str]]:
        faults: list[tuple[str, str]] = []
        kind.check(value, "", faults)
        return faults

    return check

"""Declarations of task classes: which attributes become parameters, which are state, which are refused.

Annotated public attributes are parameters, those of mixins and Protocols too; a leading underscore means state of the
attempt. No default is shared between attempts.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import inspect
import re
import sys
import types
import typing
from typing import Any, ClassVar, Final

import attrs

from scattersphere.errors import TaskDeclarationError

HOOKS = frozenset({"run", "clean_up", "on_exception", "on_finished", "on_status_change"})
"""Names that a parameter may not have."""
_DECLARED = "__task_fields__"
"""Where a task class keeps its fields, so that a decorator that replaces them is noticed."""
_NO_MIXINS = frozenset({object, abc.ABC, typing.Generic, typing.Protocol})
_ATOMIC = (bool, int, float, complex, str, bytes, types.NoneType)
_VALUES = (bool, int, float, complex, str, bytes, list, dict, set, frozenset, tuple)
_PLAIN = (*_VALUES, dataclasses.Field)
"""Of these an attribute without an annotation was probably meant to be a parameter."""
_NEVER_CALLED = {
    "__init__": "declare parameters as annotated attributes instead",
    "__post_init__": "it would never be called: a task has __attrs_post_init__",
}
_TAKEN = {"self": "self", **dict.fromkeys(HOOKS, "like a hook")}
_PREFIX = re.compile(r"[\w.]+")


def declare(cls: type, root: type) -> None:
    """Make an attrs class of a subclass of `root`. Raises `TaskDeclarationError`."""
    if "__slots__" in cls.__dict__ and "__attrs_attrs__" in cls.__dict__:
        raise _refuse(cls, "", "a task is an attrs class already: leave @attrs.define out")
    mixins = _mixins(cls, root)
    for base in mixins:
        _check_mixin(cls, base)
    annotations = dict(inspect.get_annotations(cls))
    _check_own(cls, annotations)
    _check_unannotated(cls, annotations, _parameters_of_bases(cls))
    for base in reversed(mixins):
        _adopt(cls, base, annotations)
    cls.__annotations__ = annotations
    try:
        # slots=False: a slotted twin would leave the first class behind in __subclasses__.
        # eq=False: instances are compared by identity and stay hashable.
        attrs.define(
            cls, slots=False, kw_only=True, eq=False, auto_attribs=True, field_transformer=_shape_fields
        )
    except attrs.exceptions.UnannotatedAttributeError as error:
        raise _refuse(cls, "", f"annotate what is a parameter: {error}") from None
    for field in attrs.fields(cls):
        if _is_property(inspect.getattr_static(cls, field.name, None)):
            raise _refuse(
                cls, field.name, "a base has a property of that name, which no value could be given to"
            )
    setattr(cls, _DECLARED, cls.__dict__["__attrs_attrs__"])


def check_declared(cls: type) -> None:
    """Raise `TaskDeclarationError` for a class that a decorator has changed since it was declared."""
    if "__dataclass_fields__" in cls.__dict__:
        raise _refuse(cls, "", "a task is a class with fields already: leave @dataclass out")
    if cls.__dict__.get(_DECLARED) is not cls.__dict__.get("__attrs_attrs__"):
        raise _refuse(cls, "", "a task is an attrs class already: leave @attrs.define out")


def _refuse(cls: type, name: str, why: str) -> TaskDeclarationError:
    return TaskDeclarationError(f"{cls.__qualname__}{'.' if name else ''}{name}: {why}")


# ---- the class itself


def _check_own(cls: type, annotations: dict[str, object]) -> None:
    """Refuse what would change its meaning in silence, and make ClassVars plain to attrs."""
    for name, why in _NEVER_CALLED.items():
        if name in cls.__dict__:
            raise _refuse(cls, name, why)
    for name, annotation in annotations.items():
        if name in _TAKEN:
            raise _refuse(cls, name, f"a parameter may not be called {_TAKEN[name]}")
        form = _special_form(annotation, cls.__module__)
        if form is ClassVar:
            annotations[name] = ClassVar[Any]  # whatever it was called where it was written
        elif words := _odd_field(name, form, cls.__dict__.get(name)):
            raise _refuse(cls, name, words)


def _check_unannotated(cls: type, annotations: dict[str, object], inherited: dict[str, str]) -> None:
    """Refuse what was probably meant to be a parameter, and what would hide one."""
    for name, value in list(cls.__dict__.items()):
        if name.startswith("_") or name in annotations or name in HOOKS:
            continue
        if isinstance(value, _PLAIN):
            kind = ".." if isinstance(value, dataclasses.Field) else type(value).__name__
            words = f"annotate it to make it a parameter: {name}: {kind} = ..."
            raise _refuse(cls, name, f"{words}, or a constant: {name}: ClassVar[{kind}] = ...")
        if name in inherited:
            raise _refuse(
                cls, name, f"it is a parameter of {inherited[name]}, and cannot be something else here"
            )


def _odd_field(name: str, form: object, value: object) -> str | None:
    if form is Final and not name.startswith("_"):
        shown = f"{value!r}"[:40]
        return (
            "a Final attribute may be a constant or a parameter: write "
            f'"{name}: ClassVar[..] = {shown}" for a constant, leave Final out for a parameter'
        )
    if form is dataclasses.InitVar:
        return "a task has no InitVar: take it as a parameter"
    if isinstance(value, dataclasses.Field):
        return f"write {name}: .. = attrs.field(..), not dataclasses.field(..)"
    if _is_property(value):
        return "it cannot be a parameter and a property: leave the annotation out, or the property"
    return None


def _is_property(value: object) -> bool:
    """Whether something in a class decides itself what is set at an instance; what `__slots__` makes does not."""
    return hasattr(type(value), "__set__") and not isinstance(value, types.MemberDescriptorType)


def _parameters_of_bases(cls: type) -> dict[str, str]:
    """Return the parameters that a class inherits from attrs classes, each with the class that has it."""
    found: dict[str, str] = {}
    for base in cls.__mro__[1:]:
        for field in base.__dict__.get("__attrs_attrs__", ()):
            if field.init:
                found.setdefault(field.name, base.__qualname__)
    return found


def _special_form(annotation: object, module: str) -> object:
    """Return ClassVar, Final, InitVar if that is what an annotation is, whatever it is called there."""
    while True:
        if isinstance(annotation, dataclasses.InitVar):
            return dataclasses.InitVar
        if not isinstance(annotation, str):
            origin = typing.get_origin(annotation)
            if origin is not typing.Annotated:
                return origin or annotation
            annotation = typing.get_args(annotation)[0]
            continue
        # With postponed annotations only the text is there; what its first name means tells enough.
        match = _PREFIX.match(annotation.strip())
        found = _named(match.group(), module) if match else None
        if found is not typing.Annotated:
            return found
        annotation = annotation[annotation.index("[") + 1 :]


def _named(name: str, module: str) -> object:
    """Return what a dotted name means in a module, or None."""
    first, *rest = name.split(".")
    found = vars(sys.modules[module]).get(first) if module in sys.modules else None
    if found is None and not rest:
        found = {"ClassVar": ClassVar, "Final": Final}.get(first)  # imported for type checkers only
    for step in rest:
        found = getattr(found, step, {"ClassVar": ClassVar, "Final": Final}.get(step))
    return found


# ---- what comes from elsewhere


def _mixins(cls: type, root: type) -> list[type]:
    """Return the bases of a class that are no tasks, and of no task class before it; the nearest first."""
    known = {object, *root.__mro__}
    for parent in cls.__bases__:
        if root in parent.__mro__:
            known.update(parent.__mro__)  # it has dealt with its own
    return [base for base in cls.__mro__[1:] if base not in _NO_MIXINS and base not in known]


def _check_mixin(cls: type, base: type) -> None:
    named = f"its base {base.__qualname__}"
    frozen = getattr(base.__dict__.get("__dataclass_params__"), "frozen", False)
    if frozen or getattr(base.__dict__.get("__setattr__"), "__name__", "") == "_frozen_setattrs":
        raise _refuse(cls, "", f"{named} is frozen: no attempt could keep any state")
    if issubclass(base, _VALUES):
        raise _refuse(cls, "", f"{named} is a value of its own; take one as a parameter instead")
    if "__pydantic_fields__" in base.__dict__:
        raise _refuse(cls, "", f"{named} is a pydantic model; take one as a parameter instead")
    if "__post_init__" in base.__dict__:
        raise _refuse(cls, "", f"{named} has a __post_init__ that would never be called")
    if _has_own_init(base):
        words = "which would never be called; declare what it sets as annotated attributes"
        raise _refuse(cls, "", f"{named} has an __init__, {words}")


def _has_own_init(base: type) -> bool:
    """Whether a class has an `__init__` that somebody wrote."""
    init = base.__dict__.get("__init__")
    if not isinstance(init, types.FunctionType) or _is_protocol(base):
        return False
    if "__attrs_attrs__" in base.__dict__:
        return not init.__code__.co_filename.startswith("<attrs generated")
    made = base.__dict__.get("__dataclass_params__")
    return made is None or not made.init


def _is_protocol(base: type) -> bool:
    return bool(base.__dict__.get("_is_protocol", False))


def _adopt(cls: type, base: type, annotations: dict[str, object]) -> None:
    """Take the annotated attributes of a mixin as if they stood in the class."""
    if "__attrs_attrs__" in base.__dict__:
        return  # attrs does it
    own = inspect.get_annotations(base)
    try:
        hints = typing.get_type_hints(base, include_extras=True)
    except (NameError, TypeError):
        hints = own
    fields = base.__dict__.get("__dataclass_fields__", {})
    for name, annotation in own.items():
        form = _special_form(annotation, base.__module__)
        if name in annotations or name in cls.__dict__ or name in HOOKS or form in (ClassVar, Final):
            continue
        value = base.__dict__.get(name, attrs.NOTHING)
        if words := _odd_field(name, form, value):
            raise _refuse(cls, name, f"in its base {base.__qualname__}: {words}")
        annotations[name] = hints.get(name, annotation)
        if name in fields:
            setattr(cls, name, _like(fields[name]))
        elif value is not attrs.NOTHING and not isinstance(value, types.MemberDescriptorType):
            setattr(cls, name, value)


def _like(field: dataclasses.Field[object]) -> object:
    """Return what says to attrs what a field of a dataclass says."""
    if field.default_factory is not dataclasses.MISSING:
        return attrs.field(init=field.init, factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        return attrs.field(init=field.init, default=field.default)
    return attrs.field(init=field.init)


# ---- fields


def _shape_fields(cls: type, fields: list[attrs.Attribute[object]]) -> list[attrs.Attribute[object]]:
    """Make state of `_name`, and a copy of its own for each attempt of every default that could be shared."""
    return [
        field.evolve(
            init=field.init and not field.name.startswith("_"),
            default=_unshared(cls, field.name, field.default),
        )
        for field in fields
    ]


def _unshared(cls: type, name: str, default: object) -> object:
    if default is attrs.NOTHING or isinstance(default, (*_ATOMIC, attrs.Factory)):  # type: ignore[arg-type]
        return default
    try:
        copied = copy.deepcopy(default)
    except Exception as error:  # noqa: BLE001 - a user's object may raise anything
        words = f"{type(default).__name__} cannot be copied for each attempt ({error})"
        raise _refuse(cls, name, f"its default {words}: write attrs.field(factory=..)") from None
    return default if copied is default else attrs.Factory(lambda: copy.deepcopy(default))

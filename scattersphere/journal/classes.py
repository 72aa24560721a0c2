"""Classes whose objects a journal keeps: their names there, and what their objects are made of."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from functools import reduce
from typing import TYPE_CHECKING, Protocol

import attrs

from scattersphere.registry import pickling
from scattersphere.registry.modules.namespace import FINDER, PARENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scattersphere.registry.modules.namespace import ModuleNamespace
    from scattersphere.registry.pickling import FindNamespace
    from scattersphere.registry.records import BundleVersion


class UnkeptError(Exception):
    """A value has no exact form; the message says which part of it."""


class ClassNames(Protocol):
    """Names of classes that mean the same after a restart."""

    def name_of(self, cls: type) -> str | None:
        """Return the name under which `class_of` finds a class again; None where there is none."""
        ...

    def class_of(self, name: str) -> type:
        """Return the class of a name. Raises `LookupError`."""
        ...

    def dumps(self, value: object) -> bytes:
        """Pickle a value."""
        ...

    def loads(self, data: bytes) -> object:
        """Return what `dumps` was given."""
        ...


class Classes:
    """Names classes `bundle:module:qualified name`, those of the host without the bundle.

    `find_namespace` says in which version of a bundle they are looked up, as for `registry.pickling`.
    """

    def __init__(self, find_namespace: FindNamespace) -> None:
        self._find_namespace = find_namespace

    def name_of(self, cls: type) -> str | None:
        """Return the name under which `class_of` finds a class again; None where there is none."""
        module, qualname = cls.__module__, cls.__qualname__
        if _resolved(sys.modules.get(module), qualname) is not cls:
            return None  # made inside a function, or of a version that was released
        if not module.startswith(f"{PARENT}."):
            return f":{module}:{qualname}"
        slug, _, logical = module.removeprefix(f"{PARENT}.").partition(".")
        namespace = FINDER.namespace(slug)
        return None if namespace is None else f"{namespace.bundle}:{logical}:{qualname}"

    def class_of(self, name: str) -> type:
        """Return the class of a name. Raises `LookupError`."""
        bundle, module, qualname = name.split(":", 2)
        try:
            holder = (
                self._find_namespace(bundle).module(module) if bundle else importlib.import_module(module)
            )
        except ImportError as error:
            raise LookupError(f"there is no module {module} with the class {qualname}: {error}") from None
        found = _resolved(holder, qualname)
        if isinstance(found, type):
            return found
        raise LookupError(f"the module {module} has no class {qualname}")

    def dumps(self, value: object) -> bytes:
        """Pickle a value, classes of bundles by their logical names."""
        return pickling.dumps(value)

    def loads(self, data: bytes) -> object:
        """Return what `dumps` was given."""
        return pickling.loads(data, self._find_namespace)


def _resolved(module: object, qualname: str) -> object:
    try:
        return reduce(getattr, qualname.split("."), module)
    except AttributeError:
        return None


def classes_of(versions: Iterable[BundleVersion]) -> Classes:
    """Return the classes that a run has."""
    namespaces = {version.bundle: version.namespace for version in versions}

    def find(bundle: str) -> ModuleNamespace:
        namespace = namespaces.get(bundle)
        if namespace is None:
            raise LookupError(f"the run has no code of the bundle {bundle!r}")
        return namespace

    return Classes(find)


# ---- what objects of attrs classes and dataclasses are made of


def is_data_class(cls: type) -> bool:
    """Whether objects of a class are their fields: attrs classes and dataclasses that derive from no built-in type."""
    if not (attrs.has(cls) or dataclasses.is_dataclass(cls)):
        return False
    pure = all(base is object or base.__flags__ & _HEAP_TYPE for base in cls.__mro__)
    return pure and all(
        getattr(cls, name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__")
    )


_CACHED_HASH = "_attrs_cached_hash"
_HEAP_TYPE = 1 << 9
"""Of `type.__flags__`: made by a `class` statement."""


def fields_of(cls: type) -> tuple[str, ...]:
    """Return the names of the fields of such a class."""
    if attrs.has(cls):
        return tuple(field.name for field in attrs.fields(cls))
    return tuple(field.name for field in dataclasses.fields(cls))


def is_frozen(cls: type) -> bool:
    """Whether objects of a class cannot be changed, so that two that are equal are as good as one."""
    made = vars(cls).get("__dataclass_params__")
    if made is not None:
        return bool(made.frozen)
    return cls.__setattr__.__name__ == "_frozen_setattrs"  # attrs says it in no other way


def _slots_of(cls: type) -> Iterator[tuple[str, types.MemberDescriptorType]]:
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if type(member) is types.MemberDescriptorType:
                yield name, member


def state_of(value: object) -> dict[str, object]:
    """Return all attributes of an object, read past whatever its class does to reading."""
    try:
        state = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        state = {}
    for name, member in _slots_of(type(value)):
        if name in state:
            raise UnkeptError(f"the class {type(value).__qualname__} has two attributes {name!r}")
        try:
            state[name] = member.__get__(value)
        except AttributeError:
            continue
    if not all(type(name) is str for name in state):
        raise UnkeptError(f"an object of the class {type(value).__qualname__} has odd attributes")
    if _CACHED_HASH in state:
        state[_CACHED_HASH] = None  # of strings, it is another one in every process
    return state


def made_of(cls: type, name: str, state: dict[str, object]) -> object:
    """Return an object of a class, which bears a name, with attributes that `state_of` gave. Raises `LookupError`."""
    made: object = object.__new__(cls)
    for slot, member in _slots_of(cls):
        if slot in state:
            member.__set__(made, state.pop(slot))
    if state:
        try:
            object.__getattribute__(made, "__dict__").update(state)
        except AttributeError:
            raise LookupError(f"{name} has no attributes {', '.join(sorted(state))} any more") from None
    return made

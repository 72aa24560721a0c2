"""Pickles that outlive a version: what is stored, or sent to a process that has loaded the bundle itself.

Plain pickle names a class of a bundle by its module, `scattersphere.bundles.etl_g7.etl.load`; that name means
something only while the version lives. Here a class or function is written as bundle, logical module and
qualified name, and found again in whatever version the reader has. The objects' own state is as pickle has it.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
import types
from functools import reduce
from typing import TYPE_CHECKING, Any

from scattersphere.registry.modules.namespace import FINDER, PARENT, ModuleNamespace

if TYPE_CHECKING:
    from collections.abc import Callable

    FindNamespace = Callable[[str], ModuleNamespace]


def dumps(value: object) -> bytes:
    """Pickle `value`; raises what pickle raises."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def loads(data: bytes, find_namespace: FindNamespace) -> object:
    """Return what `dumps` was given. `find_namespace` says in which version of a bundle classes are looked up.

    As with every pickle, data of strangers must not come here. Raises UnpicklingError if the version
    lacks a class, and what `find_namespace` raises.
    """
    return _Unpickler(io.BytesIO(data), find_namespace).load()


def from_bundle(bundle: str, module: str, name: str) -> object:
    """Stand for a class or function of a bundle in a pickle. Only `loads` knows where to find it."""
    raise pickle.UnpicklingError(
        f"{module}.{name} of bundle {bundle!r} was pickled by scattersphere: read it with registry.loads"
    )


class _Pickler(pickle.Pickler):
    """Writes classes and functions of bundles by their logical names."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, type | types.FunctionType) or not value.__module__.startswith(f"{PARENT}."):
            return NotImplemented
        slug, _, module = value.__module__.removeprefix(f"{PARENT}.").partition(".")
        namespace = FINDER.namespace(slug)
        if namespace is None or _resolved(value.__module__, value.__qualname__) is not value:
            return NotImplemented  # pickle says what is wrong: released, or made inside a function
        return from_bundle, (namespace.bundle, module, value.__qualname__)


class _Unpickler(pickle.Unpickler):
    """Looks names of bundles up in the versions that it is told of."""

    def __init__(self, stream: io.BytesIO, find_namespace: FindNamespace) -> None:
        super().__init__(stream)
        self._find_namespace = find_namespace

    def find_class(self, module: str, name: str) -> object:
        if module == __name__ and name == from_bundle.__name__:
            return self._from_bundle
        return super().find_class(module, name)

    def _from_bundle(self, bundle: str, module: str, name: str) -> object:
        namespace = self._find_namespace(bundle)
        try:
            return reduce(getattr, name.split("."), namespace.module(module))
        except (ImportError, AttributeError):
            raise pickle.UnpicklingError(
                f"bundle {bundle!r} ({namespace.slug}) has no {module}.{name}, which the pickle names"
            ) from None


def _resolved(module: str, qualname: str) -> object:
    try:
        found = sys.modules.get(module) or importlib.import_module(module)
        return reduce(getattr, qualname.split("."), found)
    except (ImportError, AttributeError):
        return None

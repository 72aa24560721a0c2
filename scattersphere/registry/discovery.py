"""Finding the task classes of a bundle version.

Modules are walked, not `__subclasses__()`, which sees other versions, and not `__init_subclass__`,
which sees the discarded twin of a slotted class.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

from scattersphere.task import RunnableTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType


def task_classes(module: ModuleType, logical: str) -> Iterator[tuple[str, type[RunnableTask]]]:
    """Yield (task path, class) for each concrete task class that `module` itself defines."""
    for cls in _classes(vars(module), module.__name__, ""):
        if _is_task(cls) and not inspect.isabstract(cls):
            yield f"{logical}.{cls.__qualname__}", cls


def _is_task(cls: type) -> bool:
    """Do what `issubclass` does, without the search through all other task classes that an ABC makes."""
    return RunnableTask in cls.__mro__


def _classes(namespace: Mapping[str, object], module: str, outer: str) -> Iterator[type]:
    """Walk the classes of a namespace by qualified name: aliases and imported classes are left out."""
    for name, value in list(namespace.items()):
        if not isinstance(value, type) or value.__module__ != module:
            continue
        if value.__qualname__ == f"{outer}{name}":
            yield value
            yield from _classes(vars(value), module, f"{value.__qualname__}.")


def task_base_names(modules: Iterable[ModuleType]) -> frozenset[str]:
    """Return the names of all task classes, abstract ones too, that these modules define."""
    found = {"RunnableTask"}
    for module in modules:
        for cls in _classes(vars(module), module.__name__, ""):
            if _is_task(cls):
                found.add(cls.__name__)
    return frozenset(found)


def defines_task(source: bytes, bases: frozenset[str]) -> bool:
    """Whether a module that could not be imported defines a class that derives from one of `bases`.

    Told from the text: the last part of a base's name counts, and `import X as Y` is followed.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return True  # it cannot be told, so it is taken seriously
    known = set(bases)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            known.update(alias.asname for alias in node.names if alias.asname and alias.name in bases)
    return any(
        isinstance(node, ast.ClassDef) and any(_last_name(base) in known for base in node.bases)
        for node in ast.walk(tree)
    )


def _last_name(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):  # Base[int]
        return _last_name(base.value)
    if isinstance(base, ast.Attribute):
        return base.attr
    return base.id if isinstance(base, ast.Name) else ""

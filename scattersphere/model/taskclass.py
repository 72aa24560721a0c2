"""TaskClass: what the registry knows of a task class, and the rest of the engine needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from scattersphere.runnable import RunnableTask


@attrs.frozen(kw_only=True)
class TaskParameter:
    """A parameter of a task class.

    `check` returns what is wrong with a JSON value, as a list of (RFC 6901 pointer inside the
    value, plain words); `structure` makes the Python value of one that is right. Both are strict:
    no coercion beyond what section 4 of the design names.
    """

    name: str
    annotation: Any
    type_name: str
    required: bool
    default: Any = None
    has_json: bool = True
    check: Callable[[Any], list[tuple[str, str]]] = attrs.field(eq=False, repr=False)
    structure: Callable[[Any], Any] = attrs.field(eq=False, repr=False)


WhyNotKept = Callable[[type], str | None]
"""Says why no journal keeps the results of a task class; None: it does, or that cannot be told."""

LOOP = "loop"
"""The name of the event loop itself among the places where tasks run."""


@attrs.frozen(kw_only=True, eq=False)
class TaskClass:
    """A concrete `RunnableTask` subclass of one bundle version."""

    path: str
    bundle: str
    cls: type[RunnableTask]
    parameters: Mapping[str, TaskParameter]
    summary: str
    is_async: bool
    hooks: frozenset[str]
    digest: str
    unkept: str | None = None
    """Why a journal cannot keep its results, where there is one and the annotation of `run` tells."""
    version: Any = attrs.field(default=None, repr=False)
    """The `BundleVersion` it comes from; None for a class of the host."""

    def __repr__(self) -> str:
        needs = ", ".join(parameter.name for parameter in self.parameters.values() if parameter.required)
        return f"<TaskClass {self.full_path}({needs})>"

    @property
    def is_freed(self) -> bool:
        """Whether its code goes with its version: that of a bundle's files does, that of the host does not."""
        return getattr(self.version, "namespace", None) is not None

    @property
    def full_path(self) -> str:
        """`bundle:path`, which is never ambiguous."""
        return f"{self.bundle}:{self.path}"

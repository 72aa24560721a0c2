"""What a task class says of itself: its parameters, its summary, its kind."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from scattersphere.codec.values import Structurer, make_structurer
from scattersphere.errors import BundleLoadError
from scattersphere.model.taskclass import TaskClass
from scattersphere.task import is_async, overridden_hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.model.taskclass import TaskParameter
    from scattersphere.task import RunnableTask

__all__ = ["Structurer", "describe", "make_structurer", "task_class"]


def describe(cls: type[RunnableTask], structurer: Structurer) -> Mapping[str, TaskParameter]:
    """Return the parameters of `cls`; BundleLoadError names the class whose annotations mean nothing."""
    try:
        return structurer.parameters(cls)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise BundleLoadError(f"{cls.__qualname__}: its annotations cannot be resolved: {error}") from None


def task_class(
    cls: type[RunnableTask], *, path: str, bundle: str, digest: str, version: object, structurer: Structurer
) -> TaskClass:
    """Return all that the engine needs to know of `cls`."""
    document = inspect.getdoc(cls) if cls.__doc__ else None
    return TaskClass(
        path=path,
        bundle=bundle,
        cls=cls,
        parameters=describe(cls, structurer),
        summary=document.partition("\n")[0] if document else "",
        is_async=is_async(cls),
        hooks=overridden_hooks(cls),
        digest=digest,
        version=version,
    )

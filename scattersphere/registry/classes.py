"""Classes of the host as a bundle, and the arguments that a host may get wrong."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere._declarations import check_declared
from scattersphere.definitions.annotations import Structurer, make_structurer
from scattersphere.errors import BundleLoadError, BundleRefusedError, ConflictError, TaskDeclarationError
from scattersphere.model.builder import no_task_yet
from scattersphere.model.taskclass import TaskClass
from scattersphere.registry.loader import LoadAbandonedError
from scattersphere.registry.records import BundleVersion
from scattersphere.runnable import RunnableTask, is_async, overridden_hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.model.taskclass import TaskParameter, WhyNotKept


__all__ = ["Structurer", "describe", "make_structurer", "task_class"]


def describe(cls: type[RunnableTask], structurer: Structurer) -> Mapping[str, TaskParameter]:
    """Return the parameters of `cls`; BundleLoadError names the class whose annotations mean nothing."""
    check_declared(cls)
    try:
        return structurer.parameters(cls)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise BundleLoadError(f"{cls.__qualname__}: its annotations cannot be resolved: {error}") from None


def task_class(
    cls: type[RunnableTask],
    *,
    path: str,
    bundle: str,
    digest: str,
    version: object,
    structurer: Structurer,
    why_not_kept: WhyNotKept | None,
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
        unkept=None if why_not_kept is None else _judged(cls, why_not_kept),
        version=version,
    )


def _judged(cls: type[RunnableTask], why_not_kept: WhyNotKept) -> str | None:
    """Judge results once, where code is loaded: annotations are code of the author's, slow perhaps, or wrong."""
    try:
        return why_not_kept(cls)
    except BaseException as error:
        is_ours = threading.current_thread() is threading.main_thread()
        if isinstance(error, LoadAbandonedError) or (isinstance(error, KeyboardInterrupt) and is_ours):
            raise  # the load was given up; or somebody has pressed Ctrl-C
        return None


def host_version(
    name: str, classes: object, number: int, why_not_kept: WhyNotKept | None = None
) -> BundleVersion:
    """Return a version that offers `classes`, each under its qualified name.

    Raises TaskDeclarationError for what is no concrete task class, ConflictError for two of one name.
    """
    version = BundleVersion(bundle=name, digest="", number=number)
    structurer = make_structurer()
    found: dict[str, TaskClass] = {}
    for cls in _task_classes(classes):
        path = cls.__qualname__
        if path in found and found[path].cls is not cls:
            raise ConflictError(f"bundle {name!r}: two classes are called {path!r}")
        found[path] = task_class(
            cls,
            path=path,
            bundle=name,
            digest="",
            version=version,
            structurer=structurer,
            why_not_kept=why_not_kept,
        )
    version.tasks = found
    return version


def _task_classes(classes: object) -> list[type[RunnableTask]]:
    if isinstance(classes, type):
        raise TaskDeclarationError(f"register_tasks: put the class in a list: [{classes.__name__}]")
    if inspect.isroutine(classes):
        raise TaskDeclarationError(f"register_tasks: {no_task_yet(classes)}, and put it in a list")
    if not isinstance(classes, Iterable) or isinstance(classes, str | bytes):
        raise TaskDeclarationError(f"register_tasks: a list of task classes, not {_shown(classes)}")
    return [_concrete(cls) for cls in classes]


def _concrete(cls: object) -> type[RunnableTask]:
    if inspect.isroutine(cls):
        raise TaskDeclarationError(f"register_tasks: {no_task_yet(cls)}")
    if not isinstance(cls, type):
        made = f"; pass the class {type(cls).__name__} itself" if isinstance(cls, RunnableTask) else ""
        raise TaskDeclarationError(f"register_tasks: {_shown(cls)} is no class{made}")
    if not issubclass(cls, RunnableTask):
        raise TaskDeclarationError(
            f"register_tasks: {cls.__qualname__} is no task class: derive it from RunnableTask"
        )
    if inspect.isabstract(cls):
        lacks = ", ".join(f"`{name}`" for name in sorted(getattr(cls, "__abstractmethods__", ())))
        words = f"{cls.__qualname__} is abstract: it has no {lacks or '`run`'} method"
        raise TaskDeclarationError(f"register_tasks: {words}")
    return cls


def origin(path: object) -> tuple[Path, str]:
    """Return the path as given, made absolute (links kept: they may be swapped), and the real one.

    TypeError for what is no path at all.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"the path of a bundle is a str or an os.PathLike, not {_shown(path)}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise BundleRefusedError(f"{text!r} is no path of a bundle")
    absolute = os.path.abspath(text)  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links
    return Path(absolute), os.path.realpath(absolute)


def _shown(thing: object) -> str:
    if isinstance(thing, int | str | bytes | None):
        return f"{type(thing).__name__} ({repr(thing)[:60]})"
    return f"an object of the class {type(thing).__name__}"

"""The parent package of all loaded bundle versions; nothing else lives here.

A version of the bundle `etl` is the package `scattersphere.bundles.etl_g7`. Its modules are real entries of
`sys.modules`, so that pickle, dataclasses and `typing.get_type_hints` find what they look up there. In
the process that loaded it the registry has put a finder for such names in place. A child process that
unpickles an object of a bundle comes here first; it then needs the finder too.
"""

from __future__ import annotations

import importlib
import os
import sys


def _is_child_process() -> bool:
    """Whether this process was started by one that may hold loaded versions."""
    if "SCATTERSPHERE_STORE" in os.environ or "anyio.to_process" in sys.orig_argv:
        return True
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # While a spawned child unpickles what it shall do, it does not know its parent yet, but has this mark.
    return process.parent_process() is not None or hasattr(process.current_process(), "_inheriting")


def _attach() -> None:
    # By name: this package stands above the registry and may know nothing of it, except here.
    children = importlib.import_module("scattersphere.registry.modules.children")
    if hasattr(children, "attach"):  # else its import has led here, and it attaches at its end
        children.attach()


def _after_fork() -> None:
    """In a child of a fork server that had imported this package, before it knew what its children are for."""
    if "multiprocessing.forkserver" in sys.modules:
        _attach()


attaches: bool = _is_child_process()

if attaches:
    _attach()
elif hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

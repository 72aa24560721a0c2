"""Loaded versions in a child process: the modules are imported again from the parent's snapshots.

A worker of ours finds the stores through an environment variable that only it gets. A child that a task
made with `multiprocessing` finds them by the process ids of those that it descends from: with `spawn` its
parent, with `forkserver` the parent of its parent, and a child of a child has yet another one in between.
"""

from __future__ import annotations

import os
import subprocess
import sys
from json import loads  # taken now: code that ran here before may have put another into its place
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.registry.modules.code_cache import CodeCache
from scattersphere.registry.modules.namespace import DESCRIPTION, FINDER, ModuleNamespace
from scattersphere.registry.snapshots.store import STORE_VARIABLE, stores_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 16
"""Generations of processes that are asked for their stores."""

_code = CodeCache()


def attach() -> None:
    """Let this process import the versions that its parent loaded."""
    FINDER.attach = _fetch
    FINDER.number_apart()
    FINDER.install()


def _fetch(slug: str) -> ModuleNamespace | None:
    for store in _stores():
        try:
            content: dict[str, object] = loads((store / slug / DESCRIPTION).read_text(encoding="utf-8"))
        except OSError:
            continue
        return ModuleNamespace.described(content, _code)
    return None


def _stores() -> Iterator[Path]:
    yield from (Path(store) for store in os.environ.get(STORE_VARIABLE, "").split(os.pathsep) if store)
    for process in ancestors():
        yield from stores_of(process)


def ancestors() -> Iterator[int]:
    """Yield the ids of the processes that this one descends from, its parent first."""
    process = os.getppid()
    for _ in range(DEEPEST):
        if process <= 1:
            return
        yield process
        process = _parent_of(process)


def _parent_of(process: int) -> int:
    """Return the parent's id of another process, 0 if it cannot be told."""
    try:
        # The fields after the name, which stands in parentheses and may hold anything (proc(5)).
        return int(Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:  # macOS has no /proc
        shown = subprocess.run(  # noqa: S603 - a number is all that varies
            ["ps", "-o", "ppid=", "-p", str(process)],  # noqa: S607 - it stands elsewhere on each system
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        return int(shown.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


if getattr(sys.modules.get("scattersphere.bundles"), "attaches", False):
    attach()

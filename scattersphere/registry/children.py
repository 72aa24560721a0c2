"""Loaded versions in a child process: the modules are imported again from the parent's snapshots.

A worker of ours finds the stores through an environment variable that only it gets. A child that a task
made with `multiprocessing` and `spawn` finds them by the process id of its parent. (With `forkserver` the
parent is another process, which knows nothing; such children cannot import versions.)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scattersphere.registry.codecache import CodeCache
from scattersphere.registry.imports import FINDER, VersionSpace
from scattersphere.registry.layout import ModuleFile
from scattersphere.registry.store import STORE_VARIABLE, stores_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIPTION = "version.json"

_code = CodeCache()


def describe_for_children(space: VersionSpace, file: Path) -> None:
    """Write what a child needs to import modules of `space`."""
    content = {
        "bundle": space.bundle,
        "folder": str(space.folder),
        "shown_as": space.shown_as,
        "own": sorted(space.own),
        "modules": {name: [module.file, module.folder] for name, module in space.modules.items()},
        "digests": {name: digest.hex() for name, digest in space.digests.items()},
    }
    file.write_text(json.dumps(content), encoding="utf-8")


def attach() -> None:
    """Let this process import the versions that its parent loaded."""
    FINDER.attach = _fetch
    FINDER.install()


def _fetch(slug: str) -> VersionSpace | None:
    for store in _stores():
        try:
            content: dict[str, Any] = json.loads((store / slug / DESCRIPTION).read_text(encoding="utf-8"))
        except OSError:
            continue
        return VersionSpace(
            bundle=content["bundle"],
            slug=slug,
            folder=Path(content["folder"]),
            shown_as=content["shown_as"],
            modules={name: ModuleFile(*module) for name, module in content["modules"].items()},
            own=content["own"],
            digests={name: bytes.fromhex(digest) for name, digest in content["digests"].items()},
            code=_code,
        )
    return None


def _stores() -> Iterator[Path]:
    yield from (Path(store) for store in os.environ.get(STORE_VARIABLE, "").split(os.pathsep) if store)
    yield from stores_of(os.getppid())

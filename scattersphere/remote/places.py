"""Names to files: a client names a bundle or a job, the operator's folders decide which file that is.

The incident classes: path traversal, links that lead out (zip slip's sibling), files that others may
write, devices and pipes that never end. What is inside a bundle, its archives above all, is the
registry's matter: it reads into a private snapshot and refuses there.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.files import file_name
from scattersphere.model.forms import NAME
from scattersphere.remote.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

BUNDLE_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127}?)(\.py|\.zip|\.whl|)", re.ASCII)
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def bundle_file(name: str, roots: Sequence[Path]) -> Path:
    """Return the file or folder that a client calls `name`: one component, directly in a root.

    Raises `RequestError`: `bad-args` for what is no such name, `no-such-bundle` where no root has it,
    `forbidden` where the file is not safe to run.
    """
    if not BUNDLE_FILE.fullmatch(name) or ".." in name:
        message = "file must be the name of a .py, .zip, .whl file or folder in the bundle roots, not a path"
        raise RequestError("bad-args", message, field="file")
    for root in roots:
        place = root / name
        if os.path.lexists(place):
            _refuse_unsafe(place, root, name)
            return place
    raise RequestError("no-such-bundle", f"no file {name!r} in the bundle roots", field="file")


def _refuse_unsafe(place: Path, root: Path, name: str) -> None:
    real, real_root = Path(os.path.realpath(place)), Path(os.path.realpath(root))
    if not real.is_relative_to(real_root) or real == real_root:
        raise RequestError("forbidden", f"{name!r} leads out of the bundle roots", field="file")
    status = real.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise RequestError("forbidden", f"{name!r} is no regular file or folder", field="file")
    between = [real, *(parent for parent in real.parents if parent.is_relative_to(real_root))]
    inside = _inside(real) if stat.S_ISDIR(status.st_mode) else []
    for each in [*between, *inside]:
        if each.lstat().st_mode & _WRITABLE and not each.is_symlink():
            shown = each.relative_to(real_root)
            message = f"{name!r}: others than its owner may write {str(shown)!r}; run chmod go-w on it"
            raise RequestError("forbidden", message, field="file")


WALKED = 20_000
"""Entries of a folder that are looked at; the registry refuses larger bundles anyway."""


def _inside(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        found += [Path(place, name) for name in (*folders, *files)]
        if len(found) > WALKED:
            raise RequestError("too-large", f"the folder has more than {WALKED} entries", field="file")
    return found


def job_file(name: str, folder: Path | None) -> Path:
    """Return the file of the job `name` in the operator's folder.

    Raises `RequestError`: `unsupported` without a folder, `bad-args` for what is no name of a job,
    `forbidden` for a link that leads out.
    """
    if folder is None:
        raise RequestError("unsupported", "this server has no job folder")
    if not NAME.fullmatch(name):
        raise RequestError("bad-args", f"{name[:64]!r} is no name of a job", field="job")
    place = folder / file_name(name, ".json")
    if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
        raise RequestError("forbidden", f"the file of {name!r} leads out of the job folder", field="job")
    return place

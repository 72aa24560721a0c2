"""May this code be loaded? Who may write it, where links lead, which roots it must lie in. One rule for every way.

`register` by hand and over the network, `reload`, the folders that are watched, and what a session names all ask
here. Archives have more rules of their own, for what is inside them (`snapshots.archives`).
"""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.errors import BundleRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence


def refuse_untrusted(path: Path, roots: Sequence[Path] = ()) -> None:
    """Raise BundleRefusedError, with what is wrong and the cure, unless the code at `path` may be loaded.

    Nobody but the owner may be able to write the file or folder, nor the folder that it lies in, links followed.
    A path in one of `roots` must really lie in one of them, and there every folder up to the root counts. What is
    inside a folder is judged by the scan that reads it, with `refuse_written_by_others`. FileNotFoundError if
    nothing is there.
    """
    real = Path(os.path.realpath(path))
    status = real.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise BundleRefusedError(f"{path}: not a regular file or folder (a device, a pipe or a socket)")
    refuse_written_by_others(status, str(path))
    for folder in _folders_above(path, real, roots):
        refuse_written_by_others(folder.stat(), str(folder))


def _folders_above(path: Path, real: Path, roots: Sequence[Path]) -> list[Path]:
    """Return the folders whose writers could put another file in the place of `real`."""
    if not any(Path(os.path.normpath(path)).is_relative_to(root) for root in roots):
        return [real.parent]
    for root in roots:
        real_root = Path(os.path.realpath(root))
        if real.is_relative_to(real_root) and real != real_root:
            return [parent for parent in real.parents if parent.is_relative_to(real_root)]
    raise BundleRefusedError(
        f"{path}: a link that leads out of the bundle roots; put what it names into one of them"
    )


def refuse_written_by_others(status: os.stat_result, shown: str) -> None:
    """Raise BundleRefusedError if others than the owner may write the file or folder of this status."""
    mode = status.st_mode
    if not mode & (stat.S_IWGRP | stat.S_IWOTH) or os.name == "nt":
        return
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:  # as in /tmp: nobody can replace what another one owns
        return
    if mode & stat.S_IWOTH or not _is_private_group(status.st_uid, status.st_gid):
        raise BundleRefusedError(f"{shown}: others than its owner may write it; run chmod go-w on it")


@functools.lru_cache(maxsize=256)
def _is_private_group(user: int, group: int) -> bool:
    """Whether nobody but the user is in the group: many systems give each user one, with the umask 002.

    Not so for root: `pam_umask` makes the same exception.
    """
    if user == 0 or os.name == "nt":
        return False
    import grp  # noqa: PLC0415 - POSIX only
    import pwd  # noqa: PLC0415 - POSIX only

    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # a container that knows the user by number alone
        name = ""
    try:
        found = grp.getgrgid(group)
    except KeyError:
        return user == group
    return (user == group or found.gr_name == name) and set(found.gr_mem) <= {name}

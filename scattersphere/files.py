"""Files that are never half written, and names for them.

The recipe is the usual one (temporary file in the same folder, fsync, rename, fsync of the folder):
see Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

_PREFIX, _SUFFIX = ".scattersphere-", ".tmp"

_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that mean devices on Windows, whatever follows a dot in them."""


def file_name(name: str, suffix: str) -> str:
    """Return a name for the file of the job `name`: its own, but where a system would not take it as a file's.

    "%" is in no job's name, so different jobs get different names. On a file system that knows no case the
    caller must look whether `Nightly` meets the file of `nightly`.
    """
    mark = "%" if _DEVICES.fullmatch(name) or name == "job-definition.schema" else ""
    return f"{mark}{name}{suffix}"


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file at `path` in one step: a reader sees the old content or the new, whole.

    When this returns, the new content survives a kill and a power cut. On an error the old file is
    untouched and nothing is left behind. Temporary files of writers that were killed are swept.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: its target is replaced
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    _sweep(target.parent, target.name)
    handle, temporary = tempfile.mkstemp(
        prefix=f"{_PREFIX}{target.name}-{os.getpid()}-", suffix=_SUFFIX, dir=target.parent
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    """Read the process's mask. There is no way but to set it; Linux also tells it in /proc."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("Umask:")[2].split()[0], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path, name: str) -> None:
    """Remove temporary files for the same target whose writer is dead."""
    # The whole name is matched: ".scattersphere-a-12-99-x.tmp" belongs to the file "a-12", not to "a".
    ours = re.compile(re.escape(f"{_PREFIX}{name}-") + r"([0-9]+)-[a-z0-9_]+" + re.escape(_SUFFIX))
    for entry in folder.iterdir():
        match = ours.fullmatch(entry.name)
        if match and not _alive(int(match.group(1))):
            entry.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 is Ctrl-C: it would hit the process instead of asking
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Names to files: a client names a bundle or a job, the operator's folders decide which file that is.

The incident class: path traversal. Which files may be loaded at all (links that lead out, files that others may
write, devices and pipes that never end), and what is inside a bundle, is the registry's matter.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.commands.errors import RequestError
from scattersphere.files import file_name
from scattersphere.model.forms import NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

BUNDLE_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127}?)(\.py|\.zip|\.whl|)", re.ASCII)


def bundle_file(name: str, roots: Sequence[Path]) -> Path:
    """Return the file or folder that a client calls `name`: one component, directly in a root.

    Whether it may be loaded is the registry's matter (`refuse_untrusted`). Raises `RequestError`: `bad-args` for what
    is no such name, `no-such-bundle` where no root has it.
    """
    if not BUNDLE_FILE.fullmatch(name) or ".." in name:
        message = "file must be the name of a .py, .zip, .whl file or folder in the bundle roots, not a path"
        raise RequestError("bad-args", message, field="file")
    for root in roots:
        if os.path.lexists(root / name):
            return root / name
    raise no_such_file(name)


def no_such_file(name: str) -> RequestError:
    """Return what is said of a file that no root has, and of one that is not to be seen."""
    return RequestError("no-such-bundle", f"no file {name!r} in the bundle roots", field="file")


def name_in_roots(place: Path, roots: Sequence[Path]) -> str:
    """Return what a file or folder, or what a link leads to, is called directly in its root."""
    real = Path(os.path.realpath(place))
    for root in map(os.path.realpath, roots):
        if real.is_relative_to(root) and real != Path(root):
            return real.relative_to(root).parts[0]
    return real.name


def bundle_name(file: str) -> str:
    """Return the name that the bundle of a file has where none is given."""
    return file.split(".", maxsplit=1)[0].split("-", maxsplit=1)[0].lower()


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

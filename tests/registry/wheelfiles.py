"""Bundles with wheels of other projects inside: those that are installed here, and one older release."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OLD_PACKAGING = Path(__file__).parents[1] / "data" / "wheels" / "packaging-23.2-py3-none-any.whl"


def installed(name: str) -> dict[str, bytes]:
    """Return the files of the wheel from which a distribution was installed, those of its `RECORD`."""
    files: dict[str, bytes] = {}
    for file in importlib.metadata.distribution(name).files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts and file.name != "direct_url.json":
            files[str(file)] = Path(str(file.locate())).read_bytes()
    return files


def unpacked(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def bundle_of(path: Path, own: str, vendored: Iterable[Mapping[str, bytes]]) -> Path:
    """Write the archive `path`: the module `job` with the text `own`, and what is vendored beside it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("job.py", own)
        for files in vendored:
            for name, content in files.items():
                archive.writestr(name, content)
    return path


def record_of(files: Mapping[str, str], *, kind: str = "sha256") -> str:
    """Return the text of the RECORD of a wheel with these files."""
    lines = []
    for name, content in files.items():
        digest = (
            base64.urlsafe_b64encode(hashlib.new(kind, content.encode()).digest())
            .rstrip(b"=")
            .decode("ascii")
        )
        lines.append(f"{name},{kind}={digest},{len(content.encode())}\n")
    return "".join(lines)

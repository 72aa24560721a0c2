"""Reading a bundle: which kind it is, and its bytes, once, into a private snapshot.

Whatever is executed, shown in tracebacks or read as data afterwards is the snapshot. The origin may be
overwritten, moved or deleted at any time.
"""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import attrs

from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots import archives
from scattersphere.registry.snapshots.layout import ModuleLayout, lay_out
from scattersphere.registry.snapshots.scan import (
    CODE_ENDING,
    Found,
    Scan,
    SourceLimits,
    changed_files,
    refuse_untrusted,
    scan,
    shown_names,
    signature,
    signature_of,
    source_root,
)
from scattersphere.registry.snapshots.store import (
    SourcePool,
    digest_of,
    digest_of_all,
    read_regular,
    refuse_clashes,
    size_of,
)

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
"""What a bundle may be called (protocol.md: ASCII, so that no look-alikes exist)."""

READ_ATTEMPTS = 3
"""How often a bundle that is written to while it is read is read anew."""


class BundleKind(StrEnum):
    """What stands at a bundle's path."""

    MODULE = "module"
    PACKAGE = "package"
    FOLDER = "folder"
    """A folder of modules and packages, without an `__init__.py` of its own."""
    ZIP = "zip"
    WHEEL = "wheel"
    HOST = "host"
    """No file at all: classes that the host handed in."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """The content of a bundle at one moment, in a folder that nobody else writes to."""

    kind: BundleKind
    folder: Path
    shown_as: str
    """The path that messages name instead of `folder`."""
    files: Mapping[str, bytes]
    """The digest of each file, by its relative path with slashes."""
    size: int
    """Bytes of all files together."""
    digest: str
    layout: ModuleLayout
    warnings: tuple[str, ...] = ()
    """What was odd about reading it."""


def kind_of(path: Path) -> BundleKind:
    """Tell the kind; BundleRefusedError says what is wrong with the path."""
    if path.is_dir():
        return BundleKind.PACKAGE if (path / "__init__.py").is_file() else BundleKind.FOLDER
    if not path.exists():
        raise BundleRefusedError(f"{path}: there is no such file or folder")
    kinds = {".py": BundleKind.MODULE, ".zip": BundleKind.ZIP, ".whl": BundleKind.WHEEL}
    kind = kinds.get(path.suffix)
    if kind is None:
        raise BundleRefusedError(f"{path}: a bundle is a .py file, a folder, a .zip or a .whl")
    return kind


def default_name(path: Path) -> str:
    """Derive a bundle's name from its file name: `My Etl-1.2-py3-none-any.whl` -> `my_etl`."""
    stem = path.name.split("-")[0] if path.suffix == ".whl" else path.name
    stem = stem.removesuffix(path.suffix) if path.suffix in {".py", ".zip", ".whl"} else stem
    name = re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).lstrip("_-0123456789")[:64]
    if not name:
        raise BundleRefusedError(f"{path.name}: no bundle name can be made of this; pass name=")
    return name


def check_name(name: str) -> None:
    """Raise BundleRefusedError unless `name` is a good name for a bundle, TypeError if it is no str."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a bundle is a str, not {type(name).__name__}")
    if not NAME.fullmatch(name):
        raise BundleRefusedError(
            f"bundle name {name[:80]!r}: use up to 64 of a-z, 0-9, '_' and '-', beginning with a letter"
        )


def take_snapshot(
    path: Path,
    folder: Path,
    *,
    name: str,
    limits: SourceLimits,
    pool: SourcePool | None = None,
    roots: Sequence[Path] = (),
) -> Snapshot:
    """Copy or unpack the bundle at `path` into `folder`, which must not exist yet.

    Raises BundleRefusedError for what others may write or a link leads out of the `roots`, what is unsafe, too large,
    incomplete, or does not stop changing.
    """
    with suppress(OSError):  # what follows finds the words for what is not there
        refuse_untrusted(path, roots)
    try:
        for attempt in range(READ_ATTEMPTS):
            found = scan(path, limits)
            target = folder / f"root{attempt}"
            snapshot = _read(path, found, target, name, limits, pool or SourcePool())
            before, after = signature_of(found), signature(path, limits)
            if before == after:
                return snapshot
            if attempt == READ_ATTEMPTS - 1 and before.code == after.code != ():
                moved = shown_names(changed_files(before, after))
                warning = f"{moved} changed while the bundle was read, and may be half written"
                return attrs.evolve(snapshot, warnings=(*snapshot.warnings, warning))
    except OSError as error:
        raise BundleRefusedError(f"{path}: cannot be read: {error}") from None
    raise BundleRefusedError(f"{path}: is being written to; try again when that is done")


def _read(
    path: Path, found: Scan, target: Path, name: str, limits: SourceLimits, pool: SourcePool
) -> Snapshot:
    kind = kind_of(path)
    target.mkdir(mode=0o700, parents=True)
    prefix, shown = "", path
    if kind in {BundleKind.ZIP, BundleKind.WHEEL}:
        files = archives.unpack(path, target, limits, pool)
    else:
        if kind in {BundleKind.MODULE, BundleKind.PACKAGE}:
            _check_module_name(path, kind)
            prefix, shown = path.name if kind is BundleKind.MODULE else f"{path.name}/", path.parent
        elif (sources := source_root(os.path.realpath(path))) != os.path.realpath(path):
            shown = path / Path(sources).name
        files = _copy(found.files, target, prefix, limits, pool)
    snapshot = _snapshot_of(files, target, kind=kind, shown_as=str(shown), name=name)
    left_out = (f"left out: {shown_names(found.left_out)}",) if found.left_out else ()
    return attrs.evolve(snapshot, warnings=left_out)


def _snapshot_of(
    files: Mapping[str, bytes], folder: Path, *, kind: BundleKind, shown_as: str, name: str
) -> Snapshot:
    records = {
        Path(file).parts[0]: (folder / file).read_text("utf-8", "replace")
        for file in files
        if file.endswith(".dist-info/RECORD") and file.count("/") == 1
    }
    return Snapshot(
        kind=kind,
        folder=folder,
        shown_as=shown_as,
        files=files,
        size=sum(map(size_of, files.values())),
        digest=digest_of_all(files),
        layout=lay_out(files, records, bundle=name),
    )


def adopt_snapshot(
    content: bytes, digest: str, folder: Path, *, name: str, limits: SourceLimits, pool: SourcePool
) -> Snapshot:
    """Unpack the exported bytes of a version; BundleRefusedError unless they have that digest."""
    target = folder / "root0"
    target.mkdir(mode=0o700, parents=True)
    files = archives.unpack_export(content, target, limits, pool)
    snapshot = _snapshot_of(files, target, kind=BundleKind.ZIP, shown_as=f"{name}@{digest[:6]}", name=name)
    if snapshot.digest != digest:
        raise BundleRefusedError(f"the bytes have the digest {snapshot.digest}, not {digest}")
    return snapshot


def export_snapshot(kept: Snapshot) -> bytes:
    """Return the files of a snapshot as bytes that `adopt_snapshot` takes, the same on every machine."""
    return export_files(kept.folder, kept.files)


def export_files(folder: Path, digests: Mapping[str, bytes]) -> bytes:
    """Return the files of a snapshot's folder, whose digests are known, as such bytes.

    BundleRefusedError if one has changed, or is gone.
    """
    return archives.export(_unchanged(folder, digests))


def copy_snapshot(kept: Snapshot, folder: Path, pool: SourcePool) -> Snapshot:
    """Make the snapshot of a new version of the files of an old one; BundleRefusedError if they changed.

    Code may write into its own data files. What it wrote is not what the bundle held.
    """
    target = folder / "root0"
    target.mkdir(mode=0o700, parents=True)
    for name, content in _unchanged(kept.folder, kept.files):
        pool.place(str(target / name), content)
    return attrs.evolve(kept, folder=target)


def written_into(snapshot: Snapshot) -> list[str]:
    """Return the files that code has written into its private copy: new ones, and data of another size."""
    found: list[str] = []
    for folder, _, names in os.walk(snapshot.folder):
        below = os.path.relpath(folder, snapshot.folder)
        for base in names:
            name = base if below == os.curdir else f"{below}/{base}".replace(os.sep, "/")
            digest = snapshot.files.get(name)
            if digest is None or (
                not name.endswith(CODE_ENDING) and _size(Path(folder, base)) != size_of(digest)
            ):
                found.append(name)
    return sorted(found)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _unchanged(folder: Path, digests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a snapshot, name and content, as long as they are what they were."""
    for name, digest in digests.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise BundleRefusedError(f"{name} of the kept files cannot be read: {error}") from None
        if digest_of(content) != digest:
            raise BundleRefusedError(f"{name} of the kept files was changed by code that ran")
        yield name, content


def _check_module_name(path: Path, kind: BundleKind) -> None:
    module = path.stem if kind is BundleKind.MODULE else path.name
    if not module.isidentifier() or keyword.iskeyword(module):
        raise BundleRefusedError(f"{path}: {module!r} is no name for a Python module; rename it")


def _copy(
    found: list[Found], target: Path, prefix: str, limits: SourceLimits, pool: SourcePool
) -> dict[str, bytes]:
    refuse_clashes([prefix + file.name for file in found])
    files: dict[str, bytes] = {}
    room = limits.unpacked
    for file in found:
        content = read_regular(file.path, room)
        room -= len(content)
        name = prefix + file.name
        files[name] = pool.place(f"{target}/{name}", content)
    return files

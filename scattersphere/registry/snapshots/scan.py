"""Scanning a bundle's files without reading them: what counts, what is left out or refused, what changed.

The truth about a change is a scan like this one; a watcher only says when to look again.
"""

from __future__ import annotations

import os
import re
import stat
from fnmatch import translate
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from scattersphere._options import option
from scattersphere.errors import BundleRefusedError
from scattersphere.model.arguments import check_count
from scattersphere.registry.snapshots.layout import PROJECT_FILES
from scattersphere.watching.notify import on_the_way

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

IGNORED_FOLDERS = frozenset({"__pycache__", "node_modules", "CVS"})
IGNORED_ENDINGS = (
    *(
        "~",
        ".pyc",
        ".pyo",
        ".swp",
        ".swx",
        ".tmp",
        ".part",
        ".partial",
        ".crdownload",
        ".bak",
        ".orig",
        ".rej",
    ),
    *("___jb_tmp___", "___jb_old___"),
)
"""Leavings of Python, editors, merges and downloads. Names that begin with a dot are ignored as well."""

IGNORED_NAMES = re.compile(r"#.*#|4913")
"""What Emacs saves by itself, and the file by which Vim finds out whether it may write in a folder."""

WRITTEN_DATA = (
    *("*.db", "*.sqlite", "*.sqlite3", "*-journal", "*-wal", "*-shm"),
    *("*.log", "*.log.*", "nohup.out", "*.pid", "*.lock", "*.sock"),
)
"""Databases, logs and the like in a folder: written while it lies there, so each write would be a version."""

_WRITTEN = re.compile("|".join(map(translate, WRITTEN_DATA)))

IGNORE_FILE = ".scattersphereignore"
"""Patterns of files at the top of a folder or an archive that are no part of the bundle, as in a `.gitignore`."""

IGNORE_FILE_LIMIT = 64 * 1024
PATTERNS_LIMIT = 1_000

VENV_MARK = "pyvenv.cfg"
"""The file that each virtual environment has at its top, whatever it is called."""

CODE_ENDING = ".py"

NAMES_SHOWN = 5


_COUNT = partial(check_count, least=0)


@attrs.frozen(kw_only=True)
class SourceLimits:
    """How large a bundle may be; more is refused before any of it is executed. And what is kept of old ones."""

    unpacked: int = option(256 * 1024 * 1024, "All files together.", unit="bytes", check=_COUNT)
    entries: int = option(20_000, "Files and folders.", unit="entries", check=_COUNT)
    ratio: int = option(
        200,
        "Unpacked size for each byte of an archive: Deflate reaches 1,000 only on bombs.",
        unit="bytes a byte",
        check=_COUNT,
    )
    depth: int = option(32, "Folders inside each other.", unit="folders", check=_COUNT)
    kept: int = option(
        1024 * 1024 * 1024,
        "The files of all released versions together that stay because kept runs name them.",
        unit="bytes",
        check=_COUNT,
    )


FileState = tuple[str, int, int, int]
"""Relative path, modification time in ns, size, inode."""


@attrs.frozen
class Signature:
    """What a scan saw; two that are equal mean that nothing was written in between."""

    real_path: str
    files: tuple[FileState, ...]
    newest_change: int
    """The newest inode change time in ns: it moves even where the modification time is put back."""

    @property
    def code(self) -> tuple[FileState, ...]:
        """What it saw of the modules alone."""
        return tuple(file for file in self.files if not file[0] or file[0].endswith(CODE_ENDING))


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is no part of a bundle, wherever it lies."""
    return (
        name.startswith(".")
        or name in IGNORED_FOLDERS
        or name.endswith(IGNORED_ENDINGS)
        or IGNORED_NAMES.fullmatch(name) is not None
    )


def is_unwatched(folder: str) -> bool:
    """Whether a folder inside a bundle is left out whatever it holds."""
    return is_ignored(Path(folder).name) or Path(folder, VENV_MARK).is_file()


class IgnorePatterns:
    """Which files are left out by patterns. The last pattern that fits decides; `!` takes back in.

    As in a `.gitignore`: one with a slash counts from the top, another one for every name; one that ends in a
    slash is for folders alone; `**` stands for any folders.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [
            (not line.startswith("!"), line.endswith("/"), _Pattern(line.removeprefix("!").rstrip("/")))
            for line in map(str.strip, lines)
            if line.strip("!/") and not line.startswith("#")
        ]

    def leave_out(self, name: str, *, folder: bool = False) -> bool | None:
        """Whether the file or folder `name` (relative, with slashes) is left out; None if no pattern fits."""
        for ignores, folders_alone, pattern in reversed(self._patterns):
            if (folder or not folders_alone) and pattern.fits(name):
                return ignores
        return None

    def leave_out_below(self, name: str) -> bool:
        """Whether `name` is left out, or a folder that it lies in."""
        parts = name.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return any(self.leave_out(folder, folder=True) for folder in above) or bool(self.leave_out(name))


class _Pattern:
    """One pattern, matched folder by folder: what `fnmatch` makes of a part takes no more than linear time."""

    def __init__(self, text: str) -> None:
        self._base = None if "/" in text else re.compile(translate(text))
        parts = text.lstrip("/").split("/")
        self._parts = [None if part == ANY_FOLDERS else re.compile(translate(part)) for part in parts]

    def fits(self, name: str) -> bool:
        """Whether the whole of a relative name fits; of a pattern without a slash, its last part."""
        if self._base is not None:
            return self._base.match(name.rpartition("/")[2]) is not None
        ends = {0}
        last = len(self._parts) - 1
        names = name.split("/")
        for at, part in enumerate(self._parts):
            if part is None:  # any folders; at the end of a pattern, anything below
                ends = set(range(min(ends) + (at == last), len(names) + 1))
            else:
                ends = {end + 1 for end in ends if end < len(names) and part.match(names[end])}
            if not ends:
                return False
        return len(names) in ends


ANY_FOLDERS = "**"


def patterns_of(text: bytes) -> list[str]:
    """Return the lines of an ignore file; BundleRefusedError if there are too many to try each on each name."""
    lines = text[:IGNORE_FILE_LIMIT].decode("utf-8", "replace").splitlines()
    if len(lines) > PATTERNS_LIMIT:
        raise BundleRefusedError(
            f"{IGNORE_FILE}: more than {PATTERNS_LIMIT:,} lines; join some with wildcards"
        )
    return lines


@attrs.frozen
class Found:
    """One file that a scan met."""

    name: str
    """Relative to the bundle, with slashes; "" for a bundle that is a single file."""
    path: str
    status: os.stat_result


@attrs.frozen
class Scan:
    """The files of a bundle, in a fixed order."""

    real_path: str
    files: list[Found]
    left_out: list[str]
    """What lies there and is no part of the bundle, and why; but for what is_ignored."""


def signature(path: Path, limits: SourceLimits | None = None) -> Signature:
    """Scan the bundle at `path`; FileNotFoundError if it is gone, BundleRefusedError if unsafe."""
    return signature_of(scan(path, limits or SourceLimits()))


def signature_of(found: Scan) -> Signature:
    """Return the signature of what a scan found."""
    files, newest = [], 0
    for file in found.files:
        status = file.status
        files.append((file.name, status.st_mtime_ns, status.st_size, status.st_ino))
        newest = max(newest, status.st_ctime_ns)
    return Signature(found.real_path, tuple(files), newest)


def changed_files(before: Signature, after: Signature) -> list[str]:
    """Return the names of the files in which two signatures differ."""
    return sorted({file[0] for file in set(before.files) ^ set(after.files)})


def shown_names(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def scan(path: Path, limits: SourceLimits) -> Scan:
    """Return each file of the bundle at `path`.

    Links are followed while they stay inside the bundle's real folder (Kubernetes mounts are built
    of such links); one that leads out is refused. What is neither file nor folder is left out.
    """
    if not path.is_dir():
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleRefusedError(f"{path.name}: not a regular file (a device, a pipe or a socket)")
        return Scan(os.path.realpath(path), [Found("", os.fspath(path), status)], [])
    real = os.path.realpath(path)
    root = source_root(real)
    walk = _FolderWalk(root, limits)
    return Scan(real, list(walk.folder(root, "", ())), walk.left_out)


SOURCES = "src"

BUILT = ("build", "dist")
"""Folders at the top of a project in which build tools leave copies of its modules, and archives of them."""


def source_root(folder: str) -> str:
    """Return the folder of a project's sources: `src` in it, where it is laid out so, else the folder itself."""
    sources = os.path.join(folder, SOURCES)  # noqa: PTH118 - plain strings, as in the walk
    if not os.path.isdir(sources) or os.path.exists(os.path.join(sources, "__init__.py")):  # noqa: PTH110, PTH112, PTH118
        return folder
    return sources if _is_project(folder) else folder


def _is_project(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in PROJECT_FILES)  # noqa: PTH113, PTH118


class _FolderWalk:
    """One walk through a folder; it counts entries and remembers the real folders it stands in.

    With `os.scandir` and plain strings: every reload and every look at a watched bundle comes through here.
    """

    def __init__(self, root: str, limits: SourceLimits) -> None:
        self.root = root
        self.limits = limits
        self.entries = 0
        self.left_out: list[str] = []
        self.patterns = IgnorePatterns(_ignore_file(root))
        self.built = BUILT if _is_project(root) else ()

    def folder(self, real: str, prefix: str, above: tuple[str, ...]) -> Iterator[Found]:
        if real in above:
            raise BundleRefusedError(f"{prefix.rstrip('/')}: a link makes a loop of folders")
        if len(above) >= self.limits.depth:
            raise BundleRefusedError(f"{prefix.rstrip('/')}: more than {self.limits.depth} folders deep")
        refuse_written_by_others(os.stat(real), prefix.rstrip("/") or real, real)  # noqa: PTH116 - a plain string, often
        with os.scandir(real) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if not is_ignored(entry.name):
                yield from self._entry(entry, real, prefix + entry.name, above)

    def _entry(
        self, entry: os.DirEntry[str], real: str, name: str, above: tuple[str, ...]
    ) -> Iterator[Found]:
        folder = entry.is_dir()
        left_out = self.patterns.leave_out(name, folder=folder)
        if left_out:
            return
        if why := self._reason(entry, name, folder=folder, taken_in=left_out is False):
            self.left_out.append(f"{ascii(name)[1:-1]} ({why})")
            return
        self._count()
        # The folder that we stand in is real, so only a link can lead elsewhere.
        target = self._followed(entry, name) if entry.is_symlink() else entry.path
        if folder:
            yield from self.folder(target, name + "/", (*above, real))
            return
        status = entry.stat()
        refuse_written_by_others(status, name, entry.path)
        yield Found(name, entry.path, status)

    def _reason(self, entry: os.DirEntry[str], name: str, *, folder: bool, taken_in: bool) -> str:
        """Say why an entry is no part of the bundle, or return ""; written data may be taken in by a pattern."""
        if not (entry.name.endswith(CODE_ENDING) and entry.name[: -len(CODE_ENDING)].isidentifier()):
            # Most files are modules, and none of these patterns fits the name of one.
            if not taken_in and _WRITTEN.match(entry.name):
                return f"written data; !{entry.name} in {IGNORE_FILE} takes it in"
            if _ODD.search(entry.name):
                return "a name that is not plain UTF-8"
        if folder and name in self.built and not taken_in and not Path(entry.path, "__init__.py").exists():
            return f"what a build has left; !{name} in {IGNORE_FILE} takes it in"
        if folder:
            return "a virtual environment" if Path(entry.path, VENV_MARK).is_file() else ""
        if entry.is_file():
            return ""
        if not Path(entry.path).exists():
            return "a link to nothing"
        if name.endswith(CODE_ENDING):
            raise BundleRefusedError(f"{name}: not a regular file (a device, a pipe or a socket)")
        return "no regular file"

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise BundleRefusedError(
                f"more than {self.limits.entries:,} files and folders; leave some out with {IGNORE_FILE}"
            )

    def _followed(self, entry: os.DirEntry[str], name: str) -> str:
        target = os.path.realpath(entry.path)
        if not Path(target).is_relative_to(self.root):
            raise BundleRefusedError(f"{name}: a link that leads out of the bundle; copy the file into it")
        return target


_ODD = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
"""What no archive may have in a name: so every bundle can be exported. Bytes that are no UTF-8 are surrogates."""


def _ignore_file(root: str) -> list[str]:
    try:
        return patterns_of(Path(root, IGNORE_FILE).read_bytes())
    except OSError:
        return []


# ---- who may write it


def refuse_untrusted(path: Path, roots: Sequence[Path] = ()) -> None:
    """Raise BundleRefusedError, with what is wrong and the cure, unless the code at `path` may be loaded.

    Nobody but the owner may be able to write the file or folder, nor the folder that it lies in, nor the folder of a
    link on the way to it: who may write there may let the link lead elsewhere.
    A path in one of `roots` must really lie in one of them, and there every folder up to the root counts. What is
    inside a folder is judged by the scan that reads it, with `refuse_written_by_others`. FileNotFoundError if
    nothing is there.
    """
    real = Path(os.path.realpath(path))
    status = real.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise BundleRefusedError(f"{path}: not a regular file or folder (a device, a pipe or a socket)")
    refuse_written_by_others(status, str(path), str(real))
    folders = _folders_above(path, real, roots)
    if str(real) != os.path.abspath(path):  # noqa: PTH100 - text is compared
        folders += [Path(folder) for folder, _ in on_the_way(Path(os.path.abspath(path)))]  # noqa: PTH100 - keeps links
    for folder in folders:
        refuse_written_by_others(folder.stat(), str(folder), str(folder))


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


def refuse_written_by_others(status: os.stat_result, shown: str, path: str = "") -> None:
    """Raise BundleRefusedError if others than the owner may write the file or folder of this status.

    Whatever its mode, nobody may where the file system at `path` is mounted read-only, as volumes of Kubernetes are.
    """
    mode = status.st_mode
    if not mode & (stat.S_IWGRP | stat.S_IWOTH) or os.name == "nt":
        return
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:  # as in /tmp: nobody can replace what another one owns
        return
    if (mode & stat.S_IWOTH or not _is_private_group(status.st_uid, status.st_gid)) and not _is_read_only(
        path
    ):
        raise BundleRefusedError(f"{shown}: others than its owner may write it; run chmod go-w on it")


def _is_read_only(path: str) -> bool:
    try:
        return bool(path and os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


@lru_cache(maxsize=256)
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

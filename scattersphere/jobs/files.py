"""Job files: definitions loaded with the bundles that they name, saved, and a folder of them, perhaps watched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import anyio.lowlevel
import attrs

from scattersphere._gc import promote_young
from scattersphere._threads import in_thread
from scattersphere.definitions import read_definition_file
from scattersphere.definitions.dump import SCHEMA_NAME
from scattersphere.errors import (
    BundleRefusedError,
    ConflictError,
    DefinitionError,
    ScattersphereError,
)
from scattersphere.files import file_name
from scattersphere.jobs.claims import Claim
from scattersphere.jobs.slices import SLICE, Slices
from scattersphere.model.definition import JobDefinition
from scattersphere.registry.snapshots.scan import is_ignored
from scattersphere.watching.debounce import Debounce, Step
from scattersphere.watching.notify import WatchTarget, targets_of
from scattersphere.watching.watcher import WatchedPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from scattersphere.definitions.load import DefinitionReading
    from scattersphere.jobs.claims import Claims
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.registry.folders import BundleFolders
    from scattersphere.watching.debounce import WatchDelays

SUFFIX = ".json"
AT_ONCE = 32
"""Files that are read in one go in a thread: the loop has its turns between them."""
RANK, LAST = 2, 3
"""Files come after the bundles, in the order of their names; last those that are broken or gone for the moment, with
what they held before."""


def definitions_in(folder: Path) -> dict[Path, Hashable]:
    """Return the files in `folder` that should hold definitions, in order of their names, and what each looks like.

    Raises OSError.
    """
    found: dict[Path, Hashable] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.endswith(SUFFIX) or is_ignored(entry.name) or entry.name == SCHEMA_NAME:
                continue
            with contextlib.suppress(OSError):  # a link that leads nowhere, or a file that goes as we look
                if entry.is_file():
                    seen = entry.stat()
                    look = (seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino)
                    found[folder / entry.name] = look
    return found


class JobFiles:
    """Loads and saves the definitions of a Server.

    What the files of the folder hold are `claims`; `failed(file, message)` is told of each that cannot be loaded.
    """

    def __init__(
        self,
        jobs: Jobs,
        bundles: BundleFolders,
        *,
        roots: Iterable[Path],
        folder: Path | None,
        claims: Claims,
        failed: Callable[[Path, str], None],
    ) -> None:
        self.folder: Path | None = folder and Path(os.path.abspath(folder))  # noqa: PTH100 - links kept
        self.problems: dict[Path, str] = {}
        """The files of the folder that could not be loaded, or not wholly, and why."""
        self._jobs = jobs
        self._bundles = bundles
        self._roots = tuple(roots)
        self._claims = claims
        self._files: dict[Path, _File] = {}
        self._missing: AbstractSet[Path] = frozenset()
        self._watched: _WatchedFolder | None = None
        self._failed = failed

    # ---- one file

    async def load(self, path: str | os.PathLike[str], *, replace: bool) -> JobDefinition:
        """Register the bundles that a definition file names, then define it; or raise what is in the way."""
        definition = await self._jobs.sound(await in_thread(lambda: read_definition_file(path)))
        for name, place in self._places(definition, path).items():
            await self._bundles.register(place, name=name, watch=True)
        return await self._claims.adefine(definition, replace=replace)

    def save(
        self, definition: JobDefinition, path: str | os.PathLike[str] | None, *, overwrite: bool
    ) -> None:
        """Write a definition to `path`, else to the file that it came from, else into the folder."""
        if path is not None:
            definition.save(path, overwrite=overwrite)
        elif definition.path is not None:
            definition.save(definition.path, overwrite=overwrite)
        elif self.folder is not None:
            file = self.folder / file_name(definition.name, SUFFIX)
            _refuse_other_job(file, definition.name)
            definition.save(file, overwrite=overwrite)
            self.problems.pop(file, None)
        else:
            raise ConflictError(f"job {definition.name!r} came from no file: say where to save it")

    def _places(self, definition: JobDefinition, path: str | os.PathLike[str]) -> dict[str, Path]:
        """Return where the bundles of a definition file lie; all of them inside the roots."""
        folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - links kept: they may be swapped
        # ".." is taken out of the text, so that what is checked and what is loaded are the same path.
        places = {
            name: Path(os.path.abspath(folder / relative))  # noqa: PTH100 - the same
            for name, relative in definition.bundles.items()
        }
        real_roots = [os.path.realpath(root) for root in self._roots]
        for name, place in places.items():
            real = Path(os.path.realpath(place))
            if not any(real.is_relative_to(root) for root in real_roots):
                raise BundleRefusedError(
                    f"bundle {name!r} of {os.fspath(path)} lies at {place}, outside the bundle_roots of this Server"
                )
        return places

    # ---- the folder

    async def load_all(self) -> list[JobDefinition]:
        """Load every definition of the folder; what cannot be loaded is in `problems` and stays as it is."""
        if self.folder is None:
            raise ConflictError("this Server has no job_folder")
        folder = self.folder
        self.problems.pop(folder, None)
        try:
            files = list(await in_thread(lambda: definitions_in(folder)))
        except OSError as error:
            self._note(folder, str(error))
            files = []
        there = set(files)
        await self.take_up(files, gone=[file for file in self._files if file not in there], again=True)
        defined: list[JobDefinition] = []
        slices = Slices()
        for file in files:
            known = self._files.get(file)
            claim = None if known is None else known.claim
            if claim is not None and self._claims.owner(claim.name) is claim and claim.name in self._jobs:
                defined.append(self._jobs[claim.name])
            await slices.next()
        return defined

    async def open(self, *, watch: bool) -> None:
        """Load the folder, if there is one, and with `watch` load again what changes in it from now on."""
        if self.folder is None:
            return
        watcher = self._bundles.watcher
        if not watch or watcher is None:
            await self.load_all()
            return
        watched = _WatchedFolder(self, watcher.delays, self.folder)
        promote_young()  # what the program has made until now would be looked at while the folder is listed
        seen = await in_thread(watched.poll)
        await self.load_all()
        await watched.follow(seen or ())
        watcher.add(watched, seen)
        self._watched = watched

    def bundle_removed(self) -> None:
        """Let a watched folder ask again for the bundles that it could not have: what was in the way may be gone."""
        watcher = self._bundles.watcher
        if (
            self._watched is not None
            and watcher is not None
            and any(known.bundles for known in self._files.values())
        ):
            watcher.mark_seen(self._watched, None)

    async def take_up(
        self, changed: Sequence[Path], *, gone: Sequence[Path] = (), again: bool = False
    ) -> None:
        """Follow files that have changed, and some that are gone: first read all, then settle what they come to.

        So two files that swap their jobs never look as if one job were gone. `again`: also where the host has
        undefined what a file holds.
        """
        promote = promote_young if len(changed) > AT_ONCE else _do_nothing
        for start in range(0, len(changed), AT_ONCE):
            promote()
            files = changed[start : start + AT_ONCE]
            for file, reading in zip(files, await in_thread(lambda: list(map(_read, files))), strict=True):  # noqa: B023 - awaited here
                await self._note_reading(file, reading, again=again)
        slices = Slices()
        for file in gone:
            self._note_gone(file)
            await slices.next()
        while not self._claims.settle(SLICE):
            promote()
            await anyio.lowlevel.checkpoint()
        promote()

    async def note_missing(self, missing: AbstractSet[Path]) -> None:
        """Let those come last that are not there at the moment, and may come back."""
        slices = Slices()
        for file in missing ^ self._missing:
            known = self._files.get(file)
            if known is not None and known.claim is not None:
                known.missing = file in missing
                self._rank(file, known)
            await slices.next()
        self._missing = missing

    async def _note_reading(self, file: Path, reading: DefinitionReading | str, *, again: bool) -> None:
        known = self._files.setdefault(file, _File())
        known.missing = False
        refusal = reading if isinstance(reading, str) else await self._refusal(reading)
        if refusal is not None:
            known.broken = refusal
            if known.claim is not None:
                self._rank(file, known)
            self._show(file, again=True)
            return
        assert not isinstance(reading, str)  # noqa: S101 - then it was the refusal
        definition = reading.definition
        assert definition is not None  # noqa: S101 - the same
        mended, known.broken = known.broken is not None, None
        known.bundles = await self._expect_bundles(file, definition)
        self._claim(file, known, definition, again=again)
        if mended and known.claim is not None:
            known.claim.news = True
        self._show(file)

    async def _refusal(self, reading: DefinitionReading) -> str | None:
        """Return what is wrong with a file in the words of its error, or None. Its places are found in a thread."""
        more = await self._jobs.problems_of(reading)
        if more is None:
            return None
        problems = await in_thread(lambda: reading.problems(more))
        return str(DefinitionError(problems, source=reading.source))

    def _claim(self, file: Path, known: _File, definition: JobDefinition, *, again: bool) -> None:
        claim = known.claim
        if claim is not None and claim.name != definition.name:
            self._claims.drop(claim)
            claim = None
        if claim is None:
            show = partial(self._show, file)
            known.claim = Claim(definition, (RANK, str(file)), str(file), show, path=str(file))
            self._claims.put(known.claim)
            return
        same = claim.definition.origin == definition.origin
        claim.definition, claim.rank = definition, (RANK, str(file))
        self._claims.changed(claim, again=again or not same)

    def _rank(self, file: Path, known: _File) -> None:
        claim = known.claim
        assert claim is not None  # noqa: S101 - asked by those who have seen it
        claim.rank = (LAST if known.broken is not None or known.missing else RANK, str(file))
        self._claims.changed(claim, again=False)

    def _note_gone(self, file: Path) -> None:
        known = self._files.pop(file, None)
        if known is not None and known.claim is not None:
            self._claims.drop(known.claim)
        self.problems.pop(file, None)

    async def _expect_bundles(self, file: Path, definition: JobDefinition) -> str | None:
        """Register the bundles that a file names. A bundle that does not load is no reason: the job waits for it."""
        try:
            for name, place in self._places(definition, file).items():
                await self._bundles.expect(place, name)
        except ScattersphereError as error:
            return str(error)
        return None

    async def expect_bundles_again(self) -> None:
        """Ask again for the bundles that could not be had."""
        for file, known in list(self._files.items()):
            if known.bundles is not None and known.claim is not None:
                known.bundles = await self._expect_bundles(file, known.claim.definition)
                self._show(file)

    def _show(self, file: Path, *, again: bool = False) -> None:
        """Let `problems` say what is wrong with a file; `again`: tell it even if it was told before."""
        known = self._files.get(file)
        if known is None:
            return
        refused = None if known.claim is None else known.claim.refused
        message = known.broken or refused or known.bundles
        if message is None:
            self.problems.pop(file, None)
        elif again or self.problems.get(file) != _about(file, message):
            self._note(file, message)

    def _note(self, file: Path, message: str) -> None:
        self.problems[file] = _about(file, message)
        self._failed(file, self.problems[file])


def _do_nothing() -> None:
    """Stand for what few files need not."""


def _about(file: Path, message: str) -> str:
    return message if message.startswith(str(file)) else f"{file}: {message}"


@attrs.define(eq=False)
class _File:
    """What is known of a file of the folder."""

    claim: Claim | None = None
    """The last good definition in it."""
    broken: str | None = None
    """What is wrong with what it holds now."""
    bundles: str | None = None
    """Why a bundle that it names cannot be had."""
    missing: bool = False
    """Whether it is not there at the moment."""


def _read(file: Path) -> DefinitionReading | str:
    """Read a file, in a thread. Returns the words of the error where that is no JSON, or no file."""
    try:
        return read_definition_file(file)
    except (ScattersphereError, OSError, RecursionError) as error:
        return str(error)


def _refuse_other_job(file: Path, name: str) -> None:
    """Raise ConflictError where names that differ in case only would share a file, as on macOS and Windows."""
    try:
        other = JobDefinition.load(file).name
    except (ScattersphereError, OSError):
        return
    if other != name:
        raise ConflictError(f"{file} holds the job {other!r}; say where to save {name!r}")


_Seen = tuple[tuple[Path, Hashable], ...]
"""What is there: files, each with what tells one content from the next."""


class _WatchedFolder(WatchedPath):
    """The folder. Each file in it must hold still by itself, whatever happens to the others."""

    settle: float | None = 0.0

    def __init__(self, files: JobFiles, delays: WatchDelays, path: Path) -> None:
        super().__init__(path)
        self._files = files
        self._delays = delays
        self._waits: dict[Path, Debounce[Hashable]] = {}

    def targets(self) -> frozenset[WatchTarget]:
        """Return the folder itself, and where the links in it lead."""
        found = set(targets_of(self.path, lambda _: True))
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.path):
                if entry.name.endswith(SUFFIX) and entry.is_symlink():
                    found |= targets_of(Path(entry.path))
        return frozenset(found)

    def poll(self) -> _Seen | None:
        """List the definitions in it, and what each looks like."""
        try:
            return tuple(definitions_in(self.path).items())
        except OSError:
            return None

    async def follow(self, seen: _Seen) -> None:
        """Take what is there as taken up."""
        slices = Slices()
        for file, look in seen:
            self._waits[file] = Debounce(self._delays, look)
            await slices.next()

    async def on_changed(self, seen: Hashable) -> None:
        """Load files that have stopped changing; return when all are loaded."""
        there = dict(cast("_Seen", seen))
        await self._files.expect_bundles_again()
        while True:
            now, changed, gone, slices = anyio.current_time(), [], [], Slices()
            for file in there.keys() | self._waits.keys():
                wait = self._waits.get(file)
                if wait is None:
                    wait = self._waits[file] = Debounce(self._delays)
                step = wait.look(there.get(file), now)
                await slices.next()
                if step is Step.CHANGED:
                    changed.append(file)
                elif step is Step.REMOVED:
                    gone.append(file)
            for file in gone:
                del self._waits[file]
            await self._files.note_missing(self._waits.keys() - there.keys())
            await self._files.take_up(sorted(changed, key=str), gone=gone)
            due = min((wait.due for wait in self._waits.values() if wait.due is not None), default=None)
            if due is None:
                return
            await anyio.sleep_until(due)
            there = dict(await in_thread(lambda: self.poll() or ()))

    async def on_removed(self) -> None:
        """Let go of all that it held."""
        gone, self._waits = list(self._waits), {}
        await self._files.take_up([], gone=gone)

"""Definitions as files: loaded with the bundles that they name, saved, and a folder of them, perhaps watched."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.codec import read_definition_file
from scattersphere.codec.dump import SCHEMA_NAME
from scattersphere.errors import (
    BundleRefusedError,
    ConflictError,
    ExistsError,
    ScattersphereError,
)
from scattersphere.files import file_name
from scattersphere.model.definition import JobDefinition
from scattersphere.registry.snapshots.scan import is_ignored
from scattersphere.watching.watcher import WatchedPath, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from scattersphere.jobs.jobs import Jobs
    from scattersphere.registry.folders import BundleFolders
    from scattersphere.watching.watcher import Watcher

SUFFIX = ".json"


def definitions_in(folder: Path) -> list[Path]:
    """Return the files in `folder` that should hold definitions, in order of their names. Raises OSError."""
    return [
        file
        for file in sorted(folder.glob("*" + SUFFIX))
        if not is_ignored(file.name) and file.name != SCHEMA_NAME and file.is_file()
    ]


class JobFiles:
    """Loads and saves the definitions of a Server.

    `define(definition, replace)` and `undefine(name)` are the Server's own; `failed(file, message)` is told of each
    file of the folder that cannot be taken up.
    """

    def __init__(
        self,
        jobs: Jobs,
        bundles: BundleFolders,
        *,
        roots: Iterable[Path],
        folder: Path | None,
        define: Callable[..., JobDefinition],
        undefine: Callable[[str], None],
        failed: Callable[[Path, str], None],
    ) -> None:
        self.folder: Path | None = folder and Path(os.path.abspath(folder))  # noqa: PTH100 - links kept
        self.problems: dict[Path, str] = {}
        """The files of the folder that could not be taken up, or not wholly, and why."""
        self._jobs = jobs
        self._bundles = bundles
        self._roots = tuple(roots)
        self._define = define
        self._undefine = undefine
        self._failed = failed

    # ---- one file

    async def load(self, path: str | os.PathLike[str], *, replace: bool) -> JobDefinition:
        """Register the bundles that a definition file names, then define it; or raise what is in the way."""
        definition = self._jobs.sound(await in_thread(lambda: read_definition_file(path)))
        for name, place in self._places(definition, path).items():
            await self._bundles.register(place, name=name, watch=True)
        return self._define(definition, replace=replace)

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
        """Take up every definition of the folder; what cannot be is in `problems` and stays as it is."""
        if self.folder is None:
            raise ConflictError("this Server has no job_folder")
        folder = self.folder
        self.problems.clear()
        try:
            files = await in_thread(lambda: definitions_in(folder))
        except OSError as error:
            self._note(folder, str(error))
            return []
        loaded = [await self.take_up(file) for file in files]
        return [definition for definition in loaded if definition is not None]

    async def open(self, *, watch: bool) -> None:
        """Load the folder, if there is one, and with `watch` take up what changes in it from now on."""
        if self.folder is None:
            return
        watcher = self._bundles.watcher
        if not watch or watcher is None:
            await self.load_all()
            return
        watched = _WatchedJobs(self, watcher, self.folder)
        seen = {
            file: await in_thread(partial(_look_at, file)) for file in await in_thread(watched.poll) or ()
        }
        await self.load_all()
        for file, looked in seen.items():
            watched.follow(file, looked)
        watcher.add(watched)

    def went(self, file: Path) -> None:
        """A file has gone: so has its job, and what was wrong with it."""
        self.problems.pop(file, None)
        for definition in list(self._jobs.values()):
            if definition.path == str(file):
                self._undefine(definition.name)

    async def take_up(self, file: Path) -> JobDefinition | None:
        """Define what a file of the folder holds, in place of what it held; None if that cannot be.

        A bundle that it names and that does not load is no reason: the job waits for it.
        """
        try:
            definition = self._jobs.sound(await in_thread(lambda: read_definition_file(file)))
            there = self._jobs.get(definition.name)
            if there is not None and there.path != str(file):
                where = there.path or "Python"
                raise ExistsError(f"job {definition.name!r} is defined already, from {where}")
            if there is None or there.origin != definition.origin or file in self.problems:
                there = await self._define_from(file, definition)
        except (ScattersphereError, OSError, RecursionError) as error:
            self._note(file, str(error))
            return None
        return there

    async def _define_from(self, file: Path, definition: JobDefinition) -> JobDefinition:
        self.problems.pop(file, None)
        try:
            for name, place in self._places(definition, file).items():
                await self._bundles.expect(place, name)
        except ScattersphereError as error:
            self._note(file, str(error))
        before = [job for job in self._jobs.values() if job.path == str(file) and job.name != definition.name]
        resolved = self._define(definition, replace=True)
        for renamed in before:  # the file held a job of another name
            self._undefine(renamed.name)
        return resolved

    def _note(self, file: Path, message: str) -> None:
        message = message if message.startswith(str(file)) else f"{file}: {message}"
        self.problems[file] = message
        self._failed(file, message)


def _refuse_other_job(file: Path, name: str) -> None:
    """Raise ConflictError where names that differ in case only would share a file, as on macOS and Windows."""
    try:
        other = JobDefinition.load(file).name
    except (ScattersphereError, OSError):
        return
    if other != name:
        raise ConflictError(f"{file} holds the job {other!r}; say where to save {name!r}")


def _look_at(file: Path) -> Hashable | None:
    try:
        seen = file.stat()
    except OSError:
        return None
    return (seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino)


class _WatchedJobs(WatchedPath):
    """The folder: whatever definition is in it is watched."""

    settle: float | None = 0.0  # each file must hold still by itself

    def __init__(self, files: JobFiles, watcher: Watcher, path: Path) -> None:
        super().__init__(path)
        self.files: JobFiles = files
        self._watcher = watcher
        self._watched: set[Path] = set()

    def poll(self) -> tuple[Path, ...] | None:
        """List the definitions in it."""
        try:
            return tuple(definitions_in(self.path))
        except OSError:
            return None

    async def on_changed(self, seen: Hashable) -> None:
        """Watch what is new; what went is noticed by its own watch."""
        for file in seen if isinstance(seen, tuple) else ():
            if file not in self._watched:
                self.follow(file, None)

    def follow(self, file: Path, tried: Hashable | None) -> None:
        """Watch one file; `tried` is what a look showed before it was loaded."""
        self._watched.add(file)
        self._watcher.add(_WatchedJob(self, file), tried)

    async def on_removed(self) -> None:
        """Wait for it: its files go one by one."""

    def went(self, watched: _WatchedJob) -> None:
        """A file has gone; list anew, since it may be back by now."""
        self._watcher.remove(watched)
        self._watched.discard(watched.path)
        self.files.went(watched.path)
        self._watcher.mark_seen(self, None)


class _WatchedJob(WatchedPath):
    """One file of the folder."""

    def __init__(self, folder: _WatchedJobs, path: Path) -> None:
        super().__init__(path)
        self._folder = folder

    def poll(self) -> Hashable | None:
        """Return what tells one content from the next."""
        return _look_at(self.path)

    async def on_changed(self, seen: Hashable) -> None:
        """Define what it holds now."""
        del seen
        await self._folder.files.take_up(self.path)

    async def on_removed(self) -> None:
        """Undefine what it held."""
        self._folder.went(self)

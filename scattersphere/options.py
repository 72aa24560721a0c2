"""ServerOptions: the options of a Server, each with its default, unit, meaning and check.

A new one is an attribute of `ServerOptions` and a line of `ServerKeywords`, which gives type checkers its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

import attrs

from scattersphere._options import option
from scattersphere._text import did_you_mean
from scattersphere.errors import ArgumentError
from scattersphere.model.arguments import (
    check_count,
    check_mapping,
    check_pools,
    check_seconds,
    check_text,
    describe,
)
from scattersphere.model.taskclass import LOOP
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.watching.debounce import WatchDelays

if TYPE_CHECKING:
    from scattersphere.abc.around import Around  # noqa: TC004 - nobody resolves the annotation
    from scattersphere.abc.backend import Backend  # noqa: TC004 - nobody resolves the annotation
    from scattersphere.abc.journal import Journal


class ServerKeywords(TypedDict, total=False):
    """The keyword arguments of `Server` and `SyncServer`; `ServerOptions` says what each means."""

    bundle_roots: Iterable[str | os.PathLike[str]]
    adopt: bool
    watch: bool | WatchDelays
    bundle_limits: SourceLimits
    load_timeout: float
    shared: Iterable[str]
    snapshot_folder: str | os.PathLike[str] | None
    journal: str | os.PathLike[str] | Journal | None
    results: Literal["exact", "pickle"]
    job_folder: str | os.PathLike[str] | None
    watch_jobs: bool
    fire_schedules: bool
    threads: int
    processes: int | None
    backends: Mapping[str, Backend] | None
    pools: Mapping[str, int] | None
    max_parallel: int | None
    max_runs: int | None
    queue_limit: int
    grace: float
    blocked_after: float | None
    history: tuple[int, float]
    keep_events: int
    log_limit: int
    log_folder: str | os.PathLike[str] | None
    capture_print: bool
    capture_loggers: Iterable[str]
    around: Iterable[Around]
    secret_env: Mapping[str, Iterable[str]] | None
    secrets: Callable[[str, str], object] | None


# ---- what a value may be


def _flag(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {describe(value)}")


def _folder(value: object, name: str) -> None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is the path of a folder or None, not {describe(value)}")


def _several(value: object, name: str) -> None:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is a list, not {describe(value)}")


def _limits(value: object, name: str) -> None:
    if not isinstance(value, SourceLimits):
        raise TypeError(f"{name} is SourceLimits(...), not {describe(value)}")


def _watching(value: object, name: str) -> None:
    if not isinstance(value, bool | WatchDelays):
        raise TypeError(f"{name} is True, False or WatchDelays(...), not {describe(value)}")


def _count_and_age(value: object, name: str) -> None:
    if not isinstance(value, tuple | list) or len(value) != len(("count", "seconds")):
        raise TypeError(f"{name} is (count, seconds), like (1000, 86400), not {describe(value)}")
    check_count(value[0], f"{name}: the count of ended runs", least=0)
    check_seconds(value[1], f"{name}: their age", endless=True)


def _journal(value: object, name: str) -> None:
    if value is not None and not isinstance(value, str | os.PathLike) and not hasattr(value, "read_runs"):
        raise TypeError(f"{name} is the path of a file, a Journal or None, not {describe(value)}")


def _results(value: object, name: str) -> None:
    if value not in {"exact", "pickle"}:
        raise ArgumentError(f'{name} is "exact" or "pickle", not {describe(value)}')


_BACKEND_METHODS = ("open", "start", "aclose")


def _backends(backends: Any, name: str) -> None:
    check_mapping(backends, name)
    for key, backend in dict(backends or {}).items():
        check_text(key, "the name of a backend")
        if key == LOOP:
            raise ArgumentError(f'{name}: "loop" is the event loop itself; choose another name')
        missing = [method for method in _BACKEND_METHODS if not callable(getattr(backend, method, None))]
        if missing or not hasattr(backend, "limit"):
            lacks = ", ".join(missing or ["limit"])
            raise TypeError(f"{name}: {key!r} is no Backend but {describe(backend)}; it lacks {lacks}")


def _patterns(value: Any, name: str) -> None:
    check_mapping(value, name)
    for job, variables in dict(value or {}).items():
        check_text(job, f"{name}: the pattern of jobs")
        _several(variables, f"{name}: what {job!r} may read")
        for variable in variables:
            check_text(variable, f"{name}: what {job!r} may read")


def _function(value: object, name: str) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a function of job and name, or None, not {describe(value)}")


def _path(value: Any) -> Path | None:
    return None if value is None else Path(value)


def _factories(values: Iterable[object]) -> tuple[object, ...]:
    found = tuple(values)
    for factory in found:
        if not callable(factory):
            raise TypeError(f"around holds factories of context managers, not {describe(factory)}")
    return found


def _paths(values: Iterable[Any]) -> tuple[Path, ...]:
    return tuple(map(Path, values))


def _tuples(value: Any) -> dict[str, tuple[str, ...]]:
    return {key: tuple(each) for key, each in dict(value or {}).items()}


def _dict(value: Any) -> dict[str, object]:
    return dict(value or {})


_NO_LIMIT = partial(check_count, optional=True)
_FROM_ZERO = partial(check_count, least=0)


_NOT_IN_FILES = {
    "bundle_roots": "is the option bundles: bundles = [..]",
    "job_folder": "is the option jobs: jobs = ..",
    "watch_jobs": "is the option watch-jobs",
    "backends": "holds objects; a program of your own gives them",
    "around": "holds objects; a program of your own gives them",
    "secrets": "is a function; a program of your own gives it",
}
"""What the table of a file cannot say, and why."""
_CLASSES: Mapping[str, Any] = {"watch": WatchDelays, "bundle_limits": SourceLimits}


# ---- the options


@attrs.frozen(kw_only=True)
class ServerOptions:
    """The options of a Server, checked. Raises `TypeError`, `ArgumentError` for what cannot be meant."""

    bundle_roots: tuple[Path, ...] = option(
        (),
        "The folders whose bundles are adopted, those that come later too. A definition may name bundles in no others.",
        check=_several,
        convert=_paths,
    )
    adopt: bool = option(
        True, "False: the roots only say where bundles may lie; none is adopted.", check=_flag
    )
    watch: bool | WatchDelays = option(
        True,
        "Whether bundles are loaded anew when they change on disk; WatchDelays sets times. False: at `reload` only.",
        check=_watching,
    )
    bundle_limits: SourceLimits = option(SourceLimits(), "How large a bundle may be.", check=_limits)
    load_timeout: float = option(
        60.0,
        "How long importing a bundle may take.",
        unit="seconds",
        check=partial(check_seconds, endless=True),
    )
    shared: tuple[str, ...] = option(
        (),
        "Modules that bundles do not get a copy of their own of, but share with the program.",
        check=_several,
        convert=tuple,
    )
    snapshot_folder: Path | None = option(
        None,
        "Where the copies of loaded code are kept. None: in the temporary folder.",
        check=_folder,
        convert=_path,
    )
    journal: Any = option(
        None,
        "Where runs are written so that they survive the program: the path of a file, or a Journal. None: nowhere.",
        check=_journal,
    )
    results: Literal["exact", "pickle"] = option(
        "exact",
        'What the journal keeps of results that have no exact form in JSON: nothing, or their "pickle".',
        check=_results,
    )
    job_folder: Path | None = option(
        None,
        "The folder of definition files, which are loaded after the bundles; `save` writes there.",
        check=_folder,
        convert=_path,
    )
    watch_jobs: bool = option(False, "Whether definitions follow their files in the job folder.", check=_flag)
    fire_schedules: bool = option(
        True,
        "Whether schedules start runs. One of several Servers with the same jobs should: else all starts come doubly.",
        check=_flag,
    )
    threads: int = option(
        40, "Tasks that run in threads at once.", unit="threads", check=partial(check_count, least=1)
    )
    processes: int | None = option(
        None,
        "Tasks that run in processes at once. None: one for each core.",
        unit="processes",
        check=_NO_LIMIT,
    )
    backends: Mapping[str, Backend] = option(
        None,
        "Further places where tasks run, by the name that `backend` says.",
        check=_backends,
        convert=_dict,
    )
    pools: Mapping[str, int] = option(
        None,
        'Limits shared by all runs: {"db": 4} lets four attempts of tasks with "pool": "db" run at once.',
        unit="places",
        check=lambda value, _: check_pools(value),
        convert=_dict,
    )
    max_parallel: int | None = option(
        None, "Attempts of all runs at once. None: no limit.", unit="attempts", check=_NO_LIMIT
    )
    max_runs: int | None = option(
        None, "Runs that execute at once; more are queued. None: no limit.", unit="runs", check=_NO_LIMIT
    )
    queue_limit: int = option(
        10_000, "Runs that may be queued; a start beyond it raises BusyError.", unit="runs", check=_FROM_ZERO
    )
    grace: float = option(
        10.0,
        "How long a cancelled attempt may clean up before it is killed.",
        unit="seconds",
        check=check_seconds,
    )
    blocked_after: float | None = option(
        1.0,
        "A task that holds the event loop for so long is named in its log. None: nobody watches.",
        unit="seconds",
        check=partial(check_seconds, optional=True, endless=True),
    )
    history: tuple[int, float] = option(
        (1_000, 24 * 3600.0),
        "How many ended runs are kept, and for how long.",
        unit="runs, seconds",
        check=_count_and_age,
        convert=tuple,
    )
    keep_events: int = option(
        10_000,
        "Events of each run, and of the Server, that are kept for who follows later.",
        unit="events",
        check=_FROM_ZERO,
    )
    log_limit: int = option(
        1 << 20, "How much of each run's log stays in memory.", unit="bytes", check=check_count
    )
    log_folder: Path | None = option(
        None,
        "A folder where each run's whole log is kept in a file until the run is evicted. None: nowhere.",
        check=_folder,
        convert=_path,
    )
    capture_print: bool = option(False, "Whether what tasks print goes into their runs' logs.", check=_flag)
    capture_loggers: tuple[str, ...] = option(
        (),
        'Loggers whose lines go into the log of the run while a task writes them: ("httpx",).',
        check=_several,
        convert=tuple,
    )
    around: tuple[Around, ...] = option(
        (),
        "Factories of context managers that are entered around each attempt, in worker processes too.",
        check=_several,
        convert=_factories,
    )
    secret_env: Mapping[str, tuple[str, ...]] = option(
        None,
        'Which jobs may read which variables as the `env` of a secret, by patterns: {"etl_*": ["DB_*"]}.',
        check=_patterns,
        convert=_tuples,
    )
    secrets: Callable[[str, str], object] | None = option(
        None,
        "Called in a thread with the job and the `env` of a secret, for its value: for what `secret_env` does not "
        "allow. None, or LookupError: there is none. With another error it is down: runs of an earlier life wait, and "
        "it is asked again.",
        check=_function,
    )

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Self:
        """Return the options that keyword arguments say. Raises `TypeError` for an unknown one, naming the nearest."""
        names = [field.name for field in attrs.fields(cls)]
        for name in keywords:
            if name not in names:
                raise TypeError(f"a Server has no option {name!r}{did_you_mean(name, names)}")
        return cls(**keywords)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the keyword arguments that a table of a TOML file says, and in words all that is wrong with it."""
        found: dict[str, object] = {}
        wrong: list[str] = []
        names = [field.name for field in attrs.fields(cls) if field.name not in _NOT_IN_FILES]
        for name, value in table.items():
            if name in _NOT_IN_FILES:
                wrong.append(f'"{name}" {_NOT_IN_FILES[name]}')
            elif name not in names:
                hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
                wrong.append(f'unknown option "{name}"{hint}')
            else:
                try:
                    given = _CLASSES[name](**value) if name in _CLASSES and isinstance(value, dict) else value
                    cls(**{name: given})
                except (TypeError, ArgumentError) as error:
                    wrong.append(str(error))
                else:
                    found[name] = given
        return found, wrong

    def as_dict(self) -> dict[str, Any]:
        """Return the options as keyword arguments of `Server`."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}

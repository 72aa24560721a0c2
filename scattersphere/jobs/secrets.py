"""Secret parameters of runs: read from the environment, or asked of the host, when a run starts or goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio
import anyio.to_thread
import attrs

from scattersphere.errors import BusyError, ClosedError, DefinitionError, UnresolvedError
from scattersphere.logs.masking import hide
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.definition import Parameter
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from scattersphere.engine.executor import JobExecutor
    from scattersphere.errors import ScattersphereError
    from scattersphere.model.definition import JobDefinition

Wanted: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""What is to be read for a run: the job, with parameters and variables."""
FIRST_GAP, LONGEST_GAP = 1.0, 60.0
"""Seconds until a provider that has failed is asked again for runs of an earlier life; twice as many each time."""
BARE = 4
"""Characters of a secret that is also masked where it stands without quotes: shorter ones are in many words."""
QUOTED = 200
"""Characters of a value that messages quote."""
EARLY_SECONDS = 30.0
"""How long secrets that were read for a run of a schedule are kept for it: it starts at once, or is refused."""
_log = logging.getLogger("scattersphere.jobs")


@attrs.frozen
class SecretsRead:
    """The secrets of a run as far as they could be read, and what is wrong with the others. No value is shown."""

    values: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()
    is_down: bool = False
    """Whether the provider has failed: asked again, it may answer."""

    def check(self, job: str) -> None:
        """Raise `DefinitionError` where one could not be read."""
        if self.problems:
            raise DefinitionError(list(self.problems), source=f"parameters of {job}")

    @property
    def words(self) -> str:
        """What is wrong, in one line."""
        return "; ".join(f"{problem.path} {problem.message}" for problem in self.problems)


NOTHING_READ = SecretsRead()


class Secrets:
    """Reads the secret parameters that name an `env`, and that were not given by value.

    `allowed` has patterns of variables by patterns of jobs. What it does not allow is asked of the `provider`, in a
    thread: it may take its time. It answers None, or raises `LookupError`, for what it does not know.
    """

    def __init__(
        self, allowed: Mapping[str, Collection[str]], provider: Callable[[str, str], object] | None
    ) -> None:
        self._allowed = allowed
        self._provider = provider
        self._reads: set[anyio.CancelScope] = set()

    def read_now(self, definition: JobDefinition, given: Collection[str]) -> SecretsRead | None:
        """Return the secrets of a run; None where the provider must be asked, and so awaited."""
        wanted = _wanted(definition, given)
        if not wanted:
            return NOTHING_READ
        if self._provider is not None and not all(
            self._allows(definition.name, env) for env in wanted.values()
        ):
            return None
        return self._read(definition, wanted)

    async def read(self, definition: JobDefinition, given: Collection[str]) -> SecretsRead:
        """Return the secrets of a run, but for those that are `given`. Raises `ClosedError`."""
        found = self.read_now(definition, given)
        if found is not None:
            return found
        with anyio.CancelScope() as scope:
            self._reads.add(scope)
            try:
                return await anyio.to_thread.run_sync(
                    self._read,
                    definition,
                    _wanted(definition, given),
                    abandon_on_cancel=True,  # it may never answer
                    limiter=anyio.CapacityLimiter(1),  # none of the host's 40 places
                )
            finally:
                self._reads.discard(scope)
        raise ClosedError("the server was closed while the provider of secrets was asked")

    def close(self) -> None:
        """Wait for no answer of the provider any more."""
        for scope in self._reads:
            scope.cancel()

    def wanted_by(self, definition: JobDefinition, given: Collection[str]) -> Wanted:
        """Return what is to be read for a run: the job, with parameters and variables."""
        return definition.name, frozenset(_wanted(definition, given).items())

    def _allows(self, job: str, variable: str) -> bool:
        return any(
            fnmatchcase(job, jobs) and any(fnmatchcase(variable, pattern) for pattern in variables)
            for jobs, variables in self._allowed.items()
        )

    def _read(self, definition: JobDefinition, wanted: Mapping[str, str]) -> SecretsRead:
        values: dict[str, object] = {}
        problems: list[Problem] = []
        is_down = False
        for name, variable in wanted.items():
            value, words, has_failed = self._look_up(definition.name, variable)
            declared = definition.params[name]
            is_down = is_down or has_failed
            if words:
                problems.append(Problem(f"params.{name}", words))
            elif value is not None:
                values[name] = _as_declared(value, declared.type)
            elif declared.default is None:
                asked = self._provider is not None and not self._allows(definition.name, variable)
                where = "the provider (secrets=) does not have" if asked else "the environment does not have"
                problems.append(
                    Problem(
                        f"params.{name}", f"{where} {variable}: set it there, or give the value at the start"
                    )
                )
        return SecretsRead(values, tuple(problems), is_down)

    def _look_up(self, job: str, variable: str) -> tuple[Any, str, bool]:
        """Return the value of a secret, None where there is none, in words why not, and whether the provider failed."""
        if self._allows(job, variable):
            return os.environ.get(variable), "", False
        if self._provider is None:
            words = (
                f"job {job!r} may not read the environment variable {variable}; "
                f'allow it with Server(secret_env={{"{job}": ["{variable}"]}}), or give the value at the start'
            )
            return None, words, False
        try:
            return self._provider(job, variable), "", False
        except LookupError:
            return None, "", False
        except BaseException as error:  # noqa: BLE001 - the host's code, in a thread: it ends no program from here
            # Its message may hold anything: it is for the host's own log.
            _log.exception("the provider of secrets has failed for %s of job %s", variable, job)
            return None, f"the provider of secrets has failed for {variable} ({type(error).__name__})", True


class _Failure(NamedTuple):
    words: str
    gap: float
    due: float
    """When it is asked again."""


class AwaitedSecrets:
    """Secrets of runs that wait for them: a provider that fails is asked again, with growing gaps.

    All runs of a job that want the same are one question. Its answer is for the look that follows it and is forgotten
    then: what goes on later is to have the secrets of that time. `on_news` is called for such a look.
    """

    def __init__(self, secrets: Secrets, executor: JobExecutor) -> None:
        self._secrets = secrets
        self._executor = executor
        self.on_news: Callable[[], None] = lambda: None
        self._answers: dict[Wanted, SecretsRead] = {}
        self._failed: dict[Wanted, _Failure] = {}
        self._asking: dict[Wanted, anyio.Event] = {}

    def take_answers(self) -> Mapping[Wanted, SecretsRead]:
        """Return what has come since the last look."""
        answers, self._answers = self._answers, {}
        return answers

    def read(
        self, definition: JobDefinition, given: Collection[str], answers: Mapping[Wanted, SecretsRead]
    ) -> SecretsRead | None:
        """Return the secrets of a run; None: `why` says why not yet, and there will be news."""
        found = self._secrets.read_now(definition, given)
        wanted = self._secrets.wanted_by(definition, given)
        found = found or answers.get(wanted)
        if found is None and wanted not in self._asking and wanted not in self._answers:
            failure = self._failed.get(wanted)
            if failure is None or failure.due <= self._executor.clock():
                self._asking[wanted] = anyio.Event()
                self._executor.loop.start(self._ask(definition, given, wanted), "scattersphere secrets")
        return found

    def why(self, definition: JobDefinition, given: Collection[str]) -> str:
        """Say why the secrets of a run are not there yet."""
        failure = self._failed.get(self._secrets.wanted_by(definition, given))
        return (
            "its secrets" if failure is None else f"its secrets: {failure.words}; the provider is asked again"
        )

    async def _ask(self, definition: JobDefinition, given: Collection[str], wanted: Wanted) -> None:
        current_attempt.set(None)
        try:
            found = await self._secrets.read(definition, given)
            failure = self._failed.pop(wanted, None)
            if found.is_down:
                gap = FIRST_GAP if failure is None else min(2 * failure.gap, LONGEST_GAP)
                due = self._executor.clock() + gap
                self._failed[wanted] = _Failure(found.words, gap, due)
                self._executor.deadlines.call_at(due, self.on_news)
            else:
                self._answers[wanted] = found
        except ClosedError:
            return
        finally:
            event = self._asking.pop(wanted)
            self.on_news()
            event.set()

    async def asked(self) -> bool:
        """Wait until something that is asked is answered, for good or not; False: nothing is."""
        for event in list(self._asking.values()):
            await event.wait()
            return True
        return False

    def forget(self) -> None:
        """Nobody waits any more."""
        self._answers.clear()
        self._failed.clear()


class EarlySecrets:
    """Secrets of runs that schedules start: the provider is asked before, for a schedule waits for nobody."""

    def __init__(self, secrets: Secrets, executor: JobExecutor) -> None:
        self._secrets = secrets
        self._executor = executor
        self._found: dict[Wanted, SecretsRead] = {}
        """What it has said for runs that are about to be started, for `EARLY_SECONDS`."""
        self._asked: set[Wanted] = set()
        self.on_read: Callable[[str], None] | None = None
        """Called with the job when what `take` has asked for is there."""

    def take(self, definition: JobDefinition, given: Collection[str]) -> SecretsRead:
        """Return the secrets of a run, for which they are forgotten.

        Raises `BusyError` where the provider is asked first, and `on_read` says when to come again, or where it has
        failed.
        """
        read = self._secrets.read_now(definition, given)
        if read is None:
            read = self._found.pop(self._secrets.wanted_by(definition, given), None)
        if read is None:
            if self._secrets.wanted_by(definition, given) not in self._asked:
                self._executor.loop.start(self._ask(definition, given), "scattersphere secrets")
            raise BusyError("its secrets are being read")
        if read.is_down:
            raise BusyError(f"{read.words}; try again")
        return read

    async def read(self, definition: JobDefinition, given: Collection[str]) -> None:
        """Ask the provider for the secrets of a run that a schedule is about to start, if it is to be asked."""
        if self._secrets.read_now(definition, given) is not None:
            return
        found = await self._secrets.read(definition, given)
        wanted = self._secrets.wanted_by(definition, given)
        self._found[wanted] = found

        def forget() -> None:
            """The run was not started after all: the next one is to have the secrets of then."""
            if self._found.get(wanted) is found:
                del self._found[wanted]

        self._executor.deadlines.call_at(self._executor.clock() + EARLY_SECONDS, forget)

    async def _ask(self, definition: JobDefinition, given: Collection[str]) -> None:
        current_attempt.set(None)
        wanted = self._secrets.wanted_by(definition, given)
        self._asked.add(wanted)
        try:
            await self.read(definition, given)
        except ClosedError:
            return
        finally:
            self._asked.discard(wanted)
        if self.on_read is not None:
            self.on_read(definition.name)

    def close(self) -> None:
        """Ask for no secret any more, and forget those that were read."""
        self._secrets.close()
        self._found.clear()


def _wanted(definition: JobDefinition, given: Collection[str]) -> dict[str, str]:
    """Return what is to be read: by parameter the name of the variable."""
    return {
        name: declared.env
        for name, declared in definition.params.items()
        if isinstance(declared, Parameter) and declared.env is not None and name not in given
    }


def _as_declared(value: object, kind: str | None) -> object:
    """Return what a text means as a value of a type: variables of the environment are texts."""
    if kind in {None, "string"} or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # which is not of its type: that is told as for any value


# ---- in errors


def hide_in_error(exc: ScattersphereError, values: Iterable[object]) -> None:
    """Replace values in an error that leaves for somebody who may not know them."""
    texts = sorted({text for value in values for text in _texts(value)}, key=len, reverse=True)
    if not texts:
        return
    exc.args = tuple(hide(each, texts) if isinstance(each, str) else each for each in exc.args)
    if isinstance(exc, DefinitionError | UnresolvedError):
        exc.problems = tuple(
            attrs.evolve(
                problem,
                path=hide(problem.path, texts),
                message=hide(problem.message, texts),
                suggestion=None,
            )
            for problem in exc.problems
        )


def _texts(value: object) -> Iterator[str]:
    """Yield how a value, and what is inside it, may stand in a message."""
    if isinstance(value, dict):
        for inner in (*value, *value.values()):
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        text = str(value)
        yield from (repr(value), json.dumps(value), *([text] if len(text) >= BARE else []))
        if len(text) > QUOTED:
            yield text[:QUOTED]

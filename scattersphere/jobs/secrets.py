"""Secret parameters of runs: read from the environment, or asked of the host's provider, when a run starts."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._threads import in_thread
from scattersphere.errors import DefinitionError, UnresolvedError
from scattersphere.logs.masking import hide
from scattersphere.model.definition import Parameter
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from scattersphere.errors import ScattersphereError
    from scattersphere.model.definition import JobDefinition

BARE = 4
"""Characters of a secret that is also masked where it stands without quotes: shorter ones are in many words."""
QUOTED = 200
"""Characters of a value that messages quote."""
_log = logging.getLogger("scattersphere.jobs")


@attrs.frozen
class SecretsRead:
    """The secrets of a run as far as they could be read, and what is wrong with the others. No value is shown."""

    values: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()

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
        self, allowed: Mapping[str, Collection[str]], provider: Callable[[str, str], Any] | None
    ) -> None:
        self._allowed = allowed
        self._provider = provider

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
        """Return the secrets of a run, but for those that are `given`."""
        found = self.read_now(definition, given)
        if found is None:
            found = await in_thread(lambda: self._read(definition, _wanted(definition, given)))
        return found

    def wanted_by(
        self, definition: JobDefinition, given: Collection[str]
    ) -> tuple[str, frozenset[tuple[str, str]]]:
        """Return what is to be read for a run: the job, with parameters and variables."""
        return definition.name, frozenset(_wanted(definition, given).items())

    def _allows(self, job: str, variable: str) -> bool:
        return any(
            fnmatchcase(job, jobs) and any(fnmatchcase(variable, pattern) for pattern in variables)
            for jobs, variables in self._allowed.items()
        )

    def _read(self, definition: JobDefinition, wanted: Mapping[str, str]) -> SecretsRead:
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, variable in wanted.items():
            value, words = self._look_up(definition.name, variable)
            declared = definition.params[name]
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
        return SecretsRead(values, tuple(problems))

    def _look_up(self, job: str, variable: str) -> tuple[Any, str]:
        """Return the value of a secret, None where there is none, and in words why it cannot be asked for."""
        if self._allows(job, variable):
            return os.environ.get(variable), ""
        if self._provider is None:
            return None, (
                f"job {job!r} may not read the environment variable {variable}; "
                f'allow it with Server(secret_env={{"{job}": ["{variable}"]}}), or give the value at the start'
            )
        try:
            return self._provider(job, variable), ""
        except LookupError:
            return None, ""
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the host's code: it ends no program from here
            # Its message may hold anything: it is for the host's own log.
            _log.exception("the provider of secrets has failed for %s of job %s", variable, job)
            return None, f"the provider of secrets has failed for {variable} ({type(error).__name__})"


def _wanted(definition: JobDefinition, given: Collection[str]) -> dict[str, str]:
    """Return what is to be read: by parameter the name of the variable."""
    return {
        name: declared.env
        for name, declared in definition.params.items()
        if isinstance(declared, Parameter) and declared.env is not None and name not in given
    }


def _as_declared(value: Any, kind: str | None) -> Any:
    """Return what a text means as a value of a type: variables of the environment are texts."""
    if kind in {None, "string"} or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # which is not of its type: that is told as for any value


# ---- in errors


def hide_in_error(exc: ScattersphereError, values: Iterable[Any]) -> None:
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


def _texts(value: Any) -> Iterator[str]:
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

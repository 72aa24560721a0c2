"""A job, as a person writes it: a DAG of named tasks, their arguments and their policies.

References inside `args`, `map` and `run_if` stay JSON-like (`{"$param": "day"}`), so that what
Python builds and what a file says is the same object. `references.py` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs

from scattersphere.model.states import Overlap, TriggerRule

if TYPE_CHECKING:
    import os

    from scattersphere.model.builder import JobBuilder

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""What a job or a task may be called. Use `fullmatch`: `$` would let a newline through."""


def _names(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"a list of names is wanted: write [{value!r}]")
    return tuple(value)


Json = Mapping[str, Any]
"""A JSON object whose values belong to the user."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often a failed attempt is tried again.

    `max_attempts` counts the first one. The n-th wait is `delay * backoff ** (n - 1)` seconds, at
    most `max_delay`, and with `jitter` a random part of that ("full jitter": AWS Architecture
    Blog, Exponential Backoff And Jitter, 2015). `retry_on` names exception classes, by qualified
    or bare name; none means every `Exception`.
    """

    max_attempts: int = 1
    delay: float = 0
    backoff: float = 2
    max_delay: float = 300
    jitter: bool = True
    retry_on: tuple[str, ...] = attrs.field(default=(), converter=_names)
    comment: Any = None


@attrs.frozen(kw_only=True)
class Parameter:
    """A run parameter in its long form. `type` is a JSON type's name, or None for any."""

    type: str | None = None
    required: bool = False
    default: Any = None
    secret: bool = False
    description: str = ""
    comment: Any = None


@attrs.frozen(kw_only=True)
class TaskDefinition:
    """An entry of a job: which task class runs, with what, when, and how failures are met.

    `comment` is what stands under "//" in its object, `comments` what stands there inside "args" and "map".
    """

    task: str
    bundle: str | None = None
    description: str = ""
    args: Json = attrs.field(factory=dict)
    map: Json | None = None
    depends_on: tuple[str, ...] = attrs.field(default=(), converter=_names)
    run_if: Any = True
    trigger_rule: TriggerRule | None = attrs.field(
        default=None, converter=attrs.converters.optional(TriggerRule)
    )
    finally_: bool = False
    allow_failure: bool = False
    keep_results: bool = True
    retry: RetryPolicy = RetryPolicy()
    timeout: float | None = None
    max_parallel: int | None = None
    pool: str | None = None
    priority: int = 0
    backend: str | None = None
    comment: Any = None
    comments: Json = attrs.field(factory=dict)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return attrs.evolve(self, **changes)

    @property
    def rule(self) -> TriggerRule:
        """The trigger rule in force: a finally-task without one runs whatever happened."""
        if self.trigger_rule is not None:
            return self.trigger_rule
        return TriggerRule.ALL_DONE if self.finally_ else TriggerRule.ALL_SUCCESS


@attrs.define
class FileOrigin:
    """The file of a definition, and a digest of what it held when it was last read or written.

    Shared by the copies that `evolve` makes, so that saving one of them is known to the others.
    """

    path: str
    digest: bytes


@attrs.frozen(kw_only=True)
class JobDefinition:
    """A DAG of tasks described by data; immutable, so that any number of runs may share it.

    `params` maps a name to a plain default or a `Parameter`; `bundles` maps a bundle's name to a
    path relative to the definition file. Durations are seconds. `origin` is the file it came from,
    which takes no part in equality. `comment` is what stands under "//" in the file, `comments` what
    stands there inside "params", "bundles" and "tasks".
    """

    name: str
    description: str = ""
    params: Json = attrs.field(factory=dict)
    bundles: Mapping[str, str] = attrs.field(factory=dict)
    max_parallel: int | None = None
    max_runs: int | None = None
    overlap: Overlap = attrs.field(default=Overlap.QUEUE, converter=Overlap)
    fail_fast: bool = False
    timeout: float | None = None
    tasks: Mapping[str, TaskDefinition] = attrs.field(factory=dict)
    comment: Any = None
    comments: Json = attrs.field(factory=dict)
    origin: FileOrigin | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def path(self) -> str | None:
        """The file it came from, or was last saved to."""
        return None if self.origin is None else self.origin.path

    # The model does not know how it is written down; these doors lead to the codec, which is
    # imported when one is opened (the one upward import that the import rules allow).

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JobDefinition:
        """Read a definition file. Raises `DefinitionError` with everything wrong, `OSError`."""
        from scattersphere.codec import load_definition  # noqa: PLC0415 - see above

        return load_definition(path)

    @classmethod
    def loads(cls, text: str | bytes) -> JobDefinition:
        """Read a definition from text. Raises `DefinitionError` with everything wrong at once."""
        from scattersphere.codec import loads_definition  # noqa: PLC0415 - see above

        return loads_definition(text)

    def dumps(self) -> str:
        """Return the JSON text: key order kept, defaults omitted, a newline at the end."""
        from scattersphere.codec import dumps_definition  # noqa: PLC0415 - see above

        return dumps_definition(self)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file atomically. Raises `FileChangedError` where somebody else changed it."""
        from scattersphere.codec import save_definition  # noqa: PLC0415 - see above

        save_definition(self, path, overwrite=overwrite)

    @staticmethod
    def schema() -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the definition file."""
        from scattersphere.codec import definition_schema  # noqa: PLC0415 - see above

        return definition_schema()

    @classmethod
    def build(cls, name: str, **fields: Any) -> JobBuilder:
        """Start a builder: `JobDefinition.build("nightly").task("load", "etl.Load").done()`."""
        from scattersphere.model.builder import JobBuilder  # noqa: PLC0415 - it imports this class

        return JobBuilder(name, fields)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return attrs.evolve(self, **changes)

"""A job, as a person writes it: a DAG of named tasks, their arguments and their policies.

References inside `args`, `map` and `run_if` stay JSON-like (`{"$param": "day"}`), so that what
Python builds and what a file says is the same object. `references.py` reads them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import attrs

from scattersphere.model.frozen import FrozenDict, freeze, plain_copy
from scattersphere.model.references import upstreams
from scattersphere.model.states import Overlap, TriggerRule
from scattersphere.pictures.dot import dot
from scattersphere.pictures.mermaid import mermaid
from scattersphere.pictures.nodes import nodes_of
from scattersphere.pictures.notebook import job_html
from scattersphere.pictures.svg import document, graph
from scattersphere.pictures.tree import tree

if TYPE_CHECKING:
    import os

    from scattersphere.model.builder import JobBuilder

NAME_CHARACTERS = 128
"""The longest name."""
NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{NAME_CHARACTERS - 1}}}")
"""What a job or a task may be called. Use `fullmatch`: `$` would let a newline through."""


# Converters leave what they cannot convert as it is: the checks say what is wrong with it, and where.


def _names(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else value


def _rule(value: Any) -> Any:
    return TriggerRule(value) if value in _RULES else value


def _overlap(value: Any) -> Any:
    return Overlap(value) if value in _OVERLAPS else value


_RULES = [str(rule) for rule in TriggerRule]
_OVERLAPS = [str(overlap) for overlap in Overlap]


class Comment(enum.Enum):
    """What stands for a comment that is not there; `null` is one that is."""

    NONE = "none"

    def __repr__(self) -> str:
        return "NO_COMMENT"


NO_COMMENT: Final = Comment.NONE

Json = Mapping[str, Any]
"""A JSON object whose values belong to the user."""


@attrs.frozen(kw_only=True, slots=False)
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
    comment: Any = NO_COMMENT


@attrs.frozen(kw_only=True, slots=False)
class Parameter:
    """A run parameter in its long form. `type` is a JSON type's name, or None for any."""

    type: str | None = None
    required: bool = False
    default: Any = attrs.field(default=None, converter=plain_copy)
    secret: bool = False
    description: str = ""
    comment: Any = NO_COMMENT


@attrs.frozen(kw_only=True, slots=False)
class TaskDefinition:
    """An entry of a job: which task class runs, with what, when, and how failures are met.

    `depends_on` names tasks; `$result`s inside `args`, `map` and `run_if` imply it. Durations are seconds.

    `comment` is what stands under "//" in its object, `comments` what stands there inside "args" and "map".
    """

    task: str
    bundle: str | None = None
    description: str = ""
    args: Json = attrs.field(factory=dict, converter=plain_copy)
    map: Json | None = attrs.field(default=None, converter=plain_copy)
    depends_on: tuple[str, ...] = attrs.field(default=(), converter=_names)
    run_if: Any = attrs.field(default=True, converter=plain_copy)
    trigger_rule: TriggerRule | None = attrs.field(default=None, converter=_rule)
    finally_: bool = False
    allow_failure: bool = False
    keep_results: bool = True
    retry: RetryPolicy = RetryPolicy()
    timeout: float | None = None
    max_parallel: int | None = None
    pool: str | None = None
    priority: int = 0
    backend: str | None = None
    comment: Any = NO_COMMENT
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


def _show_defaults(cls: type) -> None:
    """Make the defaults attributes of the class, so that an instance need not hold them.

    The loader makes a task of a JSON object by taking the object over as the instance's `__dict__`
    (`codec/quick.py`): a tenth of the time of calling a constructor with nineteen fields.
    """
    for field in attrs.fields(cls):
        if field.default is not attrs.NOTHING:
            factory = getattr(field.default, "factory", None)
            setattr(cls, field.name, field.default if factory is None else FrozenDict[str, Any]())


_show_defaults(RetryPolicy)
_show_defaults(TaskDefinition)


@attrs.define
class FileOrigin:
    """The file of a definition, and a digest of what it held when it was last read or written.

    Shared by the copies that `evolve` makes, so that saving one of them is known to the others.
    """

    path: str
    digest: bytes


def _params(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return FrozenDict({name: plain_copy(item) for name, item in value.items()})


@attrs.frozen(kw_only=True, slots=False)
class JobDefinition:
    """A DAG of tasks described by data; immutable, so that any number of runs may share it.

    `params` maps a name to a plain default or a `Parameter`; `bundles` maps a bundle's name to a
    path relative to the definition file. Durations are seconds. `origin` is the file it came from,
    which takes no part in equality. `comment` is what stands under "//" in the file, `comments` what
    stands there inside "params", "bundles" and "tasks".
    """

    name: str
    description: str = ""
    params: Json = attrs.field(factory=dict, converter=_params)
    bundles: Mapping[str, str] = attrs.field(factory=dict, converter=freeze)
    max_parallel: int | None = None
    max_runs: int | None = None
    overlap: Overlap = attrs.field(default=Overlap.QUEUE, converter=_overlap)
    fail_fast: bool = False
    timeout: float | None = None
    tasks: Mapping[str, TaskDefinition] = attrs.field(factory=dict, converter=freeze)
    comment: Any = NO_COMMENT
    comments: Json = attrs.field(factory=dict)
    origin: FileOrigin | None = attrs.field(default=None, eq=False, repr=False)

    checked: ClassVar[bool] = False
    """Set on an instance by the loader, which has found nothing wrong; a copy by `evolve` is unchecked."""

    @property
    def path(self) -> str | None:
        """The file it came from, or was last saved to."""
        return None if self.origin is None else self.origin.path

    @cached_property
    def upstreams(self) -> Mapping[str, tuple[str, ...]]:
        """For each task those that it waits for: the declared ones, then those that its `$result` objects name."""
        return {name: upstreams(task) for name, task in self.tasks.items()}

    @cached_property
    def upstream_indices(self) -> Sequence[tuple[int, ...]]:
        """The same for each task in turn, as places in `tasks`. Raises `KeyError` where there is no such task."""
        number = {name: index for index, name in enumerate(self.tasks)}
        return [tuple([number[other] for other in waits]) for waits in self.upstreams.values()]

    @cached_property
    def digest(self) -> str:
        """What tells two versions of a definition apart: of its text as `dumps()` gives it, 12 hex digits."""
        from scattersphere.codec import digest_definition  # noqa: PLC0415 - see below

        return digest_definition(self)

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

    def to_mermaid(self) -> str:
        """Return the DAG as a Mermaid flowchart, which GitHub and many editors draw."""
        return mermaid(self.name, nodes_of(self.tasks), self.upstreams)

    def to_dot(self) -> str:
        """Return the DAG in the language of Graphviz: `dot -Tsvg`."""
        return dot(self.name, nodes_of(self.tasks), self.upstreams)

    def to_tree(self) -> str:
        """Return the DAG as a tree for a terminal: each task once, below the first that it waits for."""
        return tree(self.name, nodes_of(self.tasks), self.upstreams)

    def to_svg(self) -> str:
        """Return the DAG as an SVG document, which browsers and viewers open."""
        nodes = nodes_of(self.tasks)
        return document(graph(nodes, self.upstreams), ["none"], self.name)

    def _repr_html_(self) -> str:
        """Show the DAG in a notebook."""
        return job_html(self.name, nodes_of(self.tasks), self.upstreams)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return attrs.evolve(self, **changes)

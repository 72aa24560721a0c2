"""JobDefinition, TaskDefinition, Parameter, RetryPolicy: a DAG of named tasks, their arguments and policies.

References inside `args`, `map` and `run_if` stay JSON-like (`{"$param": "day"}`), so that what
Python builds and what a file says is the same object. `references.py` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import attrs

from scattersphere._cached import cached_property
from scattersphere._turns import EACH
from scattersphere.model.amounts import Amounts
from scattersphere.model.fields import COMMENT_ROW, NO_COMMENT, Record, Records, python_only, says
from scattersphere.model.forms import (
    Anything,
    Arguments,
    Condition,
    Flag,
    Lists,
    Name,
    Names,
    Number,
    OneOf,
    OrNull,
    Paths,
    Text,
    TypeName,
    Variable,
)
from scattersphere.model.frozen import FrozenDict, copies, freeze, member, names, plain_copy
from scattersphere.model.references import upstreams
from scattersphere.model.schedules import ScheduleDefinition
from scattersphere.model.states import Durability, Overlap, RunRestart, TaskRestart, TriggerRule

if TYPE_CHECKING:
    import os

    from scattersphere.model.builder import JobBuilder
    from scattersphere.pictures.job import JobPictures

Json = Mapping[str, Any]
"""A JSON object whose values belong to the user."""
JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
TASKS: Final = 200_000
"""Tasks of a job."""
INSTANCES: Final = 100_000
"""Instances of a mapped task."""
_NOTHING: FrozenDict[str, Any] = FrozenDict()
_COUNT = Number(1, whole=True)
_SECONDS = OrNull(Number(0, above=True, unit="seconds"))


@attrs.frozen(kw_only=True, slots=False)
class RetryPolicy:
    """How often a failed attempt is tried again.

    `max_attempts` counts the first one. The n-th wait is `delay * backoff ** (n - 1)` seconds, at
    most `max_delay`, and with `jitter` a random part of that ("full jitter": AWS Architecture
    Blog, Exponential Backoff And Jitter, 2015). `retry_on` names exception classes, by qualified
    or bare name; none means every `Exception`.
    """

    max_attempts: int = attrs.field(
        default=1, metadata=says(_COUNT, "The first attempt included.", shapes_plan=True)
    )
    delay: float = attrs.field(default=0, metadata=says(Number(0), "Seconds before the second attempt."))
    backoff: float = attrs.field(default=2, metadata=says(Number(1), "Factor of each further wait."))
    max_delay: float = attrs.field(default=300, metadata=says(Number(0), "Seconds of the longest wait."))
    jitter: bool = attrs.field(default=True, metadata=says(Flag(), "Wait a random part of it."))
    retry_on: tuple[str, ...] = attrs.field(
        default=(), converter=names, metadata=says(Names(), "Exception names; none means every Exception.")
    )
    comment: Any = attrs.field(default=NO_COMMENT, metadata=COMMENT_ROW)


@attrs.frozen(kw_only=True, slots=False)
class Parameter:
    """A run parameter in its long form. `type` is a JSON type's name, or None for any.

    `env` names the environment variable from which a secret is read when a run starts.
    """

    type: str | None = attrs.field(
        default=None,
        metadata=says(OrNull(TypeName(JSON_TYPES)), "The JSON type of the value; none means any."),
    )
    required: bool = attrs.field(default=False, metadata=says(Flag(), "Each start must give it."))
    default: Any = attrs.field(
        default=None, converter=plain_copy, metadata=says(Anything(), "The value where a start gives none.")
    )
    secret: bool = attrs.field(default=False, metadata=says(Flag(), "Shown as *** everywhere."))
    env: str | None = attrs.field(
        default=None,
        metadata=says(
            OrNull(Variable()),
            "The environment variable that a secret is read from when a run starts.",
            since=2,
        ),
    )
    description: str = attrs.field(default="", metadata=says(Text(), "What it is for."))
    comment: Any = attrs.field(default=NO_COMMENT, metadata=COMMENT_ROW)


@attrs.frozen(kw_only=True, slots=False)
class TaskDefinition:
    """An entry of a job: which task class runs, with what, when, and how failures are met.

    `depends_on` names tasks; `$result`s inside `args`, `map` and `run_if` imply it. Durations are seconds.

    `comment` is what stands under "//" in its object, `comments` what stands there inside "args" and "map".
    """

    task: str = attrs.field(metadata=says(Text(least=1), "Path of the task class: etl.load.LoadDay."))
    bundle: str | None = attrs.field(
        default=None, metadata=says(OrNull(Text()), "Which bundle, where two hold the path.")
    )
    description: str = attrs.field(default="", metadata=says(Text(), "What it is for."))
    args: Json = attrs.field(
        factory=dict,
        converter=plain_copy,
        metadata=says(Arguments(), 'Arguments; {"$param": ..} and {"$result": ..} refer.'),
    )
    map: Json | None = attrs.field(
        default=None,
        converter=plain_copy,
        metadata=says(
            OrNull(Lists()), "Run once for each element of these lists, in step.", shapes_plan=True
        ),
    )
    depends_on: tuple[str, ...] = attrs.field(
        default=(),
        converter=names,
        metadata=says(Names(unique=True), "Tasks that must end before; a $result implies it."),
    )
    run_if: Any = attrs.field(
        default=True,
        converter=plain_copy,
        metadata=says(Condition(), "False: the task is skipped.", shapes_plan=True),
    )
    trigger_rule: TriggerRule | None = attrs.field(
        default=None,
        converter=member,
        metadata=says(
            OrNull(OneOf(TriggerRule)), "When it starts; all_success where nothing is said.", shapes_plan=True
        ),
    )
    finally_: bool = attrs.field(
        default=False,
        metadata=says(Flag(), "Runs at the end, whatever happened.", key="finally", shapes_plan=True),
    )
    allow_failure: bool = attrs.field(
        default=False, metadata=says(Flag(), "Its failure does not fail the run.", shapes_plan=True)
    )
    keep_results: bool = attrs.field(
        default=True, metadata=says(Flag(), "False: dropped after the last reader.", shapes_plan=True)
    )
    timeout: float | None = attrs.field(
        default=None, metadata=says(_SECONDS, "Seconds of one attempt; pauses do not count.")
    )
    max_parallel: int | None = attrs.field(
        default=None, metadata=says(OrNull(_COUNT), "Instances of the map at once.", shapes_plan=True)
    )
    pool: str | None = attrs.field(
        default=None, metadata=says(OrNull(Text()), "A limit shared by all runs.", shapes_plan=True)
    )
    needs: Mapping[str, int | str] = attrs.field(
        default=_NOTHING,
        converter=freeze,
        metadata=says(
            Amounts(),
            "Places of pools that an attempt takes, all at once.",
            since=2,
            shapes_plan=True,
        ),
    )
    priority: int = attrs.field(
        default=0, metadata=says(Number(whole=True), "Higher starts first.", shapes_plan=True)
    )
    backend: str | None = attrs.field(
        default=None,
        metadata=says(OrNull(Text()), "loop, thread, process or the host's own.", shapes_plan=True),
    )
    on_restart: TaskRestart = attrs.field(
        default=TaskRestart.RETRY,
        converter=member,
        metadata=says(
            OneOf(TaskRestart),
            "When the program died while it executed: run it again, or let it have crashed.",
            since=2,
        ),
    )
    comment: Any = attrs.field(default=NO_COMMENT, metadata=COMMENT_ROW)
    retry: RetryPolicy = attrs.field(
        default=RetryPolicy(),
        metadata=says(Record(RetryPolicy), "How often a failed attempt is tried again."),
    )
    comments: Json = attrs.field(default=_NOTHING, metadata=python_only("they stand inside args and map"))

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


@attrs.frozen(kw_only=True, slots=False)
class JobDefinition:
    """A DAG of tasks described by data; immutable, so that any number of runs may share it.

    `params` maps a name to a plain default or a `Parameter`; `bundles` maps a bundle's name to a
    path relative to the definition file. Durations are seconds. `origin` is the file it came from,
    which takes no part in equality. `comment` is what stands under "//" in the file, `comments` what
    stands there inside "params", "bundles", "schedules" and "tasks".
    """

    name: str = attrs.field(metadata=says(Name(), "The name of the job."))
    description: str = attrs.field(default="", metadata=says(Text(), "What it is for."))
    bundles: Mapping[str, str] = attrs.field(
        factory=dict,
        converter=freeze,
        metadata=says(Paths(), "Bundles by name: paths relative to this file."),
    )
    max_parallel: int | None = attrs.field(
        default=None, metadata=says(OrNull(_COUNT), "Attempts of a run at once.", shapes_plan=True)
    )
    max_runs: int | None = attrs.field(
        default=None, metadata=says(OrNull(_COUNT), "Runs of this job at once.")
    )
    overlap: Overlap = attrs.field(
        default=Overlap.QUEUE,
        converter=member,
        metadata=says(
            OneOf(Overlap),
            "What a start beyond max_runs does: it waits, is refused, or takes the place of the oldest.",
        ),
    )
    fail_fast: bool = attrs.field(
        default=False, metadata=says(Flag(), "After a failure start nothing new.", shapes_plan=True)
    )
    timeout: float | None = attrs.field(
        default=None, metadata=says(_SECONDS, "Seconds of a run; pauses do not count.")
    )
    durability: Durability = attrs.field(
        default=Durability.STRICT,
        converter=member,
        metadata=says(
            OneOf(Durability),
            "What a crash of the program may take from a run, where the Server has a journal.",
            since=2,
        ),
    )
    on_restart: RunRestart = attrs.field(
        default=RunRestart.RECOVER,
        converter=member,
        metadata=says(
            OneOf(RunRestart),
            "When the program comes back: go on with an unfinished run, or let it have crashed.",
            since=2,
        ),
    )
    schedules: Mapping[str, ScheduleDefinition] = attrs.field(
        factory=dict,
        converter=freeze,
        metadata=says(
            Records(ScheduleDefinition, "schedules", named=True),
            "When runs start by themselves.",
            since=2,
        ),
    )
    comment: Any = attrs.field(default=NO_COMMENT, metadata=COMMENT_ROW)
    params: Json = attrs.field(
        factory=dict,
        converter=copies,
        metadata=says(
            Records(Parameter, "run parameters", plain=True),
            "Run parameters: a plain default, or the long form.",
        ),
    )
    tasks: Mapping[str, TaskDefinition] = attrs.field(
        factory=dict,
        converter=freeze,
        metadata=says(
            Records(TaskDefinition, "tasks", named=True, most=TASKS),
            "Tasks by name, in the order in which they are shown.",
        ),
    )
    comments: Json = attrs.field(
        default=_NOTHING, metadata=python_only("they stand inside params, bundles, schedules and tasks")
    )
    origin: FileOrigin | None = attrs.field(
        default=None, eq=False, repr=False, metadata=python_only("the file itself")
    )

    checked: ClassVar[bool] = False
    """Set on an instance by the loader, which has found nothing wrong; a copy by `evolve` is unchecked."""

    @property
    def path(self) -> str | None:
        """The file it came from, or was last saved to."""
        return None if self.origin is None else self.origin.path

    @cached_property
    def upstreams(self) -> Mapping[str, tuple[str, ...]]:
        """For each task those that it waits for: the declared ones, then those that its `$result` objects name."""
        return {
            name: upstreams(task)
            if task.args or task.map is not None or task.run_if is not True
            else task.depends_on
            for name, task in EACH.get()(self.tasks.items())
        }

    @cached_property
    def upstream_indices(self) -> Sequence[tuple[int, ...]]:
        """The same for each task in turn, as places in `tasks`. Raises `KeyError` where there is no such task."""
        number = {name: index for index, name in EACH.get()(enumerate(self.tasks))}
        return [tuple([number[other] for other in waits]) for waits in EACH.get()(self.upstreams.values())]

    @cached_property
    def codes(self) -> frozenset[tuple[str, str | None]]:
        """What its tasks run: the path of each class, and its bundle where that is known."""
        return frozenset([(task.task, task.bundle) for task in EACH.get()(self.tasks.values())])

    @cached_property
    def digest(self) -> str:
        """What tells two versions of a definition apart: of its text as `dumps()` gives it, 12 hex digits."""
        from scattersphere.definitions import digest_definition  # noqa: PLC0415 - see below

        return digest_definition(self)

    @cached_property
    def shown_digest(self) -> str:
        """The `digest` of what others may see, without secrets: from one with them a short secret could be guessed."""
        if not any(isinstance(declared, Parameter) and declared.secret for declared in self.params.values()):
            return self.digest  # with nobody else's help
        from scattersphere.definitions import without_secrets  # noqa: PLC0415 - see below

        return without_secrets(self).digest

    # The model does not know how it is written down; these doors lead to the reader, which is
    # imported when one is opened (the one upward import that the import rules allow).

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JobDefinition:
        """Read a definition file. Raises `DefinitionError` with everything wrong, `OSError`."""
        from scattersphere.definitions import load_definition  # noqa: PLC0415 - see above

        return load_definition(path)

    @classmethod
    def loads(cls, text: str | bytes) -> JobDefinition:
        """Read a definition from text. Raises `DefinitionError` with everything wrong at once."""
        from scattersphere.definitions import loads_definition  # noqa: PLC0415 - see above

        return loads_definition(text)

    def dumps(self) -> str:
        """Return the JSON text: key order kept, defaults omitted, a newline at the end."""
        from scattersphere.definitions import dumps_definition  # noqa: PLC0415 - see above

        return dumps_definition(self)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file atomically. Raises `FileChangedError` where somebody else changed it."""
        from scattersphere.definitions import save_definition  # noqa: PLC0415 - see above

        save_definition(self, path, overwrite=overwrite)

    @staticmethod
    def schema() -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the definition file."""
        from scattersphere.definitions import definition_schema  # noqa: PLC0415 - see above

        return definition_schema()

    @classmethod
    def build(cls, name: str, **fields: object) -> JobBuilder:
        """Start a builder: `JobDefinition.build("nightly").task("load", "etl.Load").done()`."""
        from scattersphere.model.builder import JobBuilder  # noqa: PLC0415 - it imports this class

        return JobBuilder(name, fields)

    def to_mermaid(self) -> str:
        """Return the DAG as a Mermaid flowchart, which GitHub and many editors draw."""
        return self._pictures().mermaid()

    def to_dot(self) -> str:
        """Return the DAG in the language of Graphviz: `dot -Tsvg`."""
        return self._pictures().dot()

    def to_tree(self) -> str:
        """Return the DAG as a tree for a terminal: each task once, below the first that it waits for."""
        return self._pictures().tree()

    def to_svg(self) -> str:
        """Return the DAG as an SVG document, which browsers and viewers open."""
        return self._pictures().svg()

    def _repr_html_(self) -> str:
        """Show the DAG in a notebook."""
        return self._pictures().html()

    def _pictures(self) -> JobPictures:
        # Most programs draw nothing, no worker process does.
        from scattersphere.pictures.job import JobPictures  # noqa: PLC0415 - see above
        from scattersphere.pictures.nodes import nodes_of  # noqa: PLC0415 - see above

        return JobPictures(self.name, nodes_of(self.tasks), self.upstreams)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return attrs.evolve(self, **changes)

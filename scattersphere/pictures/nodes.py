"""The content of a task's node in a picture: its name, what runs, and in the picture of a run how that went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from scattersphere._turns import EACH
from scattersphere.pictures.labels import duration, words

if TYPE_CHECKING:
    from collections.abc import Mapping

LINE = 120
"""Characters of a line in a picture made of text; what is longer is cut."""


class Task(Protocol):
    """What is read of a task of a definition."""

    @property
    def task(self) -> str:
        """The path of its class."""
        ...

    @property
    def map(self) -> Any:
        """Over what it runs."""
        ...

    @property
    def run_if(self) -> object:
        """On which condition."""
        ...

    @property
    def trigger_rule(self) -> object:
        """After which ends of its upstreams."""
        ...

    @property
    def finally_(self) -> bool:
        """Whether it runs at the end, whatever happened."""
        ...


@attrs.frozen
class Progress:
    """How a task of a run has come on: in `state`, after `seconds` of execution so far (None before the first)."""

    state: str
    seconds: float | None = None
    attempts: int = 0
    """Attempts so far; of a mapped task those of its instances beyond one each are in `retried`."""
    instances: int | None = None
    """How many instances a map has; None for a task without one and before its width is known."""
    counts: dict[str, int] = attrs.field(factory=dict)
    """Instances by state."""
    retried: int = 0
    """Instances that needed more than one attempt."""
    share: float | None = None
    """What the body itself says that it has done, 0 to 1."""

    def phrases(self) -> list[str]:
        """Return state, time, attempts and instances in words."""
        found = [words(self.state)]
        if self.seconds is not None:
            found.append(duration(self.seconds))
        if self.attempts > 1:
            found.append(f"{self.attempts} attempts")
        if self.instances is not None:
            found.append(f"{self.instances:,} instances")
        if self.retried:
            found.append(f"{self.retried:,} of them retried")
        return found


@attrs.frozen
class Node:
    """A task in a picture: `lines` say below its name what runs, over what and when."""

    name: str
    lines: tuple[str, ...] = ()
    mapped: bool = False
    finally_: bool = False
    progress: Progress | None = None

    @property
    def text(self) -> tuple[str, ...]:
        """The lines below the name, in a picture made of text."""
        return self.lines if self.progress is None else (*self.lines, ", ".join(self.progress.phrases()))

    @property
    def state(self) -> str | None:
        """The state that the task has, in the picture of a run."""
        return None if self.progress is None else self.progress.state


def node_of(name: str, task: Task, progress: Progress | None = None) -> Node:
    """Return the node of a task: what runs, over what, when, and how it goes."""
    lines = [task.task]
    if task.map:
        lines.append(f"for each {', '.join(map(str, task.map))}")
    if task.run_if is not True:
        lines.append(f"if {_condition(task.run_if)}")
    if task.trigger_rule is not None:
        lines.append(str(task.trigger_rule))
    mapped, last = bool(task.map), bool(task.finally_)
    return Node(name, tuple(map(plain, lines)), mapped=mapped, finally_=last, progress=progress)


def nodes_of(tasks: Mapping[str, Task]) -> list[Node]:
    """Return the nodes of a definition in its order."""
    return [node_of(name, task) for name, task in EACH.get()(tasks.items())]


def _condition(value: object) -> str:
    if isinstance(value, dict):
        for key in ("$param", "$result", "$literal"):
            if key in value:
                return f"{value[key]}{value.get('pointer', '')}"
    return json.dumps(value, default=repr)


def plain(text: str) -> str:
    """Return one printable line of at most `LINE` characters."""
    text = " ".join(text.split())
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."

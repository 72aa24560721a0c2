"""The usual task, read and found right in a microsecond or two.

`structure.py` says with cattrs what a definition may hold, and `crossrefs.py` what its names may mean, both
with words for what is wrong. That costs more than reading the text did. Nearly all tasks of a large
file are right and plain: those are recognised by `alike.py`, and the JSON object itself becomes the instance's
`__dict__`; here is seen whether what they wait for is right. Everything else, odd or wrong, is left to those
two; a property keeps all of them in agreement.
"""

from __future__ import annotations

import re
from itertools import compress
from operator import le
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.codec.alike import Alike
from scattersphere.model.definition import NAME, NAME_CHARACTERS, TaskDefinition

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

_NAMES = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*\n)*")
"""Names as `NAME` has them, of any length, each with a line break."""
Indices = list[tuple[int, ...]]


@attrs.define
class Quick:
    """The tasks of a job, most of them read quickly. All is in the file's order.

    `tasks` has None for those that could not be. `after` has the upstreams of each, `indices` the same as
    places in the file, without names of no task: of those that are not read there are none yet.
    """

    tasks: dict[str, TaskDefinition | None] = attrs.field(factory=dict)
    after: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    indices: Indices = attrs.field(factory=list)
    number: dict[str, int] = attrs.field(factory=dict)
    """The place in the file of each task."""
    ahead: bool = False
    """Whether some task stands above one that it waits for: there may be a cycle."""
    closer: list[str] = attrs.field(factory=list)
    """Tasks that are not read, or have odd names or upstreams: look closely."""
    unread: list[str] = attrs.field(factory=list)
    keys: int = 0
    """Keys of the objects of those that were read, and of all objects inside them."""

    def add(self, name: str, task: TaskDefinition, waits: tuple[str, ...]) -> None:
        """Put in one that was read otherwise."""
        self.tasks[name], self.after[name] = task, waits
        index, number = self.number[name], self.number
        self.indices[index] = indices = tuple([number[other] for other in waits if other in number])
        self.ahead = self.ahead or max(indices, default=-1) >= index


def read_usual(items: Mapping[str, Any], params: Container[str]) -> Quick:
    """Read the usual ones among the JSON objects of tasks; their objects belong to them from then on.

    The others stay as they are.
    """
    names, read = list(items), Alike(list(items.values()), params)
    waits, odd = read.waits, set(read.unread)
    number = dict(zip(names, range(len(names)), strict=True))
    if not _all_named(names):
        odd.update(index for index, name in enumerate(names) if not NAME.fullmatch(name))
    number_of = number.__getitem__
    try:
        indices = [tuple(map(number_of, found)) for found in waits]
    except KeyError:
        indices = [tuple([number[other] for other in found if other in number]) for found in waits]
    # One that stands there twice, or that is no task: else there are as many different places as names.
    if sum(map(len, map(set, indices))) != sum(map(len, waits)):
        odd.update(index for index, found in enumerate(indices) if len(set(found)) != len(waits[index]))
    # Whatever stands below all that it waits for is in no cycle.
    ahead = any(map(le, compress(range(len(names)), indices), map(max, filter(None, indices))))
    if ahead:
        odd.update(index for index, found in enumerate(indices) if index in found)
    return Quick(
        tasks=dict(zip(names, read.tasks, strict=True)),
        after=dict(zip(names, waits, strict=True)),
        indices=indices,
        number=number,
        ahead=ahead,
        closer=[names[index] for index in sorted(odd)],
        unread=[names[index] for index in sorted(read.unread)],
        keys=read.keys,
    )


def _all_named(names: Sequence[str]) -> bool:
    """Whether all names are names: to ask that of one text is quicker than of many."""
    return (
        _NAMES.fullmatch("\n".join([*names, ""])) is not None
        and max(map(len, names), default=0) <= NAME_CHARACTERS
    )

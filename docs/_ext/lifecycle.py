"""Draw the states of runs and tasks from the tables in `scattersphere/model/states.py`.

The directive `lifecycle` with the argument `run` or `task` gives a picture and the table of all moves. Only
the places of the states on the picture are written here; a state or a move that is new in the tables
is drawn without a change, and one without a place stops the build.

What all states of a group do alike is one line from the frame around them, and an end that threatens every state is a
word beside it: a line for each of them would be a tangle.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive
from text_tables import table

from scattersphere.model.states import RUN_ENDED, RUN_MOVES, TASK_ENDED, TASK_MOVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scattersphere.model.states import RunMove, TaskMove

    Move = RunMove | TaskMove

CELL_X, CELL_Y, BOX_X, BOX_Y = 190, 92, 132, 34
PLACES = {
    "run": {
        "queued": (0, 1),
        "running": (1, 1),
        "pausing": (2, 0),
        "paused": (1, 0),
        "stopping": (2, 1),
        "cancelling": (1, 2.2),
        "succeeded": (3.3, 1),
        "failed": (3.3, 2.2),
        "stopped": (3.3, 0),
        "cancelled": (0, 2.2),
        "crashed": (3.3, 3.2),
    },
    "task": {
        "pending": (0, 1),
        "running": (1.3, 1.5),
        "cancelling": (2.35, 2.3),
        "up_for_retry": (0.8, 0),
        "succeeded": (3.3, 1),
        "failed": (3.3, 0),
        "skipped": (0, 0),
        "upstream_failed": (0, 3.2),
        "cancelled": (1, 3.2),
        "crashed": (3.3, 3.2),
    },
}
TOGETHER = {"run": ("running", "pausing", "paused", "stopping"), "task": ()}
MARGIN = 14
TABLES = {"run": (RUN_MOVES, RUN_ENDED), "task": (TASK_MOVES, TASK_ENDED)}


def _centre(place: tuple[float, float]) -> tuple[float, float]:
    return place[0] * CELL_X + BOX_X / 2 + 10, place[1] * CELL_Y + BOX_Y / 2 + 10


def _border(box: Box, other: Box) -> tuple[float, float]:
    """Return where the line from the centre of a box to that of another one leaves the box."""
    dx, dy = other.x - box.x, other.y - box.y
    scale = min(box.width / 2 / abs(dx) if dx else math.inf, box.height / 2 / abs(dy) if dy else math.inf)
    return box.x + dx * scale, box.y + dy * scale


class Box(NamedTuple):
    """A state on the picture, or the frame around some of them."""

    x: float
    y: float
    width: float = BOX_X
    height: float = BOX_Y


def _frame(boxes: Iterable[Box]) -> Box:
    xs, ys = zip(*((box.x, box.y) for box in boxes), strict=True)
    return Box(
        (min(xs) + max(xs)) / 2,
        (min(ys) + max(ys)) / 2,
        max(xs) - min(xs) + BOX_X + 2 * MARGIN,
        max(ys) - min(ys) + BOX_Y + 2 * MARGIN,
    )


def _lines(kind: str) -> Iterator[tuple[str | None, str, list[Move]]]:
    """Yield the lines: from which state (None: the frame; "": everywhere), to which, for which moves."""
    moves, ended = TABLES[kind]
    live = {move.source for move in moves} - set(ended)
    left = list(moves)
    while left:
        first = left[0]
        alike = [move for move in left if move.target == first.target]
        same = [move for move in alike if move.cause == first.cause and move.source in TOGETHER[kind]]
        if {move.source for move in alike} == live and first.target == "crashed":
            yield "", first.target.value, alike
        elif len(same) == len(TOGETHER[kind]) > 0:
            alike = same
            yield None, first.target.value, alike
        else:
            alike = [first]
            yield first.source.value, first.target.value, alike
        left = [move for move in left if move not in alike]


def _line(start: Box, end: Box, title: str) -> str:
    (x1, y1), (x2, y2) = _border(start, end), _border(end, start)
    length = math.hypot(end.x - start.x, end.y - start.y)
    # Bent a little to one side, so that a move and its opposite are two lines.
    bend_x = (x1 + x2) / 2 - (end.y - start.y) / length * 14
    bend_y = (y1 + y2) / 2 + (end.x - start.x) / length * 14
    return (
        f'<path d="M{x1:.0f} {y1:.0f}Q{bend_x:.0f} {bend_y:.0f} {x2:.0f} {y2:.0f}" '
        f'fill="none" stroke="#888" marker-end="url(#tip)"><title>{escape(title)}</title></path>'
    )


def draw(kind: str) -> str:
    """Return the picture of the table `kind` as SVG."""
    moves, ended = TABLES[kind]
    boxes = {state: Box(*_centre(place)) for state, place in PLACES[kind].items()}
    width = max(box.x for box in boxes.values()) + BOX_X / 2 + 10
    height = max(box.y for box in boxes.values()) + BOX_Y / 2 + 10
    parts = [
        f'<svg viewBox="0 {-MARGIN} {width:.0f} {height + MARGIN:.0f}" role="img" aria-label="states of a {kind}" '
        'style="max-width:100%;font:13px sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>',
    ]
    together = [boxes[state] for state in TOGETHER[kind]]
    if together:
        frame = _frame(together)
        parts.append(
            f'<rect x="{frame.x - frame.width / 2:.0f}" y="{frame.y - frame.height / 2:.0f}" width="{frame.width:.0f}" '
            f'height="{frame.height:.0f}" rx="10" fill="none" stroke="#888" stroke-dasharray="5 4"/>'
        )
    for source, target, alike in _lines(kind):
        title = "\n".join(f"{move.source} to {move.target}: {move.cause}" for move in alike)
        end = boxes[target]
        if source == "":
            words = " or ".join(dict.fromkeys(move.cause for move in alike))
            parts.append(
                f'<text class="note" x="{end.x + BOX_X / 2:.0f}" y="{end.y - BOX_Y / 2 - 8:.0f}" text-anchor="end" '
                f'fill="#888">from each state before an end: {escape(words)}<title>{escape(title)}</title></text>'
            )
        else:
            parts.append(_line(frame if source is None else boxes[source], end, title))
    for state in dict.fromkeys(state for move in moves for state in (move.source, move.target)):
        x, y, *_ = boxes[state.value]
        fill = "#dfe7dd" if state in ended else "#dde5f2"
        parts.append(
            f'<rect x="{x - BOX_X / 2:.0f}" y="{y - BOX_Y / 2:.0f}" width="{BOX_X}" height="{BOX_Y}" rx="6" '
            f'fill="{fill}" stroke="#556"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#223">{state.value}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _table(kind: str) -> nodes.table:
    moves = [(move.source.value, move.target.value, move.cause) for move in TABLES[kind][0]]
    return table((2, 2, 4), ("from", "to", "because of"), moves, code=frozenset())


class Lifecycle(Directive):
    """`{lifecycle} run`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the picture and the table."""
        kind = self.arguments[0]
        return [nodes.raw("", f'<div class="picture">{draw(kind)}</div>', format="html"), _table(kind)]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("lifecycle", Lifecycle)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Draw the states of runs and tasks from the tables in `scattersphere/model/states.py`.

The directive `lifecycle` with the argument `run` or `task` gives a picture and the table of all moves. Only
the places of the states on the picture are written here; a state or a move that is new in the tables
is drawn without a change, and one without a place stops the build.
"""

from __future__ import annotations

import math
from html import escape

from docutils import nodes
from docutils.parsers.rst import Directive
from text_tables import table

from scattersphere.model.states import RUN_ENDED, RUN_MOVES, TASK_ENDED, TASK_MOVES

CELL_X, CELL_Y, BOX_X, BOX_Y = 190, 92, 132, 34
PLACES = {
    "run": {
        "queued": (0, 1),
        "running": (1, 1),
        "pausing": (1, 0),
        "paused": (0, 0),
        "stopping": (2, 0),
        "cancelling": (2, 2),
        "succeeded": (3, 1),
        "failed": (3, 2),
        "stopped": (3, 0),
        "cancelled": (1, 3),
        "crashed": (3, 3),
    },
    "task": {
        "pending": (0, 1),
        "running": (1, 1),
        "cancelling": (2, 2),
        "up_for_retry": (1, 0),
        "succeeded": (3, 1),
        "failed": (3, 0),
        "skipped": (0, 0),
        "upstream_failed": (0, 2),
        "cancelled": (1, 3),
        "crashed": (3, 3),
    },
}
TABLES = {"run": (RUN_MOVES, RUN_ENDED), "task": (TASK_MOVES, TASK_ENDED)}


def _centre(place: tuple[int, int]) -> tuple[float, float]:
    return place[0] * CELL_X + BOX_X / 2 + 10, place[1] * CELL_Y + BOX_Y / 2 + 10


def _border(x: float, y: float, towards_x: float, towards_y: float) -> tuple[float, float]:
    """Return where the line from the centre of a box to another point leaves the box."""
    dx, dy = towards_x - x, towards_y - y
    scale = min(BOX_X / 2 / abs(dx) if dx else math.inf, BOX_Y / 2 / abs(dy) if dy else math.inf)
    return x + dx * scale, y + dy * scale


def draw(kind: str) -> str:
    """Return the picture of the table `kind` as SVG."""
    moves, ended = TABLES[kind]
    places = {state: _centre(place) for state, place in PLACES[kind].items()}
    width, height = 4 * CELL_X - CELL_X + BOX_X + 20, 3 * CELL_Y + BOX_Y + 20
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="states of a {kind}" '
        'style="max-width:100%;font:13px sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>',
    ]
    for move in moves:
        (x1, y1), (x2, y2) = places[move.source.value], places[move.target.value]
        start, end = _border(x1, y1, x2, y2), _border(x2, y2, x1, y1)
        length = math.hypot(x2 - x1, y2 - y1)
        # Bent a little to one side, so that a move and its opposite are two lines.
        bend_x = (start[0] + end[0]) / 2 - (y2 - y1) / length * 14
        bend_y = (start[1] + end[1]) / 2 + (x2 - x1) / length * 14
        parts.append(
            f'<path d="M{start[0]:.0f} {start[1]:.0f}Q{bend_x:.0f} {bend_y:.0f} {end[0]:.0f} {end[1]:.0f}" '
            f'fill="none" stroke="#888" marker-end="url(#tip)">'
            f"<title>{move.source} to {move.target}: {escape(move.cause)}</title></path>"
        )
    for state in dict.fromkeys(state for move in moves for state in (move.source, move.target)):
        x, y = places[state.value]
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
        return [nodes.raw("", draw(kind), format="html"), _table(kind)]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("lifecycle", Lifecycle)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Small charts as SVG: a bar of states, columns over time, the last runs of a job."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from scattersphere.pictures.labels import words
from scattersphere.pictures.looks import LOOKS, WORST_FIRST, look_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.pictures.svg import Link

ORDER = (
    "succeeded",
    "skipped",
    "running",
    *(state for state in WORST_FIRST if state not in {"succeeded", "skipped", "running", "pending"}),
    "pending",
)
"""How states follow each other in a bar: what went well first, what waits last."""
LEAST = 0.006
"""The share of a bar that a state has at least, so that seven of ten thousand are seen."""


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    known = [state for state in ORDER if counts.get(state)]
    return [
        (state, counts[state]) for state in (*known, *(s for s in counts if s not in ORDER and counts[s]))
    ]


def _class(state: str) -> str:
    return state if state in LOOKS else "none"


def bar(counts: Mapping[str, int]) -> str:
    """Return a thin bar, stacked by states."""
    found = _sorted(counts)
    said = ", ".join(f"{count:,} {words(state)}" for state, count in found)
    total = sum(count for _, count in found) or 1
    shares = [(state, max(count / total, LEAST)) for state, count in found]
    whole = sum(share for _, share in shares) or 1
    at, parts = 0.0, []
    for state, share in shares:
        wide = 100 * share / whole
        parts.append(f'<rect class="is-{_class(state)}" x="{at:.2f}%" width="{wide:.2f}%" height="8"/>')
        at += wide
    return f'<svg class="bar" width="100%" height="8" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'


def columns(values: Sequence[Mapping[str, int]], *, high: int = 56, label: str = "") -> str:
    """Return stacked columns: runs an hour, say."""
    most = max((sum(counts.values()) for counts in values), default=0) or 1
    out = []
    for place, counts in enumerate(values):
        left, wide = 100 * place / len(values), 72 / len(values)
        y = float(high)
        for state, count in _sorted(counts):
            tall = max(2.0, (high - 2) * count / most)
            y -= tall
            place_of = f'x="{left:.2f}%" width="{wide:.2f}%" y="{y:.1f}" height="{max(tall - 0.5, 0.5):.1f}"'
            out.append(f'<rect class="is-{_class(state)}" {place_of}/>')
        if not counts:
            out.append(
                f'<rect class="nothing" x="{left:.2f}%" width="{wide:.2f}%" y="{high - 2}" height="2"/>'
            )
    head = f'<svg class="columns" width="100%" height="{high}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(out)}</svg>"


CELLS = 1_000
"""Cells of a picture of instances at most: beyond, a cell stands for several and shows the worst of them."""


def cells(states: Sequence[str], *, across: int = 100) -> str:
    """Return the instances of a map, one cell each or one for several, in their order."""
    each = max(1, -(-len(states) // CELLS))
    shown = [min(states[at : at + each], key=_badness) for at in range(0, len(states), each)]
    paths: dict[str, list[str]] = {}
    for at, state in enumerate(shown):
        path = f"M{at % across * 10} {at // across * 10}{look_of(state).square}"
        paths.setdefault(_class(state), []).append(path)
    wide, high = min(len(shown), across) * 10 + 2, -(-len(shown) // across) * 10 + 2
    said = f"{len(states):,} instances" + (
        f", {each} a cell, which shows the worst of them" if each > 1 else ""
    )
    drawn = "".join(f'<path class="is-{state}" d="{"".join(found)}"/>' for state, found in paths.items())
    return (
        f'<svg class="squares cells" width="{wide}" height="{high}" viewBox="-1 -1 {wide} {high}" role="img" '
        f'aria-label="{said}">{drawn}</svg>'
    )


def _badness(state: str) -> int:
    return _BADNESS.get(state, len(WORST_FIRST))


_BADNESS = {state: place for place, state in enumerate(WORST_FIRST)}


def strip(runs: Sequence[tuple[str, str, float]], link: Link) -> str:
    """Return the last runs of a job, given by name, state and seconds: a column each, as tall as it took."""
    longest = max((took for _, _, took in runs), default=0.0) or 1.0
    out = []
    for place, (name, state, took) in enumerate(runs):
        tall = 4 + 14 * took / longest
        mark = {
            "failed": f'<path class="mark" d="M{place * 8 + 1} 1l4 4m0 -4l-4 4"/>',
            "cancelled": f'<path class="mark" d="M{place * 8 + 1} 3h4"/>',
        }.get(state, "")
        out.append(
            f'<a href="{escape(link(name))}" class="is-{_class(state)}">'
            f"<title>#{escape(name)} {escape(words(state))}</title>"
            f'<rect x="{place * 8}" y="{26 - tall:.0f}" width="6" height="{tall:.0f}" rx="1"/>{mark}</a>'
        )
    head = f'<svg class="strip" width="{len(runs) * 8}" height="26" role="group" aria-label="Last {len(runs)} runs">'
    return f"{head}{''.join(out)}</svg>"

"""The timeline of a run as SVG: attempts as bars, one row a task, waits and pauses between them.

Places are percentages, so a timeline fills any width without script and its text is never stretched. Names stand in
HTML beside it (links, ellipsis, focus), in rows of `ROW` pixels below a head of `HEAD`.
"""

from __future__ import annotations

from html import escape
from math import floor, log10
from typing import TYPE_CHECKING

import attrs

from scattersphere.pictures.labels import duration, words
from scattersphere.pictures.looks import LOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROW = 26
"""Pixels of a row."""
HEAD = 28
"""Pixels above the first row, for the axis."""
NARROW = 0.35
"""Percent of the width below which a bar is drawn 3 px wide, so that attempts of milliseconds are seen."""
LETTER = 6.5
"""Pixels of a letter of a label, the widest of fonts taken."""
SHORTEST = 0.001
"""Seconds of a timeline at least: below, no axis could be read."""
_STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


@attrs.frozen
class Span:
    """From one time to another, in seconds since the run's start; `end` is None while it lasts."""

    begin: float
    end: float | None


@attrs.frozen
class AttemptBar(Span):
    """An attempt, and the state with which it ended or in which it is."""

    state: str


@attrs.frozen
class Lasted:
    """How long a run took, in seconds; where it has not `ended`, how long it takes so far."""

    seconds: float
    ended: bool


@attrs.frozen
class Band:
    """A task and its attempts in their order."""

    name: str
    state: str
    attempts: tuple[AttemptBar, ...] = ()


def timeline(
    rows: Sequence[Band],
    run: Lasted,
    *,
    window: tuple[float, float] | None = None,
    pauses: Sequence[Span] = (),
    chosen: str | None = None,
) -> str:
    """Return an `<svg>` of a time `window` (seconds since the start; all of it where None) of a run."""
    now = run.seconds
    begin, end = window or (0.0, now)
    plot = _Plot(begin, max(end, begin + SHORTEST), now, ROW * len(rows))
    said = f"Timeline of {len(rows)} tasks from {plot.clock(plot.begin)} to {plot.clock(plot.end)}"
    out = [
        f'<svg class="timeline" width="100%" height="{plot.high + HEAD}" role="img" aria-label="{said}">',
        *plot.axis(),
        *(plot.pause(pause) for pause in pauses),
    ]
    for place, row in enumerate(rows):
        out += plot.row(row, HEAD + ROW * place, chosen=row.name == chosen)
    if not run.ended:
        out.append(plot.line("now", now))
    return "".join(out) + "</svg>"


def ticks(begin: float, end: float, about: int = 7) -> list[float]:
    """Return round places for the lines of an axis, about so many."""
    raw = (end - begin) / about
    if raw > 2:  # noqa: PLR2004 - seconds from here on: 5, 10, 15 instead of 1, 2, 5
        step = next((step for step in _STEPS if step >= raw), 3600 * (1 + raw // 3600))
    else:
        ten = 10.0 ** floor(log10(raw))
        step = next(factor * ten for factor in (1, 2, 5, 10) if factor * ten >= raw * 0.999)
    first = -(-begin // step)
    return [step * (first + place) for place in range(int((end - step * first) / step) + 1)]


@attrs.frozen
class _Plot:
    begin: float
    end: float
    now: float
    high: int

    def at(self, seconds: float) -> float:
        """Return the place of a time, in percent of the width."""
        return 100 * (seconds - self.begin) / (self.end - self.begin)

    def clock(self, seconds: float) -> str:
        """Return a time as the axis shows it: as fine as the window is short."""
        span = self.end - self.begin
        if span < 0.005:  # noqa: PLR2004
            return f"{seconds * 1_000:.1f}".removesuffix(".0") + " ms"
        if span < 5:  # noqa: PLR2004
            return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"
        whole = round(seconds)
        if whole < 60:  # noqa: PLR2004
            return f"{whole} s"
        if whole < 3600:  # noqa: PLR2004
            return f"{whole // 60}:{whole % 60:02}"
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"

    def line(self, kind: str, seconds: float) -> str:
        place = f"{self.at(seconds):.2f}%"
        return f'<line class="{kind}" x1="{place}" x2="{place}" y1="22" y2="{self.high + HEAD}"/>'

    def axis(self) -> Iterator[str]:
        for number, seconds in enumerate(ticks(self.begin, self.end)):
            odd = " odd" if number % 2 else ""  # left out where there is little room
            place = self.at(seconds)
            if place < 99:  # noqa: PLR2004 - its text would stand outside
                middle = ' text-anchor="middle"' if 2 < place < 97 else ""  # noqa: PLR2004
                yield self.line("tick", seconds)
                yield f'<text class="axis{odd}" x="{place:.2f}%" y="15"{middle}>{self.clock(seconds)}</text>'

    def pause(self, pause: Span) -> str:
        begin, end = max(pause.begin, self.begin), min(self.now if pause.end is None else pause.end, self.end)
        if end <= begin:
            return ""
        left, wide = self.at(begin), self.at(end) - self.at(begin)
        lasted = escape(duration((self.now if pause.end is None else pause.end) - pause.begin))
        return (
            f'<rect class="hold" x="{left:.2f}%" width="{wide:.2f}%" y="22" height="{self.high + 6}">'
            f"<title>paused, {lasted}</title></rect>"
        )

    def row(self, row: Band, y: int, *, chosen: bool) -> Iterator[str]:
        if chosen:
            yield f'<rect class="row" width="100%" y="{y}" height="{ROW}"/>'
        if not row.attempts:
            yield f'<text class="axis" x="0" dx="6" y="{y + 17}">{escape(words(row.state))}</text>'
            return
        last = row.attempts[0].begin
        for number, attempt in enumerate(row.attempts, 1):
            if number > 1:
                yield self._between(last, attempt.begin, y)
            last = self.now if attempt.end is None else attempt.end
            if last >= self.begin and attempt.begin <= self.end:
                yield self._bar(row, number, attempt, last, y)
        if row.state == "up_for_retry":
            yield self._between(last, self.now, y)
        if self.begin <= last and row.attempts[0].begin <= self.end:
            yield self._took(row, last, y)

    def _between(self, begin: float, end: float, y: int) -> str:
        places = f'x1="{self.at(begin):.2f}%" x2="{self.at(end):.2f}%"'
        return f'<line class="between" {places} y1="{y + 13}" y2="{y + 13}"/>'

    def _bar(self, row: Band, number: int, attempt: AttemptBar, stop: float, y: int) -> str:
        left = max(self.at(attempt.begin), -1.0)
        wide = min(self.at(stop), 101.0) - left
        size = f'width="{wide:.2f}%"' if wide > NARROW else 'width="3"'
        state = attempt.state if attempt.state in LOOKS else "none"
        place = f'x="{left:.2f}%" {size} y="{y + 6}" height="14" rx="3"'
        said = (
            f"{row.name}, attempt {number}: {words(attempt.state)}, {duration(stop - attempt.begin)}, "
            f"from {attempt.begin:.3f} s"
        )
        hatch = f'<rect class="hatch" {place}/>' if state == "failed" else ""
        return f'<g class="is-{state}"><title>{escape(said)}</title><rect {place}/>{hatch}</g>'

    def _took(self, row: Band, last: float, y: int) -> str:
        """Return how long a task executed, behind its last bar, or before its first where there is no room."""
        spent = sum((self.now if a.end is None else a.end) - a.begin for a in row.attempts)
        said = escape(duration(spent))
        first = self.at(min(attempt.begin for attempt in row.attempts))
        if len(row.attempts) > 1 and (self.at(last) < 84 or first > 40):  # noqa: PLR2004 - as below, for more words
            said += f" · {len(row.attempts)} attempts"
        if self.at(last) < 84:  # noqa: PLR2004 - percent; beyond, the text would stand outside
            return f'<text class="axis" x="{self.at(last):.2f}%" dx="7" y="{y + 17}">{said}</text>'
        if first > 14:  # noqa: PLR2004
            return f'<text class="axis" x="{first:.2f}%" dx="-7" y="{y + 17}" text-anchor="end">{said}</text>'
        place = min(self.at(last), 100.0)
        wide = round(LETTER * len(said)) + 8  # on a ground of its own: the bar is below it
        return (
            f'<rect class="plate" x="{place:.2f}%" y="{y + 7}" width="{wide}" height="12" rx="2" '
            f'transform="translate(-{wide + 3})"/>'
            f'<text class="axis" x="{place:.2f}%" dx="-7" y="{y + 17}" text-anchor="end">{said}</text>'
        )

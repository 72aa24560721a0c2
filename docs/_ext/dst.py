"""Draw what schedules do when clocks are set, with the times that the triggers themselves give.

The directive `dst` with the argument `forward` or `back` gives a picture: above, what the clock on the wall shows;
below, a line for each schedule with its firings, along the time that really passes.
"""

from __future__ import annotations

import datetime as dt
from html import escape
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import Directive

from scattersphere.schedules.triggers import CronTrigger, EveryTrigger

if TYPE_CHECKING:
    from scattersphere.abc import Trigger

ZONE = "Europe/Berlin"
LEFT, HOUR, ROW, TOP, BOTTOM = 170, 120, 34, 54, 16
HOURS = 4
NIGHTS = {
    "forward": dt.datetime(2026, 3, 28, 23, 30, tzinfo=dt.UTC),
    "back": dt.datetime(2026, 10, 24, 23, 30, tzinfo=dt.UTC),
}
"""The instant at the left end, for the two nights of 2026."""
SCHEDULES: dict[str, Trigger] = {
    "30 2 * * *": CronTrigger.of("30 2 * * *", ZONE),
    "0 3 * * *": CronTrigger.of("0 3 * * *", ZONE),
    "*/20 2 * * *": CronTrigger.of("*/20 2 * * *", ZONE),
    "*/30 * * * *": CronTrigger.of("*/30 * * * *", ZONE),
    '"every": 3600': EveryTrigger(3600),
}


def firings(trigger: Trigger, night: str) -> list[dt.datetime]:
    """Return the times of a trigger on the picture."""
    begin = NIGHTS[night]
    found, at = [], trigger.next(begin - dt.timedelta(seconds=1))
    while at is not None and at <= begin + dt.timedelta(hours=HOURS):
        found.append(at)
        at = trigger.next(at)
    return found


def draw(night: str) -> str:
    """Return the picture of a night as SVG."""
    begin = NIGHTS[night]
    zone = CronTrigger.of("* * * * *", ZONE).zone
    width, height = LEFT + HOURS * HOUR + 20, TOP + ROW * len(SCHEDULES) + BOTTOM

    def across(instant: dt.datetime) -> float:
        return LEFT + (instant - begin).total_seconds() / 3600 * HOUR

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="clocks are set {night}" style="max-width:100%;font:12px sans-serif" fill="currentColor">',
        f'<text x="8" y="20">wall clock, {ZONE}</text><text x="8" y="38" opacity=".6">UTC</text>',
    ]
    for step in range(2 * HOURS + 1):
        instant = begin + dt.timedelta(minutes=30 * step)
        x, local = across(instant), instant.astimezone(zone)
        summer = bool(local.dst())
        parts.append(
            f'<text x="{x:.0f}" y="20" text-anchor="middle" font-weight="{"bold" if summer else "normal"}">'
            f"{local:%H:%M}</text>"
            f'<text x="{x:.0f}" y="38" text-anchor="middle" opacity=".6">{instant:%H:%M}</text>'
            f'<path d="M{x:.0f} 44V{height - BOTTOM}" stroke="currentColor" opacity=".15"/>'
        )
    for row, (name, trigger) in enumerate(SCHEDULES.items()):
        y = TOP + ROW * row + ROW / 2
        parts.append(f'<text x="8" y="{y + 4:.0f}" font-family="monospace">{escape(name)}</text>')
        parts.append(f'<path d="M{LEFT} {y:.0f}H{LEFT + HOURS * HOUR}" stroke="currentColor" opacity=".3"/>')
        for instant in firings(trigger, night):
            local = instant.astimezone(zone)
            parts.append(
                f'<circle cx="{across(instant):.0f}" cy="{y:.0f}" r="6" fill="#2a7">'
                f"<title>{escape(name)}: {local:%H:%M %z}</title></circle>"
            )
    return "".join([*parts, "</svg>"])


class Night(Directive):
    """The picture of one night."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes that stand for the directive."""
        return [nodes.raw("", f'<figure class="picture">{draw(self.arguments[0])}</figure>', format="html")]


def setup(app: object) -> dict[str, bool]:
    """Tell Sphinx of the directive."""
    app.add_directive("dst", Night)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}

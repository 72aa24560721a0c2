"""The look of each state: its colours by day and by night, its icon, its square. Nothing is said by colour alone.

What went well is calm and what failed is loud: green is lighter and less saturated than red, so that one failed square
among ten thousand is seen. Ink has a contrast of 4.5:1 on every ground where it stands, fill of 3:1 (WCAG 2.2 AA; a
test reckons it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

Theme = Literal["light", "dark"]


@attrs.frozen
class Ink:
    """Three colours of a kind of state: of text and icons, of areas, and of the ground below text."""

    ink: str
    fill: str
    ground: str


@attrs.frozen
class Palette:
    """The colours of a theme that say nothing about states."""

    page: str
    surface: str
    line: str
    edge: str
    border: str
    ink: str
    quiet: str


PALETTES: dict[Theme, Palette] = {
    "light": Palette("#f6f7f9", "#ffffff", "#dde1e7", "#a9b2be", "#c3cad3", "#16191d", "#4e5866"),
    "dark": Palette("#0f1216", "#171b21", "#2b323b", "#4d5866", "#3d4652", "#e8ebef", "#a7b0bd"),
}

INKS: dict[str, dict[Theme, Ink]] = {
    "good": {
        "light": Ink("#0a7350", "#319a72", "#e6f5ee"),
        "dark": Ink("#4fd3a0", "#45b98c", "#12291f"),
    },
    "busy": {
        "light": Ink("#1c5bc9", "#3f7fe8", "#e8f0fd"),
        "dark": Ink("#82b1ff", "#5b95f5", "#16243d"),
    },
    "bad": {
        "light": Ink("#b72a18", "#c22a17", "#fdecea"),
        "dark": Ink("#ff8b78", "#f0604a", "#361914"),
    },
    "crash": {
        "light": Ink("#94196b", "#a91d7b", "#fbeaf5"),
        "dark": Ink("#f48cc9", "#d9529f", "#351428"),
    },
    "wait": {
        "light": Ink("#835500", "#bd8400", "#fdf3dc"),
        "dark": Ink("#f0bd5a", "#d9a032", "#30240c"),
    },
    "dead": {
        "light": Ink("#84493c", "#b9796b", "#f8efec"),
        "dark": Ink("#dba596", "#a8685a", "#2a1e1b"),
    },
    "gone": {
        "light": Ink("#5f5488", "#877cb0", "#f0eef7"),
        "dark": Ink("#b9aee6", "#8378b3", "#231f33"),
    },
    "idle": {
        "light": Ink("#56606e", "#7d8897", "#eff1f4"),
        "dark": Ink("#9aa4b2", "#6d7887", "#20262e"),
    },
}


@attrs.frozen
class Look:
    """How a state looks: which inks, the body of its icon (16 x 16), and its square (a path in a cell of 8 x 8)."""

    inks: str
    icon: str
    square: str = "h7v7h-7z"


def _stroked(path: str, width: float = 1.8, extra: str = "") -> str:
    return (
        f'<g fill="none" stroke="currentColor" stroke-width="{width}" stroke-linecap="round" '
        f'stroke-linejoin="round">{extra}<path d="{path}"/></g>'
    )


def _cut_out(outline: str, inside: str) -> str:
    return f'<path fill="currentColor" d="{outline}"/><path class="ss-cut" d="{inside}"/>'


_RING = '<circle cx="8" cy="8" r="6.1"{dashes}/>'
_DASHED = _RING.format(dashes=' stroke-dasharray="3 2"')
_WHOLE = _RING.format(dashes="")
_DISC = "M8 1a7 7 0 1 0 0 14 7 7 0 1 0 0-14z"
_OCTAGON = "M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z"
_CROSS_SQUARE = (
    "m-1 -1h9v9h-9zm2 3.2l1.3 1.3l-1.3 1.3l1.2 1.2l1.3 -1.3l1.3 1.3l1.2 -1.2l-1.3 -1.3l1.3 -1.3"
    "l-1.2 -1.2l-1.3 1.3l-1.3 -1.3z"
)
_DISC_SQUARE = "m0 3.5a3.5 3.5 0 1 1 7 0a3.5 3.5 0 1 1 -7 0"

LOOKS: dict[str, Look] = {
    "none": Look(
        "idle", '<rect x="3" y="3" width="10" height="10" rx="3" fill="none" stroke="currentColor"/>'
    ),
    "pending": Look(
        "idle", _stroked("", 1.6, _RING.format(dashes=' stroke-dasharray="2.2 2.5"')), "m2.5 2.5h2v2h-2z"
    ),
    "queued": Look("idle", _stroked("M8 4.6V8l2.2 1.6", 1.6, _WHOLE), "m2.5 2.5h2v2h-2z"),
    "running": Look(
        "busy",
        '<g fill="none" stroke="currentColor" stroke-width="2"><circle cx="8" cy="8" r="6" stroke-opacity=".28"/>'
        '<path class="spin" d="M8 2a6 6 0 0 1 6 6" stroke-linecap="round"/></g>',
        _DISC_SQUARE,
    ),
    "succeeded": Look("good", _cut_out(_DISC, "M4.8 8.3l2.2 2.2 4.3-4.7")),
    "failed": Look("bad", _cut_out(_OCTAGON, "M5.5 5.5l5 5m0-5l-5 5"), _CROSS_SQUARE),
    "crashed": Look(
        "crash",
        _cut_out("M8 .8l7.2 13.4H.8z", "M8.6 5l-2 3.6h2.8l-2 3.6"),
        "m3.5 -1l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
    ),
    "up_for_retry": Look("wait", _stroked("M13.6 9.4A5.8 5.8 0 1 1 12.4 4M13 1v3.4H9.6"), "m3.5 0l3.5 7h-7z"),
    "upstream_failed": Look(
        "dead",
        _stroked(
            "M8 11.2V5M5.6 7.2L8 4.8l2.4 2.4",
            1.5,
            '<path d="M5.3 1.6h5.4l3.7 3.7v5.4l-3.7 3.7H5.3l-3.7-3.7V5.3z"/>',
        ),
        "m0 0h7v7h-7zm1.5 1.5v4h4v-4z",
    ),
    "skipped": Look("idle", _stroked("M2.5 4l4 4-4 4M7.5 4l4 4-4 4M13.5 4v8", 1.7), "m0 2.5h7v2h-7z"),
    "cancelled": Look(
        "gone", _stroked("M3.8 12.2l8.4-8.4", 1.8, _WHOLE), "m0 0l7 7v-2l-5 -5zm0 7h2l5 -5v-2z"
    ),
    "cancelling": Look("gone", _stroked("M3.8 12.2l8.4-8.4", 1.8, _DASHED), _DISC_SQUARE),
    "paused": Look("wait", _cut_out(_DISC, "M6.2 5.4v5.2M9.8 5.4v5.2"), "m0 0h2.5v7h-2.5zm4.5 0h2.5v7h-2.5z"),
    "pausing": Look(
        "wait", _stroked("M6.4 5.8v4.4M9.6 5.8v4.4", 1.7, _DASHED), "m0 0h2.5v7h-2.5zm4.5 0h2.5v7h-2.5z"
    ),
    "stopped": Look("idle", _cut_out(_DISC, "M5.8 5.8h4.4v4.4H5.8z"), "m1.5 1.5h4v4h-4z"),
    "stopping": Look("wait", _stroked("M6 6h4v4H6z", 1.7, _DASHED), "m1.5 1.5h4v4h-4z"),
}
"""Every state of a task and of a run, and `none`: that of a task in a definition."""

WORST_FIRST = (
    "failed", "crashed", "upstream_failed", "cancelled", "up_for_retry", "cancelling", "running", "pending",
    "skipped", "succeeded",
)  # fmt: skip
"""The states of tasks in the order in which a summary names them."""


def look_of(state: str | None) -> Look:
    """Return how a state looks; one that is not known, as a task of a definition does."""
    return LOOKS.get(state or "none", LOOKS["none"])


def ground_of(state: str | None) -> str:
    """Return the colour below text of a state by day: for Mermaid and Graphviz."""
    return INKS[look_of(state).inks]["light"].ground


def symbols(states: set[str]) -> str:
    """Return the `<symbol>` of the icon of each state, and the hatchings: what `<use>` refers to."""
    icons = "".join(
        f'<symbol id="ss-{state}" viewBox="0 0 16 16">{LOOKS[state].icon}</symbol>'
        for state in LOOKS
        if state in states
    )
    return f"<defs>{icons}{_HATCHES}</defs>"


_AGAIN = '<symbol id="ss-again" viewBox="0 0 16 16">' + LOOKS["up_for_retry"].icon + "</symbol>"
_HATCHES = _AGAIN + "".join(
    f'<pattern id="ss-hatch-{name}" width="{size}" height="{size}" patternUnits="userSpaceOnUse" '
    f'patternTransform="rotate(45)"><path class="ss-{name}-below" d="M0 0h{size}v{size}H0z"/>'
    f'<path class="ss-{name}-stripe" stroke-width="3" d="M0 0v{size}"/></pattern>'
    for name, size in (("dead", 8), ("bad", 6), ("hold", 8))
)


def stylesheet(scope: str = ".scattersphere", root: str = "") -> str:
    """Return the CSS of all pictures below an element that `scope` selects: by day, and by night where one wants it.

    `root` selects the element that has `data-theme`, where that is not the scope itself. Colours are written out, not
    put into variables, so that viewers of SVG other than browsers show them.
    """

    def themed(condition: str) -> str:
        return f"{root}{condition} {scope}" if root else f"{scope}{condition}"

    owner, no_light, dark = root or scope, ":not([data-theme=light])", "[data-theme=dark]"
    night = _hatch_rules(owner + no_light, "dark") + _rules(themed(no_light), "dark")
    return (
        f"{_CUT}{_hatch_rules('', 'light')}{_rules(scope, 'light')}"
        f"@media(prefers-color-scheme:dark){{{night}}}"
        f"{_hatch_rules(owner + dark, 'dark')}{_rules(themed(dark), 'dark')}"
    )


_CUT = (
    ".ss-cut{fill:none;stroke:#fff;stroke:var(--ss-surface,#fff);stroke-width:1.8;"
    "stroke-linecap:round;stroke-linejoin:round}"
)
"""What is cut out of an icon. A `<use>` is a tree of its own, so no scope may stand before the class."""


def _hatch_rules(before: str, theme: Theme) -> str:
    """Return the rules of hatchings, which stand where the icons do: outside of the pictures that use them."""
    dead, bad, wait = (INKS[kind][theme] for kind in ("dead", "bad", "wait"))
    rules = (
        f".ss-dead-below{{fill:{dead.ground}}}",
        f".ss-dead-stripe{{stroke:{dead.fill};stroke-opacity:.18}}",
        ".ss-bad-below{fill:none}",
        f".ss-bad-stripe{{stroke:{bad.ground};stroke-opacity:.7}}",
        ".ss-hold-below{fill:none}",
        f".ss-hold-stripe{{stroke:{wait.fill};stroke-opacity:.35}}",
    )
    return "".join(f"{before} {rule}".lstrip() for rule in rules)


def state_variables() -> str:
    """Return CSS that gives each class `is-STATE` its ink, fill and ground as `--c`, `--f` and `--b`."""
    return "".join(
        f".is-{state}{{"
        + "".join(
            f"--{name}:light-dark({getattr(INKS[look.inks]['light'], kind)},{getattr(INKS[look.inks]['dark'], kind)});"
            for name, kind in (("c", "ink"), ("f", "fill"), ("b", "ground"))
        )
        + "}"
        for state, look in LOOKS.items()
    )


def _rules(scope: str, theme: Theme) -> str:
    p = PALETTES[theme]
    own = f"{scope}{{background:{p.page};color:{p.ink};--ss-surface:{p.surface}}}"
    return own + "".join(f"{scope} {rule}" for rule in (*_frame(p), *_states(theme)))


def _frame(p: Palette) -> Iterator[str]:
    """Rules that do not depend on a state."""
    small = "font:400 11.5px system-ui,sans-serif"
    yield f".back{{fill:{p.page}}}"
    yield f".edge{{fill:none;stroke:{p.edge};stroke-width:1.5}}"
    yield f".edge.last{{stroke:{p.edge};stroke-dasharray:2 4}}"
    yield f".edge.faint{{stroke:{p.line};stroke-width:1}}"
    yield f".card{{fill:{p.surface};stroke:{p.border}}}"
    yield f".under{{fill:{p.page};stroke:{p.border}}}"
    yield f".box{{fill:none;stroke:{p.line}}}"
    yield f".name{{font:500 13px system-ui,sans-serif;fill:{p.ink}}}"
    yield f".meta{{{small};fill:{p.quiet}}}"
    yield f".axis{{{small};fill:{p.quiet}}}"
    # Above a bar, whatever its colour and hatch.
    yield f".plate{{fill:{p.surface}}}"
    yield f".tick{{stroke:{p.line}}}"
    yield f".track{{fill:{p.line}}}"
    yield f".between{{stroke:{p.border};stroke-dasharray:2 3;stroke-width:1.5}}"
    yield "a{text-decoration:none}"
    yield ".squares path{fill-rule:evenodd}"


def _states(theme: Theme) -> Iterator[str]:
    for state, look in LOOKS.items():
        found = INKS[look.inks][theme]
        yield f".is-{state}{{color:{found.ink};fill:{found.fill};stroke:none}}"
    busy, bad, dead, wait = (INKS[kind][theme] for kind in ("busy", "bad", "dead", "wait"))
    crash = INKS["crash"][theme]
    yield f".edge.live{{stroke:{busy.fill}}}"
    yield f".edge.dead{{stroke:{dead.fill};stroke-dasharray:4 4}}"
    yield f".is-running .card{{fill:{busy.ground};stroke:{busy.fill};stroke-width:1.5}}"
    yield f".is-failed .card{{fill:{bad.ground};stroke:{bad.fill};stroke-width:2}}"
    yield f".is-crashed .card{{fill:{crash.ground};stroke:{crash.fill};stroke-width:2}}"
    yield f".is-up_for_retry .card{{fill:{wait.ground};stroke:{wait.fill};stroke-dasharray:6 2}}"
    yield f".is-upstream_failed .card{{fill:url(#ss-hatch-dead);stroke:{dead.fill};stroke-dasharray:4 3}}"
    yield f".again{{color:{wait.ink};fill:{wait.ink}}}"
    yield f".now{{stroke:{busy.fill};stroke-width:1.5}}"
    yield ".hatch{fill:url(#ss-hatch-bad)}"
    yield ".hold{fill:url(#ss-hatch-hold)}"

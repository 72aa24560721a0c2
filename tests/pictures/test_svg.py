"""Graphs and timelines as SVG: well-formed whatever names hold, every state with a look, small when large."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.model.states import RunState, TaskState
from scattersphere.pictures.labels import duration, shorten_end, shorten_middle, width_of
from scattersphere.pictures.looks import INKS, LOOKS, PALETTES, WORST_FIRST, stylesheet, symbols
from scattersphere.pictures.nodes import Node, Progress
from scattersphere.pictures.notebook import job_html, run_html, table_html
from scattersphere.pictures.svg import document, graph
from scattersphere.pictures.timeline import AttemptBar, Band, Lasted, Span, ticks, timeline

NAMES = st.text(st.sampled_from("ab\"'<>&;é漢\U0001f600 -_"), min_size=1, max_size=40)
STATES = st.sampled_from([*map(str, TaskState), None, "unheard_of"])
EVIL = "</title></svg><script>alert(1)</script>\"'&<b>"


def nodes_of(count, state="succeeded"):
    return [Node(f"task_{at}", ("etl.Load",), progress=Progress(state, 0.5)) for at in range(count)]


def text_of(svg):
    """Parse, so that what is not well-formed fails, and return all text."""
    return "".join(ET.fromstring(svg).itertext())


def progresses():
    return st.none() | st.builds(
        Progress,
        state=st.sampled_from([*map(str, TaskState), "unheard_of"]),
        seconds=st.none() | st.floats(0, 1e6),
        attempts=st.integers(0, 30),
        instances=st.none() | st.integers(0, 100_000),
        share=st.none() | st.floats(-1, 2),
    )


@given(
    st.lists(
        st.tuples(NAMES, progresses(), st.booleans(), st.booleans()), max_size=8, unique_by=lambda n: n[0]
    )
)
def test_a_graph_is_well_formed_whatever_names_hold(entries):
    nodes = [
        Node(name, (name, name), mapped=mapped, finally_=final, progress=progress)
        for name, progress, mapped, final in entries
    ]
    upstreams = {node.name: tuple(other.name for other in nodes[:at:2]) for at, node in enumerate(nodes)}
    for link in (None, lambda name: f"?task={name}"):
        svg = graph(nodes, upstreams, chosen=nodes[0].name if nodes else None, link=link)
        text = text_of(document(svg, [node.state for node in nodes], "a <title>"))
        assert all(node.name in text for node in nodes)


@pytest.mark.parametrize("count", [3, 100, 500, 2500])
def test_names_are_escaped_in_every_size(count):
    nodes = [Node(EVIL, (EVIL,), progress=Progress("failed", 1.0)), *nodes_of(count)]
    svg = document(graph(nodes, {}, link=lambda name: f"?task={name}"), ["failed", "succeeded"], EVIL)
    root = ET.fromstring(svg)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert EVIL in "".join(root.itertext())


def test_sixty_tasks_alike_are_one_box_and_two_edges():
    shops = [f"shop_{at}" for at in range(60)]
    upstreams = {**dict.fromkeys(shops, ("list",)), "merge": tuple(shops)}
    nodes = [
        Node(name, progress=Progress("failed" if name == "shop_7" else "succeeded"))
        for name in ("list", *shops, "merge")
    ]
    svg = graph(nodes, upstreams)
    assert "60 alike: 1 failed, 59 succeeded" in svg
    paths = re.findall(r'<path class="edge" d="([^"]*)"', svg)
    assert sum(path.count("M") for path in paths) == 2


def test_a_finally_task_stands_behind_the_last_of_the_others():
    nodes = [Node("load"), Node("mail"), Node("tidy", finally_=True)]
    svg = graph(nodes, {"mail": ("load",)})
    (last,) = re.findall(r'<path class="edge last" d="([^"]*)"', svg)
    assert last.count("M") == 1


def test_ten_thousand_squares_are_a_few_hundred_elements():
    nodes = [
        Node(f"t{at}", progress=Progress("failed" if at % 1000 == 0 else "succeeded")) for at in range(10_000)
    ]
    upstreams = {f"t{at}": (f"t{at - 100}",) for at in range(100, 10_000)}
    svg = graph(nodes, upstreams, link=lambda name: f"?task={name}")
    assert sum(1 for _ in ET.fromstring(svg).iter()) < 500
    assert len(svg) < 250_000
    assert svg.count("<a ") == 10  # each failed one can be clicked


@given(NAMES, st.integers(3, 30))
def test_a_shortened_name_fits_and_keeps_its_ends(name, room):
    assert width_of(shorten_end(name, room)) <= room
    short = shorten_middle(name, room)
    assert width_of(short) <= room
    assert short == name or short.count("…") == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "< 1 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (59.97, "1 m 00 s"),
        (3599.6, "1 h 00 m"),
        (7325, "2 h 02 m"),
        (117_000, "32 h 30 m"),
        (205_200, "2 d 09 h"),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds, said):
    assert duration(seconds) == said


# ---- looks


def test_every_state_has_a_look_of_its_own():
    states = {*map(str, TaskState), *map(str, RunState)}
    assert states <= set(LOOKS), f"without a row in looks.LOOKS: {sorted(states - set(LOOKS))}"
    assert set(map(str, TaskState)) == set(WORST_FIRST)
    assert len({look.icon for look in LOOKS.values()}) == len(LOOKS)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first, second):
    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_areas_have_the_contrast_that_wcag_aa_asks_for(theme):
    palette = PALETTES[theme]
    for kind, inks in INKS.items():
        for ground in (palette.page, palette.surface, inks[theme].ground):
            assert contrast(inks[theme].ink, ground) >= 4.5, (kind, ground)
        for ground in (palette.page, palette.surface):
            assert contrast(inks[theme].fill, ground) >= 3, (kind, ground)
    for ink in (palette.ink, palette.quiet):
        assert min(contrast(ink, palette.page), contrast(ink, palette.surface)) >= 4.5


def test_a_stylesheet_touches_only_what_is_in_a_picture():
    for rule in re.findall(r"([^{}]+)\{", stylesheet(".mine")):
        assert rule.startswith((".mine", ".ss-", "@media")), rule


def test_icons_are_well_formed():
    ET.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{symbols(set(LOOKS))}</svg>')


# ---- timelines


@given(
    st.lists(
        st.builds(
            Band,
            NAMES,
            st.sampled_from([*map(str, TaskState)]),
            st.lists(
                st.builds(
                    AttemptBar, st.floats(0, 50), st.none() | st.floats(50, 90), st.sampled_from(list(LOOKS))
                ),
                max_size=3,
            ).map(tuple),
        ),
        max_size=5,
    ),
    st.floats(0, 1e5),
    st.none() | st.tuples(st.floats(0, 50), st.floats(0, 100)),
)
def test_a_timeline_is_well_formed_whatever_it_shows(rows, seconds, window):
    svg = timeline(rows, Lasted(seconds, ended=False), window=window, pauses=[Span(1, 2), Span(3, None)])
    ET.fromstring(svg)
    assert "nan" not in svg


@given(st.floats(0, 1e6), st.floats(0.001, 1e6))
def test_the_axis_has_a_few_lines_within_the_window(begin, length):
    found = ticks(begin, begin + length)
    assert len(found) <= 16
    assert all(begin - 1e-6 * length <= tick <= begin + length * 1.000001 for tick in found)


def test_an_attempt_of_a_millisecond_is_seen():
    svg = timeline([Band("a", "failed", (AttemptBar(5, 5.001, "failed"),))], Lasted(100, ended=True))
    assert 'width="3"' in svg
    assert "attempt 1: failed, 1 ms" in svg


def test_how_long_a_task_executed_stands_on_a_ground_of_its_own_where_it_stands_on_the_bar():
    svg = timeline([Band("a", "running", (AttemptBar(0, None, "running"),))], Lasted(100, ended=False))
    assert re.search(r'<rect class="plate" [^>]*/><text class="axis" [^>]*text-anchor="end">', svg)
    assert ".plate{fill:" in stylesheet()
    beside = timeline([Band("a", "running", (AttemptBar(0, 50, "running"),))], Lasted(100, ended=False))
    assert "plate" not in beside


# ---- notebooks


class Work(RunnableTask):
    fails: int = 0

    async def run(self, context):
        if context.attempt <= self.fails:
            raise ValueError(EVIL)


class Hang(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_a_run_is_drawn_with_its_failures_attempts_and_what_still_executes():
    job = (
        JobDefinition.build("night")
        .task("again", "Work", args={"fails": 1}, retry={"max_attempts": 2, "delay": 0})
        .task("each", "Work", map={"fails": [0, 0, 9]})
        .task("hang", "Hang", depends_on=["again"])
        .done()
    )
    async with Server() as server:
        server.register_tasks("app", [Work, Hang])
        server.define(job)
        run = await server.start("night")
        while run.tasks["hang"].state is not TaskState.RUNNING or not run.tasks["each"].state.ended:
            await anyio.lowlevel.checkpoint()
        live = run._repr_html_()
        run.cancel()
        await run.wait()
    assert "attempt 1: failed" in live
    assert "attempt 2: succeeded" in live
    assert 'class="now"' in live
    assert "each[2]" in live
    assert "ValueError: &lt;/title&gt;" in live
    assert "<script>" not in live
    assert text_of(run.to_svg()).startswith("run 1 of night: cancelled")
    assert 'class="now"' not in run._repr_html_()


def test_a_definition_is_drawn_for_notebooks_and_as_a_file():
    job = (
        JobDefinition.build("night")
        .task("load", "etl.Load")
        .task("mail", "etl.Mail", depends_on=["load"])
        .done()
    )
    assert "etl.Mail" in job._repr_html_()
    assert text_of(job.to_svg()).startswith("night")


def test_long_lists_are_cut_and_counted():
    rows = [Band(f"t{at}", "succeeded", (AttemptBar(0, 1, "succeeded"),)) for at in range(1200)]
    html = run_html(
        "r", "succeeded", [], {}, rows=rows, lasted=Lasted(1, ended=True), pauses=[], failures={EVIL: EVIL}
    )
    assert "and 1,100 more" in html
    assert "<script>" not in html
    assert "<script>" not in table_html(EVIL, [EVIL], [("failed", [EVIL]), (None, ["x"])]) + job_html(
        EVIL, [], {}
    )


@pytest.mark.anyio
async def test_a_server_shows_its_runs_the_newest_first():
    async with Server() as server:
        server.register_tasks("app", [Work])
        for _ in range(2):
            await (await server.start_task("Work")).wait()
        html = server._repr_html_()
    assert html.index("<td>2</td>") < html.index("<td>1</td>")


def test_the_axis_of_a_run_of_less_than_a_millisecond_tells_its_lines_apart():
    bar = Band("a", "succeeded", (AttemptBar(0.0001, 0.0006, "succeeded"),))
    said = re.findall(r'class="axis"[^>]*>([^<]*)<', timeline([bar], Lasted(0.0008, ended=True)))
    lines = [words for words in said if "<" not in words and words.endswith(" ms")]
    assert len(lines) == len(set(lines)) > 3

"""Pictures of jobs as text: right in their languages, whatever names hold, however large they are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scattersphere import JobDefinition
from scattersphere.model.definition import TaskDefinition
from scattersphere.pictures.nodes import nodes_of, plain
from scattersphere.pictures.tree import INDENT

JOB = (
    JobDefinition.build("nightly")
    .task("find", "etl.Find")
    .task("count", "etl.Count", map={"path": {"$result": "find"}})
    .task("mail", "etl.Mail", depends_on=["count", "find"], run_if={"$param": "loud"})
    .task("tidy", "etl.Tidy", finally_=True)
    .done()
)
DOT_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
DOT_LINE = re.compile(
    r'\s*("S"|("S" -> "S"|"S" \[(?:[a-z]+=("S"|\d+)(, )?)*\]|node \[shape=box(, [a-z]+="S")*\]);|digraph "S" \{|\})?'
)
MERMAID_NODE = re.compile(
    r'\s+t\d+(\["[^"`<>{};]*(<br/>[^"`<>{};]*)*"\]|\[\["[^"`<>{};]*(<br/>[^"`<>{};]*)*"\]\])'
)
ENTITY = re.compile(r"#\d+;")
ODD_NAMES = st.text(st.sampled_from('ab"\\<>[](){}&;#`|%\n\x1b -→é'), min_size=1, max_size=8)


@st.composite
def odd_jobs(draw):
    """A job that nobody checked, whose names hold what pictures are made of."""
    names = draw(st.lists(ODD_NAMES, unique=True, min_size=1, max_size=6))
    tasks = {}
    for name in names:
        after = draw(st.lists(st.sampled_from(list(tasks)), unique=True, max_size=3)) if tasks else []
        tasks[name] = TaskDefinition(
            task=draw(ODD_NAMES),
            depends_on=after,
            finally_=draw(st.booleans()),
            map=draw(st.none() | st.dictionaries(ODD_NAMES, st.just([]), max_size=2)),
            run_if=draw(st.sampled_from([True, False, {"$param": '"x'}])),
        )
    return JobDefinition(name=draw(ODD_NAMES), tasks=tasks)


def test_mermaid_shows_tasks_maps_conditions_and_the_end():
    assert JOB.to_mermaid().splitlines() == [
        "---",
        'title: "nightly"',
        "---",
        "flowchart TD",
        '    t0["find<br/>etl.Find"]',
        '    t1[["count<br/>etl.Count<br/>for each path"]]',
        '    t2["mail<br/>etl.Mail<br/>if loud"]',
        "    subgraph finally",
        '        t3["tidy<br/>etl.Tidy"]',
        "    end",
        "    t0 --> t1",
        "    t1 --> t2",
        "    t0 --> t2",
    ]


def test_dot_shows_the_same():
    text = JOB.to_dot()
    assert '"count" [label="count\\netl.Count\\nfor each path", peripheries=2];' in text
    assert '"tidy" [label="tidy\\netl.Tidy", style="rounded,filled,dashed"];' in text
    assert '"count" -> "mail";' in text
    assert text.count("->") == 3


def test_a_tree_shows_each_task_once_and_what_else_it_waits_for():
    assert JOB.to_tree().splitlines() == [
        "nightly",
        "find  etl.Find",
        "↓ count  etl.Count  for each path",
        "↓ mail  etl.Mail  if loud  also after find",
        "tidy  etl.Tidy  finally",
    ]
    fork = (
        JobDefinition.build("f")
        .task("a", "x")
        .task("b", "x", depends_on=["a"])
        .task("c", "x", depends_on=["a"])
    )
    assert fork.done().to_tree().splitlines() == ["f", "a  x", "├─ b  x", "└─ c  x"]


@given(odd_jobs())
def test_no_name_can_break_out_of_its_quotes(job):
    for line in job.to_dot().splitlines():
        assert DOT_LINE.fullmatch(DOT_STRING.sub('"S"', line)), line
    mermaid = job.to_mermaid().splitlines()
    nodes = [ENTITY.sub("E", line) for line in mermaid[4:] if '"' in line]
    assert len(nodes) == len(job.tasks)
    assert all(MERMAID_NODE.fullmatch(line) for line in nodes), nodes
    assert len(job.to_tree().splitlines()) == len(job.tasks) + 1
    assert "\x1b" not in job.to_tree() + job.to_dot() + job.to_mermaid()


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@given(odd_jobs())
def test_graphviz_reads_what_is_meant(job):
    """Its own reading, as JSON: the nodes with their names and lines, and the edges."""
    done = subprocess.run(
        ["dot", "-Tjson0"],
        input=job.to_dot(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stderr == ""
    graph = json.loads(done.stdout)
    nodes = nodes_of(job.tasks)
    # A backslash is doubled in labels, where it means something, and so in names, where it does not.
    shown = {node.name: plain(node.name).replace("\\", "\\\\") for node in nodes}
    # Two odd names may look alike, and are one node; Graphviz itself calls nodes without a name %1, %2 ...
    assume(len(set(shown.values())) == len(nodes) and "%" not in "".join(shown))
    drawn = {node["name"]: node["label"] for node in graph["objects"]}
    assert drawn.keys() == set(shown.values())
    for node in nodes:
        lines = [plain(line).replace("\\", "\\\\") for line in node.lines]
        assert drawn[shown[node.name]] == "\\n".join([shown[node.name], *lines])
    assert len(graph.get("edges", ())) == sum(map(len, job.upstreams.values()))


def test_a_long_chain_and_a_deep_fork_need_no_recursion_and_no_width():
    size = 20_000
    chain = {f"t{n}": TaskDefinition(task="a", depends_on=[f"t{n - 1}"] if n else []) for n in range(size)}
    forks = dict(chain)
    for n in range(size):
        forks[f"s{n}"] = TaskDefinition(task="a", depends_on=[f"t{n}"])
    for tasks in (chain, forks):
        job = JobDefinition(name="big", tasks=tasks)
        lines = job.to_tree().splitlines()
        assert len(lines) == len(tasks) + 1
        assert max(map(len, lines)) < 3 * INDENT + 40
        assert job.to_mermaid().count("-->") == job.to_dot().count("->") == len(tasks) - 1

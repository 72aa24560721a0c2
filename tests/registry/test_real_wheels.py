"""Well-known libraries, vendored inside bundles, load, work, coexist in two releases, and are freed."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import sys
import textwrap
import types
import weakref

import anyio
import pytest
from patience import PATIENCE
from wheelfiles import OLD_PACKAGING, bundle_of, installed, unpacked

from scattersphere.registry.registry import TaskRegistry

JOB = """
from scattersphere.runnable import RunnableTask
{imports}
class Job(RunnableTask):
    def run(self, context):
{body}
"""

USES = {
    "packaging": (
        "from packaging.specifiers import SpecifierSet\nfrom packaging.version import Version\nimport packaging",
        """
        assert Version("2.0rc1") in SpecifierSet(">=1.9", prereleases=True)
        return packaging.__name__
        """,
    ),
    "attrs": (
        "import attr, attrs\n@attrs.define\nclass Point:\n    x: int = attrs.field(validator=attrs.validators.ge(0))",
        """
        try:
            Point(-1)
        except ValueError:
            assert attrs.asdict(Point(2)) == {"x": 2} and attr.__name__.endswith(".attr")
            return attrs.__name__
        """,
    ),
    "networkx": (
        "import networkx",
        """
        graph = networkx.DiGraph([(1, 2), (2, 3), (1, 3)])
        assert list(networkx.topological_sort(graph)) == [1, 2, 3]
        assert networkx.algorithms.shortest_path(graph, 1, 3) == [1, 3]
        return networkx.__name__
        """,
    ),
    "jinja2": (
        "import jinja2",
        """
        environment = jinja2.Environment(autoescape=True, loader=jinja2.DictLoader({"a": "{% macro m(x) %}<{{ x }}>{% endmacro %}"}))
        text = environment.from_string("{% import 'a' as a %}{% for x in xs %}{{ a.m(x) }}{% endfor %}")
        assert text.render(xs=["<", 2]) == "<&lt;><2>"
        return jinja2.__name__
        """,
    ),
    "click": (
        "import click, click.testing\n@click.command()\n@click.option('--count', type=int)\n"
        "def command(count):\n    click.echo('x' * count)",
        """
        assert click.testing.CliRunner().invoke(command, ["--count", "3"]).output.strip() == "xxx"
        return click.__name__
        """,
    ),
}


def job(name):
    imports, body = USES[name]
    return JOB.format(imports=imports, body=textwrap.indent(textwrap.dedent(body).strip(), " " * 8))


@pytest.mark.parametrize("name", USES)
def test_a_vendored_library_loads_works_and_is_freed(tmp_path, name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; it is in the dependency group `test`")
    vendored = [installed(name)]
    if name == "jinja2":
        vendored.append(installed("markupsafe"))  # has a C extension, and so comes from the host
    anyio.run(use, bundle_of(tmp_path / "b.zip", job(name), vendored), name)


async def use(path, name):
    registry = TaskRegistry(collect_garbage=False)
    host = sys.modules.get(name)
    bundle = await registry.register(path)
    task = registry.find("job.Job").cls
    assert list(bundle.tasks) == ["job.Job"]  # the library was not searched for tasks
    assert await anyio.to_thread.run_sync(task().run, None) == f"{bundle.current.namespace.prefix}{name}"
    assert sys.modules.get(name) is host
    if name == "jinja2":
        assert any("markupsafe contains the C extension" in warning for warning in bundle.warnings)
    ref = weakref.ref(task)
    del task, bundle
    await registry.deregister("b")
    with anyio.fail_after(PATIENCE):
        while registry.leaks("b"):  # the worker thread that ran the body may not have let go of it yet
            await anyio.sleep(0.01)
            gc.collect()
    assert ref() is None
    await registry.aclose()


SHOW = """
from importlib.metadata import version
import packaging, packaging.version
from packaging.version import Version
from scattersphere.runnable import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        from packaging.specifiers import SpecifierSet  # lazily: of the same release
        return packaging.__version__, version("packaging"), SpecifierSet, Version("1.0")
"""


@pytest.mark.anyio
async def test_two_releases_of_a_library_work_in_two_bundles_at_the_same_time(registry, tmp_path):
    here = importlib.metadata.version("packaging")
    assert here != "23.2"
    await registry.register(bundle_of(tmp_path / "old.zip", SHOW, [unpacked(OLD_PACKAGING)]))
    await registry.register(bundle_of(tmp_path / "new.zip", SHOW, [installed("packaging")]))
    shown = {name: registry.find("job.Job", name).cls().run(None) for name in ("old", "new")}
    assert shown["old"][:2] == ("23.2", "23.2")
    assert shown["new"][:2] == (here, here)
    assert shown["old"][2] is not shown["new"][2]
    assert shown["old"][2](">=0.5").contains("1.0")
    assert shown["new"][2](">=0.5").contains("1.0")
    assert type(shown["old"][3]) is not type(shown["new"][3])


@pytest.mark.anyio
@pytest.mark.blocks_loop("to find a holder, the heap of the whole suite is searched")
async def test_what_holds_a_released_bundle_with_a_vendored_library_is_named(registry, tmp_path, monkeypatch):
    host = types.ModuleType("scattersphere_test_host")
    monkeypatch.setitem(sys.modules, host.__name__, host)
    await registry.register(bundle_of(tmp_path / "old.zip", SHOW, [unpacked(OLD_PACKAGING)]))
    host.KEPT = [registry.find("job.Job").cls().run(None)[3]]
    await registry.deregister("old")
    (leak,) = registry.leaks("old")
    assert leak.kind == "global"
    assert leak.holder.startswith(f"{host.__name__}.KEPT -> ")
    assert "packaging.version.Version" in leak.holder

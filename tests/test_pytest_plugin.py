"""The fixture `scattersphere` as a project of its own meets it: under each async plugin, in a pytest of its own."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

sys.path.insert(0, str(Path(__file__).parent / "testing"))

from rehearsedproject import make_project

pytest_plugins = ["pytester"]

ASYNCIO = ["-p", "no:trio", "-o", "asyncio_default_fixture_loop_scope=function"]
UNDER = {
    "anyio": ["-p", "no:asyncio", "-p", "no:trio"],
    "asyncio-strict": [*ASYNCIO, "-o", "asyncio_mode=strict"],
    "asyncio-auto": [*ASYNCIO, "-o", "asyncio_mode=auto"],
    "trio": ["-p", "no:asyncio"],
}
MARKS = {
    "anyio": "pytestmark = pytest.mark.anyio",
    "asyncio-strict": "pytestmark = pytest.mark.asyncio",
    "asyncio-auto": "",
    "trio": "pytestmark = pytest.mark.trio",
}
FIXTURE = {"asyncio-strict": "pytest_asyncio.fixture"}
NEEDED = {"asyncio-strict": "pytest_asyncio", "asyncio-auto": "pytest_asyncio", "trio": "pytest_trio"}


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    make_project(pytester.path)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    return pytester


def outcome_under(project: pytest.Pytester, plugin: str, *options: str, **files: str) -> pytest.RunResult:
    """Run test modules under an async plugin."""
    if plugin in NEEDED:
        pytest.importorskip(NEEDED[plugin])
    head = (
        f"import pytest\n{'import pytest_asyncio' if plugin == 'asyncio-strict' else ''}\n{MARKS[plugin]}\n"
    )
    for name, body in files.items():
        body = dedent(body).replace("@fixture", f"@{FIXTURE.get(plugin, 'pytest.fixture')}")  # noqa: PLW2901 - the same text
        project.makepyfile(**{name: head + body})
    return project.runpytest_subprocess(*UNDER[plugin], "-W", "error", *options)


every_plugin = pytest.mark.parametrize("plugin", list(UNDER))


@pytest.mark.needs("trio")
@every_plugin
def test_the_look_of_it_works_as_it_is_and_hypothesis_gets_a_rehearsal_for_each_example(project, plugin):
    result = outcome_under(
        project,
        plugin,
        "-p",
        "no:randomly",
        test_look="""
        async def test_nightly(scattersphere):
            scattersphere.fake("etl.LoadDay", lambda day, limit: [1, 2])
            run = await scattersphere.run("jobs/nightly.json", {"day": "2026-11-23"})
            assert run.succeeded, run.explain()
            scattersphere.assert_order(run, "load", "mail")

        class TestInAClass:
            @pytest.mark.parametrize("rows", [[], [1]])
            async def test_method(self, scattersphere, rows):
                scattersphere.fake("etl.LoadDay", lambda **_: rows)
                run = await scattersphere.run("jobs/nightly.json")
                assert run.results["mail"] == len(rows)

        @fixture
        async def nightly(scattersphere):
            scattersphere.fake("etl.LoadDay", lambda **_: [1, 2, 3])
            run = await scattersphere.run("jobs/nightly.json")
            yield run
            assert not scattersphere.is_open or run.succeeded

        async def test_through_an_async_fixture(nightly):
            assert nightly.results["mail"] == 3

        async def test_fails(scattersphere):
            scattersphere.fake("etl.LoadDay", lambda **_: 1)
            run = await scattersphere.run("jobs/nightly.json")
            assert run.succeeded

        async def test_leaks(scattersphere):
            scattersphere.delay("load", 3600)
            await scattersphere.start("jobs/nightly.json")
        """,
        test_properties="""
        from hypothesis import HealthCheck, given, settings, strategies as st

        @pytest.mark.parametrize("kind", ["a", "b"])
        @settings(
            max_examples=4, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
        )
        @given(rows=st.lists(st.integers(), max_size=5))
        async def test_any_rows(scattersphere, kind, rows):
            scattersphere.fake("etl.LoadDay", lambda **_: rows)
            run = await scattersphere.run("jobs/nightly.json")
            assert run.results["mail"] == len(rows)
            assert run.id == 1  # each example has a Server of its own
            assert len(rows) < 1 or kind == "b"
        """,
    )
    times = 2 if plugin == "anyio" else 1  # anyio's plugin runs each test on both loops
    result.assert_outcomes(passed=(4 + 1) * times, failed=(2 + 1) * times)
    result.stdout.fnmatch_lines(
        ["*the test leaves behind what it started*", "*run 1 of nightly is still running*"]
    )
    result.stdout.fnmatch_lines(
        [
            "*again with: --scattersphere-seed=*",
            "*run 1 of nightly: failed*",
            "*TypeError*",
            "*its log:*",
        ]
    )


def test_virtual_time_under_each_plugin(project):
    pytest.importorskip("pytest_trio")
    body = """
        async def test_an_hour(scattersphere{clock}):
            scattersphere.fake("etl.LoadDay", lambda **_: [1])
            scattersphere.fail("load")
            scattersphere.delay("mail", 20)
            run = await scattersphere.run("jobs/nightly.json")
            assert run.succeeded
            assert (run.ended_at - run.started_at).total_seconds() > 80
    """
    result = outcome_under(project, "trio", test_hour=body.format(clock=", autojump_clock"))
    result.assert_outcomes(passed=1)
    loops = """
        import pytest
        from scattersphere.testing import VirtualTimeLoop

        @pytest.fixture
        def anyio_backend():
            return "asyncio", {"loop_factory": VirtualTimeLoop}

        def pytest_asyncio_loop_factories(config, item):
            return {"virtual": VirtualTimeLoop}
    """
    project.makeconftest(dedent(loops))
    result = outcome_under(project, "asyncio-strict", test_hour=body.format(clock=""))
    result.assert_outcomes(passed=1)
    project.makeconftest(dedent(loops).replace("def pytest_asyncio", "def not_pytest_asyncio"))
    result = outcome_under(project, "anyio", test_hour=body.format(clock=""))
    result.assert_outcomes(passed=1)


def test_the_seed_of_a_failure_can_be_given_again(project):
    body = """
        async def test_it(scattersphere):
            assert scattersphere.seed == -1
    """
    failed = outcome_under(project, "anyio", "-k", "asyncio", test_it=body)
    seed = re.search(r"again with: (--scattersphere-seed=\d+)", failed.stdout.str())
    again = outcome_under(project, "anyio", "-k", "asyncio", seed[1])
    again.stdout.fnmatch_lines([f"*{seed[1]}*"])


def test_a_plain_test_holds_the_rehearsal_itself(project):
    result = outcome_under(
        project,
        "anyio",
        test_plain="""
        import anyio

        def test_closed(scattersphere):
            async def main():
                async with scattersphere:
                    scattersphere.fake("etl.LoadDay", lambda **_: [])
                    assert (await scattersphere.run("jobs/nightly.json")).succeeded
            anyio.run(main)

        def test_left_open(scattersphere):
            loop = []
            async def main():
                await scattersphere.open()
                await scattersphere.server.aclose()
            anyio.run(main)

        def test_not_used(scattersphere):
            pass
        """.replace("pytestmark", "_"),
    )
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*a plain test must close the rehearsal itself*"])


@pytest.mark.needs("trio")
def test_everything_stays_in_tmp_path_and_the_rootdir_is_the_root(project):
    project.mkdir("deep")
    result = outcome_under(
        project,
        "anyio",
        "--rootdir",
        str(project.path),
        "-k",
        "asyncio",
        **{
            "deep/test_it": """
        import tempfile, pathlib

        async def test_it(scattersphere, tmp_path, monkeypatch, pytestconfig):
            monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
            monkeypatch.chdir(tmp_path)
            assert scattersphere.root == pytestconfig.rootpath
            scattersphere.fake("etl.LoadDay", lambda **_: [])
            assert (await scattersphere.run("jobs/nightly.json")).succeeded
            assert list(tmp_path.rglob("etl.py"))
        """
        },
    )
    result.assert_outcomes(passed=1, deselected=1)


def test_a_project_without_any_async_plugin_is_not_disturbed(project):
    project.makepyfile(test_it="import sys\ndef test_it():\n    assert 'scattersphere' not in sys.modules\n")
    result = project.runpytest_subprocess(
        "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest", "-W", "error"
    )
    result.assert_outcomes(passed=1)


def test_pytest_finds_the_fixture_by_itself_and_it_is_not_autouse(project):
    (found,) = [
        entry for entry in importlib.metadata.entry_points(group="pytest11") if entry.name == "scattersphere"
    ]
    assert found.value == "pytest_scattersphere"
    result = project.runpytest_subprocess("--fixtures", "-p", "no:asyncio", "-p", "no:trio")
    result.stdout.fnmatch_lines(["scattersphere -- *pytest_scattersphere.py*", "*A real job engine*"])


def test_what_pytest_loads_at_its_start_is_cheap():
    program = "import sys, pytest; before = set(sys.modules); import pytest_scattersphere; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'pytest_scattersphere'}"

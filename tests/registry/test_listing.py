"""What people see of bundles and tasks: in a REPL, in a log, in a terminal."""

from __future__ import annotations

import re

import pytest
from bundlefiles import ETL, task_module, write

from scattersphere.errors import BundleLoadError
from scattersphere.registry.index import ROWS, rows
from scattersphere.runnable import RunnableTask

pytestmark = pytest.mark.anyio


class Rude:
    def __repr__(self):
        raise SystemExit(3)


async def test_a_bundle_shows_name_version_count_path_and_when_it_was_loaded(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    (line,) = repr(registry.bundles).splitlines()
    assert line == str(bundle)
    assert line.split()[:4] == ["etl", bundle.current.label, "1", "task"]
    assert str(tmp_path / "etl") in line
    assert f"loaded {bundle.loaded_at:%Y-%m-%d %H:%M}" in line
    assert repr(bundle) == f"<Bundle etl: {bundle.current.label}, 1 tasks, {tmp_path / 'etl'}>"


async def test_a_bundle_shows_which_runs_hold_older_versions_and_what_is_wrong(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    first = bundle.current
    for run in (7, 12):
        registry.pin(run, [first])
    file.write_text(task_module(2))
    await registry.reload("a")
    file.write_text("class Broken(:\n")
    with pytest.raises(BundleLoadError):
        await registry.reload("a")
    current, older, error = str(bundle).splitlines()
    assert bundle.current.label in current
    assert older.split() == [first.label, "held", "by", "runs", "7,", "12"]
    assert error.strip().startswith("error: ")
    assert "SyntaxError" in error
    assert repr(bundle).endswith(", with an error>")
    for run in (7, 12):
        registry.unpin(run)
    assert len(str(bundle).splitlines()) == 2


async def test_a_task_shows_parameters_types_defaults_and_the_first_line_of_its_docstring(registry, tmp_path):
    await registry.register(write(tmp_path, ETL, v=1) / "etl")
    assert repr(registry.tasks) == "etl.load.LoadDay(day: str, retries: int = 3)  [etl]  Load one day."
    assert repr(registry.find("etl.load.LoadDay")) == "<TaskClass etl:etl.load.LoadDay(day)>"


async def test_two_bundles_with_the_same_path_are_told_apart(registry, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(task_module(name))
        await registry.register(tmp_path / name / "a.py", name=name)
    assert repr(registry.tasks).splitlines() == ["one:a.Job()", "two:a.Job()"]


async def test_classes_of_the_host_and_rude_defaults_are_shown_too(registry):
    class Ask(RunnableTask):
        thing: Rude = Rude()
        names: list[str] = ["x"] * 100

        def run(self, context): ...

    bundle = registry.register_tasks("app", [Ask])
    assert "classes of the host" in str(bundle)
    assert re.search(
        r"thing: .*Rude = <Rude>, names: list\[str\] = \['x', .*\.\.\.\]\)", repr(registry.tasks)
    )


async def test_empty_and_long_listings_say_so(registry):
    assert repr(registry.bundles) == "<no bundles>"
    assert repr(registry.tasks) == "<no tasks>"
    shown = rows([f"line {number}" for number in range(ROWS + 5)], "task").splitlines()
    assert len(shown) == ROWS + 1
    assert shown[-1] == "... and 5 more"


async def test_the_listing_is_read_only_and_up_to_date(registry, tmp_path):
    listing = registry.bundles
    (tmp_path / "a.py").write_text(task_module(1))
    await registry.register(tmp_path / "a.py")
    assert list(listing) == ["a"]
    with pytest.raises(TypeError):
        listing["b"] = listing["a"]
    await registry.deregister("a")
    assert not listing

"""Job definitions inside a bundle, `jobs/*.json`, are defined with it and go with it."""

from __future__ import annotations

import json
import zipfile

import pytest

from scattersphere import BundleLoadError, JobDefinition, Server

pytestmark = pytest.mark.anyio

TASK = "from scattersphere import RunnableTask\nclass Job(RunnableTask):\n    def run(self, context): return {v}\n"


def job(name, task="etl.main.Job", **fields):
    return json.dumps({"format": 1, "name": name, "tasks": {"only": {"task": task, **fields}}})


def package(root, *, value=1, **jobs):
    """Write the package `etl` with definitions; return its folder."""
    folder = root / "etl"
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text("")
    (folder / "main.py").write_text(TASK.format(v=value))
    for file in (folder / "jobs").iterdir():
        file.unlink()
    for name, text in jobs.items():
        (folder / "jobs" / f"{name}.json").write_text(text)
    return folder


async def feed_of(server):
    kinds = []
    async for event in server.events():
        if event.kind.startswith("job-"):
            kinds.append((event.kind.value, event.job))
        if event.seq == server.last_event:
            break
    return kinds


async def test_a_bundle_brings_its_jobs_and_takes_them_away(tmp_path):
    async with Server() as server:
        bundle = await server.register(package(tmp_path, nightly=job("nightly"), daily=job("daily")))
        assert sorted(server.definitions) == ["daily", "nightly"]
        assert server.definitions["nightly"].tasks["only"].bundle == "etl"
        run = await (await server.start("nightly")).wait()
        assert run.results["only"] == 1
        assert bundle.warnings == ()
        await server.deregister("etl")
        assert not server.definitions
        assert await feed_of(server) == [
            ("job-defined", "daily"),
            ("job-defined", "nightly"),
            ("job-undefined", "daily"),
            ("job-undefined", "nightly"),
        ]


async def test_a_reload_brings_the_jobs_of_the_new_version(tmp_path):
    async with Server() as server:
        await server.register(package(tmp_path, nightly=job("nightly"), old=job("old")))
        package(tmp_path, value=2, nightly=job("nightly", priority=5), new=job("new"))
        await server.reload("etl")
        assert sorted(server.definitions) == ["new", "nightly"]
        assert server.definitions["nightly"].tasks["only"].priority == 5


async def test_a_job_that_the_host_defined_is_left_alone_and_that_is_said(tmp_path):
    async with Server() as server:
        own = server.define(JobDefinition.build("nightly", description="mine").task("a", "x.Y").done())
        bundle = await server.register(package(tmp_path, nightly=job("nightly"), daily=job("daily")))
        assert server.definitions["nightly"] is own
        assert bundle.warnings == (
            "job 'nightly' is not the one that the bundle carries: it was defined otherwise",
        )
        anew = server.define(server.definitions["daily"].evolve(description="mine too"), replace=True)
        await server.deregister("etl")
        assert dict(server.definitions) == {"nightly": own, "daily": anew}


async def test_a_wrong_definition_is_an_error_of_the_load_with_file_line_and_suggestion(tmp_path):
    async with Server() as server:
        bundle = await server.register(package(tmp_path, nightly=job("nightly")))
        before = bundle.current
        package(tmp_path, value=2, nightly=job("nightly", afetr=1), twice=job("nightly"))
        with pytest.raises(BundleLoadError, match=r"etl/jobs/nightly\.json: 1 problem") as caught:
            await server.reload("etl")
        assert "afetr" in str(caught.value)
        assert bundle.current is before
        assert "afetr" in bundle.error
        assert sorted(server.definitions) == ["nightly"]
        package(tmp_path, value=3, nightly=job("nightly"), twice=job("nightly"))
        with pytest.raises(BundleLoadError, match=r"twice\.json: another file defines the job 'nightly' too"):
            await server.reload("etl")


async def test_a_job_whose_pool_the_server_lacks_is_a_warning(tmp_path):
    async with Server() as server:
        bundle = await server.register(package(tmp_path, nightly=job("nightly", pool="db")))
        assert not server.definitions
        assert "job 'nightly' was not defined" in bundle.warnings[0]
        assert "no pool" in bundle.warnings[0]


@pytest.mark.parametrize("place", ["jobs/nightly.json", "etl/jobs/nightly.json"])
async def test_archives_carry_jobs_at_their_top_or_in_a_package(tmp_path, place):
    path = tmp_path / "etl-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("etl/__init__.py", "")
        archive.writestr("etl/main.py", TASK.format(v=1))
        archive.writestr(place, job("nightly"))
        archive.writestr("etl/data/jobs/other.json", "no definition at all")
    async with Server() as server:
        await server.register(path)
        assert sorted(server.definitions) == ["nightly"]


async def test_a_carried_job_means_the_tasks_of_its_own_bundle_first(tmp_path):
    async with Server() as server:
        folder = package(tmp_path, nightly=job("nightly"))
        await server.register(folder, name="first")
        (tmp_path / "second").mkdir()
        other = package(tmp_path / "second", value=2, daily=job("daily"))
        await server.register(other, name="second")
        assert server.definitions["daily"].tasks["only"].bundle == "second"
        assert (await (await server.start("daily")).wait()).results["only"] == 2


async def test_what_lies_in_a_vendored_library_is_no_job(tmp_path):
    folder = package(tmp_path, nightly=job("nightly")).rename(tmp_path / "etl_package")
    (tmp_path / "b").mkdir()
    folder.rename(tmp_path / "b" / "etl")
    (tmp_path / "b" / "library" / "jobs").mkdir(parents=True)
    (tmp_path / "b" / "library" / "__init__.py").write_text("")
    (tmp_path / "b" / "library" / "jobs" / "x.json").write_text("not even JSON")
    (tmp_path / "b" / "library-1.dist-info").mkdir()
    (tmp_path / "b" / "library-1.dist-info" / "RECORD").write_text(
        "library/__init__.py,,\nlibrary/jobs/x.json,,\n"
    )
    async with Server() as server:
        await server.register(tmp_path / "b")
        assert sorted(server.definitions) == ["nightly"]

"""A folder of definitions: loaded after the bundles, saved into, watched if asked for. On asyncio and on trio."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path, PurePath

import anyio
import anyio.lowlevel
import pytest
from livebundles import QUICK, task
from patience import PATIENCE

from scattersphere import (
    BundleRefusedError,
    ConflictError,
    EventKind,
    ExistsError,
    FileChangedError,
    JobDefinition,
    NoSuchJobError,
    RunnableTask,
    RunState,
    Server,
    TaskDefinition,
    UnresolvedError,
)
from scattersphere.files import file_name
from scattersphere.jobs import files as files_module
from scattersphere.jobs.claims import Claims

pytestmark = pytest.mark.anyio


def job(name, path="a.Job", **more):
    return json.dumps({"name": name, "tasks": {"only": {"task": path}}, **more})


@pytest.fixture
def root(tmp_path):
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "a.py").write_text(task(1))
    return tmp_path / "bundles"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


async def seen(server, kind, name, since=0):
    """Wait for an event of a job."""
    with anyio.fail_after(PATIENCE):
        events = server.events(since)
        while (event := await anext(events)).kind is not kind or event.job != name:
            pass
    return event


# ---- loading


async def test_the_job_folder_is_loaded_after_the_bundles_when_the_server_has_been_entered(root, folder):
    (folder / "nightly.json").write_text(job("nightly"))
    (folder / "weekly.json").write_text(job("weekly"))
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        assert sorted(server.definitions) == ["nightly", "weekly"]
        assert server.definitions["nightly"].tasks["only"].bundle == "a"
        assert not server.unresolved
        assert (await (await server.start("nightly")).wait(PATIENCE)).succeeded


async def test_files_that_cannot_be_read_are_reported_with_their_place_and_left_untouched(root, folder):
    broken = '{"name": "broken",\n "tasks": {"t": {"task": "a.Job", "retyr": {}}}}\n'
    (folder / "broken.json").write_text(broken)
    (folder / "good.json").write_text(job("good"))
    (folder / "latin.json").write_bytes(b'{"name": "\xe9"}')
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        assert list(server.definitions) == ["good"]
        assert sorted(path.name for path in server.problems) == ["broken.json", "latin.json"]
        assert (
            '2:35  tasks.t.retyr  unknown key; did you mean "retry"?'
            in server.problems[folder / "broken.json"]
        )
        failed = {event.job async for event in _first(server, 2, EventKind.JOB_FAILED)}
        assert failed == {"broken", "latin"}
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before


async def _first(server, count, kind):
    async for event in server.events():
        if event.kind is kind:
            yield event
            count -= 1
            if not count:
                return


async def test_what_is_no_definition_is_passed_over(folder):
    JobDefinition.schema()
    (folder / "job-definition.schema.json").write_text("{}")
    (folder / ".hidden.json").write_text("no JSON")
    (folder / "notes.txt").write_text("no JSON")
    (folder / "sub.json").mkdir()
    async with Server(job_folder=folder) as server:
        assert not server.definitions
        assert not server.problems


async def test_two_files_with_the_same_job_are_reported_and_the_first_stands(root, folder):
    (folder / "one.json").write_text(job("same", description="one"))
    (folder / "two.json").write_text(job("same", description="two"))
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        assert server.definitions["same"].description == "one"
        assert f"defined already, from {folder / 'one.json'}" in server.problems[folder / "two.json"]


async def test_load_all_takes_up_what_has_changed_and_nothing_else(root, folder):
    (folder / "one.json").write_text(job("one"))
    (folder / "two.json").write_text(job("two"))
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        before = dict(server.definitions)
        (folder / "two.json").write_text(job("two", description="edited"))
        (folder / "three.json").write_text(job("three"))
        loaded = await server.load_all()
        assert [definition.name for definition in loaded] == ["one", "three", "two"]
        assert server.definitions["one"] is before["one"]
        assert server.definitions["two"].description == "edited"


async def test_a_folder_that_is_not_there_is_reported(tmp_path):
    async with Server(job_folder=tmp_path / "none") as server:
        assert not server.definitions
    async with Server() as server:
        with pytest.raises(ConflictError, match="no job_folder"):
            await server.load_all()


# ---- the bundles that a file names


async def test_the_bundles_that_a_file_names_are_registered_under_its_names(root, folder):
    (root / "_private.py").write_text(task("private"))  # not adopted, but it may be named
    text = job("j", "_private.Job", bundles={"mine": "../bundles/_private.py"})
    (folder / "j.json").write_text(text)
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        assert server.registry.bundles["mine"].path == root / "_private.py"
        assert server.definitions["j"].tasks["only"].bundle == "mine"


async def test_a_files_own_bundle_comes_first_where_two_hold_the_same_path(root, folder):
    (folder / "j.json").write_text(job("j", bundles={"mine": "../bundles/a.py"}))
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        assert sorted(server.registry.bundles) == ["a", "mine"]  # adopted, and named by the file
        assert server.definitions["j"].tasks["only"].bundle == "mine"
        assert not server.unresolved


async def test_a_bundle_outside_the_roots_is_refused_and_the_job_waits(tmp_path, root, folder):
    (tmp_path / "outside.py").write_text(task("outside"))
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    for name, path in (
        ("plain", "../outside.py"),
        ("link", "../bundles/link.py"),
        ("up", "../bundles/../outside.py"),
    ):
        (folder / f"{name}.json").write_text(job(name, "outside.Job", bundles={"out": path}))
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        for name in ("plain", "link", "up"):
            assert "outside the bundle_roots" in server.problems[folder / f"{name}.json"]
            assert 'no task "outside.Job"' in str(server.unresolved[name][0])
            with pytest.raises(BundleRefusedError):
                await server.load(folder / f"{name}.json", replace=True)
        assert "out" not in server.registry.bundles


async def test_a_bundle_that_a_file_names_and_that_comes_later_makes_the_job_runnable(root, folder):
    (folder / "j.json").write_text(job("j", "late.Job", bundles={"mine": "../bundles/late.py"}))
    async with Server(bundle_roots=[root], job_folder=folder, watch=QUICK) as server:
        assert "No such file" in server.registry.bundles["mine"].error
        assert list(server.unresolved) == ["j"]
        (root / "late.py").write_text(task("late"))
        await _resolved(server, "j")
        assert server.definitions["j"].tasks["only"].bundle == "mine"
        run = await (await server.start("j")).wait(PATIENCE)
        assert run.results["only"] == "late"


async def test_a_bundle_that_is_named_through_a_link_follows_the_link(tmp_path, root, folder):
    for version in (1, 2):
        (root / f".v{version}").mkdir()
        (root / f".v{version}" / "etl.py").write_text(task(version))
    (root / "current").symlink_to(".v1")
    (folder / "j.json").write_text(job("j", "etl.Job", bundles={"mine": "../bundles/current/etl.py"}))
    async with Server(bundle_roots=[root], job_folder=folder, watch=QUICK) as server:
        first = server.registry.bundles["mine"].current
        (root / "new").symlink_to(".v2")
        (root / "new").replace(root / "current")
        with anyio.fail_after(PATIENCE):
            async for _ in server.events():
                if server.registry.bundles["mine"].current is not first:
                    break
        run = await (await server.start("j")).wait(PATIENCE)
        assert run.results["only"] == 2


# ---- before the code


async def _resolved(server, name):
    with anyio.fail_after(PATIENCE):
        async for _ in server.events():
            if name not in server.unresolved:
                return


async def test_a_job_is_listed_with_what_it_lacks_and_refused_at_start_in_the_same_words():
    async with Server() as server:
        server.define(
            JobDefinition.build("j")
            .task("x", "etl.A")
            .task("y", "etl.B", args={"n": 1})
            .task("z", "etl.C")
            .done()
        )
        problems = server.unresolved["j"]
        assert [problem.path for problem in problems] == ["tasks.x.task", "tasks.y.task", "tasks.z.task"]
        with pytest.raises(UnresolvedError) as caught:
            await server.start("j")
        assert caught.value.problems == problems
        assert all(str(problem) in str(caught.value) for problem in problems)


async def test_a_job_becomes_runnable_when_its_bundle_comes_and_unresolved_again_when_it_goes(root):
    async with Server(watch=False) as server:
        server.define(JobDefinition.build("j").task("only", "a.Job").done())
        assert list(server.unresolved) == ["j"]
        for _ in range(2):
            await server.register(root / "a.py")
            assert not server.unresolved
            assert server.definitions["j"].tasks["only"].bundle == "a"  # settled, and it stays
            assert (await (await server.start("j")).wait(PATIENCE)).succeeded
            await server.deregister("a")
            assert 'no bundle "a"' in str(server.unresolved["j"][0]).replace("'", '"')
            with pytest.raises(UnresolvedError):
                await server.start("j")
        (root / "b.py").write_text((root / "a.py").read_text())
        await server.register(root / "b.py", name="other")
        assert list(server.unresolved) == ["j"]


async def test_a_job_whose_bundle_does_not_load_says_why(root, folder):
    (root / "a.py").write_text("import nothing_of_this_name\n")
    (folder / "j.json").write_text(job("j").replace('"a.Job"', '"a.Job", "bundle": "a"'))
    async with Server(bundle_roots=[root], job_folder=folder) as server:
        (problem,) = server.unresolved["j"]
        assert "bundle a has not loaded" in problem.message
        assert "nothing_of_this_name" in problem.message


async def test_a_saved_job_can_be_loaded_before_its_code(root, tmp_path):
    (tmp_path / "saved").mkdir()
    async with Server(job_folder=tmp_path / "saved", watch=False) as server:
        await server.register(root / "a.py")
        server.define(JobDefinition.build("j").task("only", "a.Job").done())
        server.save("j")
    async with Server(job_folder=tmp_path / "saved", watch=False) as server:
        assert list(server.unresolved) == ["j"]
        await server.register(root / "a.py")
        assert (await (await server.start("j")).wait(PATIENCE)).succeeded


# ---- saving


class Greet(RunnableTask):
    """Greet."""

    def run(self, context):
        return "hello"


async def test_a_job_that_was_made_in_python_is_saved_under_its_name_and_then_again(folder):
    async with Server(job_folder=folder) as server:
        server.register_tasks("app", [Greet])
        server.define(JobDefinition.build("greet").task("g", "Greet").done())
        server.save("greet")
        server.save("greet")
        assert JobDefinition.load(folder / "greet.json").tasks["g"].bundle == "app"
        with pytest.raises(NoSuchJobError):
            server.save("grete")


async def test_saving_never_replaces_what_came_from_elsewhere_unless_told_to(folder):
    (folder / "greet.json").write_text("not mine")
    async with Server(job_folder=folder) as server:
        assert folder / "greet.json" in server.problems
        server.register_tasks("app", [Greet])
        server.define(JobDefinition.build("greet").task("g", "Greet").done())
        with pytest.raises(ExistsError):
            server.save("greet")
        assert (folder / "greet.json").read_text() == "not mine"
        server.save("greet", overwrite=True)
        assert not server.problems
        (folder / "greet.json").write_text(job("greet"))
        with pytest.raises(FileChangedError):
            server.save("greet")


async def test_a_file_that_holds_another_job_is_not_replaced_even_if_told_to(folder):
    (folder / "greet.json").write_text(job("Greet"))  # as on a file system that knows no case
    async with Server(job_folder=folder) as server:
        server.define(JobDefinition.build("greet").task("g", "Greet").done())
        with pytest.raises(ConflictError, match="holds the job 'Greet'"):
            server.save("greet", overwrite=True)


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "lpt9.daily", "aux.x"])
async def test_names_of_devices_get_files_that_are_safe_everywhere(folder, name):
    async with Server(job_folder=folder) as server:
        server.define(JobDefinition.build(name).task("g", "Greet").done())
        server.save(name)
        assert [file.name for file in folder.iterdir()] == [f"%{name}.json"]
    async with Server(job_folder=folder) as server:
        assert list(server.definitions) == [name]


def test_different_jobs_get_different_files():
    names = ["con", "con_", "con.x", "job-definition.schema", "console", "a.json", "a", "a.", "Con"]
    assert len({file_name(name, ".json") for name in names}) == len(names)
    assert file_name("nightly", ".json") == "nightly.json"
    assert file_name("job-definition.schema", ".json") != "job-definition.schema.json"


# ---- watching


async def test_an_edited_file_replaces_the_definition_and_running_runs_keep_theirs(folder, tmp_path):
    class Hold(RunnableTask):
        """Wait for a word."""

        async def run(self, context):
            await go_on.wait()

    go_on = anyio.Event()
    (folder / "j.json").write_text(job("j", Hold.__qualname__, description="old"))
    async with Server(job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        server.register_tasks("app", [Hold, Greet])
        run = await server.start("j")
        await seen(server, EventKind.JOB_DEFINED, "j")
        cursor = server.last_event
        (folder / "j.json").write_text(job("j", "Greet", description="new"))
        with anyio.fail_after(PATIENCE):
            async for event in server.events(cursor):
                if event.kind is EventKind.JOB_DEFINED:
                    break
        assert server.definitions["j"].description == "new"
        assert run.state is RunState.RUNNING
        assert run.plan.definition.description == "old"
        go_on.set()
        assert (await run.wait(PATIENCE)).succeeded
        assert (await (await server.start("j")).wait(PATIENCE)).results["only"] == "hello"


async def test_files_dropped_in_are_defined_broken_edits_change_nothing_and_removed_ones_are_undefined(
    folder,
):
    async with Server(job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        server.register_tasks("app", [Greet])
        (folder / "j.json").write_text(job("j", "Greet"))
        await seen(server, EventKind.JOB_DEFINED, "j")
        (folder / "j.json").write_text('{"name": "j", "tasks": []}')
        event = await seen(server, EventKind.JOB_FAILED, "j")
        assert "tasks" in event.message
        assert server.definitions["j"].tasks["only"].task == "Greet"
        assert folder / "j.json" in server.problems
        (folder / "j.json").write_text(job("renamed", "Greet"))
        await seen(server, EventKind.JOB_UNDEFINED, "j")
        assert list(server.definitions) == ["renamed"]
        assert not server.problems
        shutil.rmtree(folder)
        await seen(server, EventKind.JOB_UNDEFINED, "renamed")
        assert not server.definitions


async def test_a_broken_file_that_is_restored_is_no_problem_any_more_and_that_is_told(folder):
    (folder / "j.json").write_text(job("j", "Greet"))
    async with Server(job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        (folder / "j.json").write_text("{")
        failed = await seen(server, EventKind.JOB_FAILED, "j")
        (folder / "j.json").write_text(job("j", "Greet"))
        await seen(server, EventKind.JOB_DEFINED, "j", since=failed.seq)
        assert not server.problems


async def test_a_save_of_ones_own_is_no_news(folder):
    async with Server(job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        server.register_tasks("app", [Greet])
        server.define(JobDefinition.build("mine").task("g", "Greet").done())
        server.save("mine")
        (folder / "other.json").write_text(job("other", "Greet"))
        await seen(server, EventKind.JOB_DEFINED, "other")
        defined = [event.job async for event in _first(server, 2, EventKind.JOB_DEFINED)]
        assert defined == ["mine", "other"]


async def test_without_watch_jobs_an_edit_waits_for_load_all(root, folder):
    (folder / "j.json").write_text(job("j"))
    async with Server(bundle_roots=[root], job_folder=folder, watch=QUICK) as server:
        (folder / "j.json").write_text(job("j", description="new"))
        (root / "marker.py").write_text(task("marker"))
        with anyio.fail_after(PATIENCE):
            async for event in server.events():
                if event.bundle == "marker":
                    break
        assert not server.definitions["j"].description
        await server.load_all()
        assert server.definitions["j"].description == "new"


async def test_a_file_that_is_renamed_keeps_its_job_all_the_time(folder):
    (folder / "a.json").write_text(job("j", "Greet"))
    async with Server(job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        (folder / "a.json").rename(folder / "b.json")
        await until(server, lambda: server.definitions["j"].path == str(folder / "b.json"))
        (folder / "marker.json").write_text(job("marker", "Greet"))
        await seen(server, EventKind.JOB_DEFINED, "marker")
        assert not server.problems
        kinds = [event.kind async for event in _until(server, "marker") if event.job == "j"]
        assert EventKind.JOB_UNDEFINED not in kinds
        assert EventKind.JOB_FAILED not in kinds


async def until(server, condition):
    """Wait for something of which some event tells."""
    with anyio.fail_after(PATIENCE):
        async for _ in server.events():
            if condition():
                return


async def _until(server, name):
    async for event in server.events():
        if event.job == name:
            return
        yield event


async def test_two_files_that_swap_their_names_swap_their_jobs(folder):
    for name in ("x", "y"):
        (folder / f"{name}.json").write_text(job(name, "Greet"))
    async with Server(job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        (folder / "x.json").rename(folder / "t")
        (folder / "y.json").rename(folder / "x.json")
        (folder / "t").rename(folder / "y.json")
        await until(server, lambda: server.definitions["x"].path == str(folder / "y.json"))
        assert {name: Path(one.path).name for name, one in server.definitions.items()} == {
            "x": "y.json",
            "y": "x.json",
        }
        assert not server.problems


async def test_a_job_that_the_host_replaced_is_the_files_again_when_the_host_lets_go_of_it(folder):
    (folder / "j.json").write_text(job("j", "Greet", description="of the file"))
    async with Server(job_folder=folder) as server:
        own = server.define(JobDefinition.build("j").task("g", "Greet").done(), replace=True)
        assert server.definitions["j"] is own
        assert "defined already, from Python" in server.problems[folder / "j.json"]
        server.undefine("j")
        assert server.definitions["j"].description == "of the file"
        assert not server.problems
        server.undefine("j")  # now the host wants it gone, file or no file
        assert not server.definitions
        await server.load_all()
        assert server.definitions["j"].description == "of the file"


async def test_a_job_that_two_bundles_carry_is_the_others_when_one_goes(tmp_path):
    for name in ("one", "two"):
        package = tmp_path / name
        (package / "jobs").mkdir(parents=True)
        (package / "__init__.py").write_text(task(name))
        (package / "jobs" / "j.json").write_text(job("j", f"{name}.Job", description=name))
    async with Server(watch=False) as server:
        await server.register(tmp_path / "one")
        two = await server.register(tmp_path / "two")
        assert server.definitions["j"].description == "one"
        assert "defined otherwise" in two.warnings[0]
        await server.deregister("one")
        assert server.definitions["j"].description == "two"
        assert two.warnings == ()
        await server.deregister("two")
        assert not server.definitions


async def test_a_bundle_is_had_when_the_one_that_bears_its_name_has_gone(root, folder):
    (root / "_mine.py").write_text(task("mine"))
    (folder / "j.json").write_text(job("j", "_mine.Job", bundles={"a": "../bundles/_mine.py"}))
    async with Server(bundle_roots=[root], job_folder=folder, watch_jobs=True, watch=QUICK) as server:
        assert "there is a bundle 'a' already" in server.problems[folder / "j.json"]
        await server.deregister("a")
        with anyio.fail_after(PATIENCE):
            while server.problems or server.unresolved:  # noqa: ASYNC110 - the last of it is told by no event
                await anyio.sleep(0.01)
        assert (await (await server.start("j")).wait(PATIENCE)).results["only"] == "mine"


async def test_many_files_are_taken_up_in_slices_and_each_is_looked_at_once(folder, monkeypatch):
    """A thousand held the loop for 2 s, five thousand for two minutes."""
    count = 600
    settled, reads, turns = [], [], []
    settle, read = Claims._settle, files_module._read
    monkeypatch.setattr(Claims, "_settle", lambda self, name: (settled.append(name), settle(self, name)))
    monkeypatch.setattr(files_module, "_read", lambda file: (reads.append(file), read(file))[1])
    for number in range(count):
        (folder / f"m{number}.json").write_text(job(f"m{number}", "Greet"))
    async with Server(job_folder=folder, watch=False) as server, anyio.create_task_group() as group:
        assert len(server.definitions) == len(reads) == len(settled) == count

        async def others():
            while True:
                turns.append(1)
                await anyio.lowlevel.checkpoint()

        group.start_soon(others)
        await anyio.lowlevel.checkpoint()
        del turns[:]
        await server.load_all()
        assert len(turns) >= count // files_module.AT_ONCE
        assert len(settled) == 2 * count
        group.cancel_scope.cancel()


@pytest.mark.usefixtures("thawed")
async def test_what_a_folder_of_many_files_brings_is_not_left_to_the_next_garbage_collection(folder):
    """One turn of the loop was 43 to 75 ms long: a collection of all that had been read, in one go."""
    count = 300
    for number in range(count):
        (folder / f"m{number}.json").write_text(job(f"m{number}", "Greet"))
    async with Server(job_folder=folder, watch=False) as server:
        await server.load_all()
        gc.collect()
        gc.disable()
        try:
            for number in range(count):
                (folder / f"m{number}.json").write_text(job(f"m{number}", "Greet", description="another"))
            await server.load_all()
            young = [
                one
                for at in (0, 1)
                for one in gc.get_objects(at)
                if isinstance(one, JobDefinition | TaskDefinition)
            ]
        finally:
            gc.enable()
        assert {job.description for job in server.definitions.values()} == {"another"}
        # Each file holds a job and a task; the last slice is as young as it is.
        assert len(young) <= 2 * files_module.AT_ONCE


async def test_loading_a_folder_again_asks_for_each_file_as_often_however_many_there_are(folder, monkeypatch):
    """A second `load_all` of 5,000 files looked for each of them in a set that was made anew for each."""
    asked, number = [], 0
    original = PurePath.__hash__
    monkeypatch.setattr(PurePath, "__hash__", lambda path: (asked.append(1), original(path))[1])
    costs = []
    async with Server(job_folder=folder, watch=False) as server:
        for count in (100, 200):
            while number < count:
                (folder / f"m{number}.json").write_text(job(f"m{number}", "Greet"))
                number += 1
            await server.load_all()
            del asked[:]
            await server.load_all()
            costs.append(len(asked))
    assert costs[1] <= 2.2 * costs[0]

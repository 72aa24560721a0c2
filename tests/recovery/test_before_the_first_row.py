"""What comes before a run's first row is written, or instead of it, ends that run, and never the journal."""

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskDefinition
from scattersphere.registry.records import BundleVersion
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio

BUNDLE = """
from scattersphere import RunnableTask


class Work(RunnableTask):
    async def run(self, context):
        return 1
"""


class Quick(RunnableTask):
    """Return at once."""

    async def run(self, context):
        return 1


class Child(RunnableTask):
    """Wait for ever in the first life."""

    n: int = 0

    async def run(self, context):
        if self.n == 1:
            await anyio.sleep_forever()
        return self.n


BEGUN = [0]


class Parent(RunnableTask):
    """Start its child with something else each time."""

    async def run(self, context):
        BEGUN[0] += 1
        child = await context.start("child", {"n": BEGUN[0]})
        return (await child.wait()).state


class WaitInThread(RunnableTask):
    """Wait in a thread until it is told to end."""

    def run(self, context):
        context.log.info("begun")
        while True:
            context.check()


def job(task, name="j", **fields):
    return JobDefinition(name=name, tasks={"t": TaskDefinition(task=task, **fields)})


@pytest.fixture
async def server(tmp_path):
    path = tmp_path / "work.py"
    path.write_text(BUNDLE)
    with anyio.fail_after(PATIENCE):
        async with Server(journal=tmp_path / "journal.db", watch=False) as server:
            await server.register(path)
            server.register_tasks("app", [Quick])
            server.define(job("work.Work"))
            server.define(job("Quick", "quick"))
            yield server


async def until(condition):
    while not condition():
        await anyio.lowlevel.checkpoint()


async def test_a_run_that_is_cancelled_while_its_code_is_written_ends_and_the_journal_goes_on(server):
    async with anyio.create_task_group() as starting:
        starting.start_soon(server.start, "j")
        await until(lambda: server.runs)
        run = server.runs[1]
        assert not run.execution.recording.is_submitted
        run.cancel()
    assert (await run.wait()).state is RunState.CANCELLED
    assert (await server.run("quick")).succeeded
    assert not server.problems


async def test_a_run_whose_code_cannot_be_written_crashes_and_the_journal_goes_on(server, monkeypatch):
    def export(version):
        raise FileNotFoundError("gone")

    monkeypatch.setattr(BundleVersion, "export", export)
    run = await (await server.start("j")).wait()
    assert run.state is RunState.CRASHED
    assert (await server.run("quick")).succeeded


async def test_a_run_that_is_cancelled_before_its_row_is_committed_is_cancelled_and_no_defect(caplog):
    journal = MemoryJournal()
    with anyio.fail_after(PATIENCE):
        async with Server(journal=journal) as server, anyio.create_task_group() as starting:
            server.register_tasks("app", [Quick])
            server.define(job("Quick"))
            journal.auto = False
            starting.start_soon(server.start, "j")
            await until(lambda: server.runs)
            run = server.runs[1]
            run.cancel()
            await until(lambda: run.execution.recording.is_submitted)
            journal.auto = True
            journal.commit_all()
            assert (await run.wait()).state is RunState.CANCELLED
    assert "defect" not in caplog.text


async def test_a_child_in_the_place_of_another_one_is_a_run_of_its_own(tmp_path):
    BEGUN[0] = 0
    with anyio.fail_after(PATIENCE):
        for life in range(2):
            async with Server(journal=tmp_path / "journal.db") as server:
                server.register_tasks("app", [Child, Parent])
                child = {"c": TaskDefinition(task="Child", args={"n": {"$param": "n"}})}
                server.define(JobDefinition(name="child", params={"n": 0}, tasks=child))
                server.define(job("Parent"))
                if life == 0:
                    await server.start("j")
                    await until(lambda: BEGUN[0] and len(server.runs) == 2)
                    await server.aclose(finish=0)
                else:
                    await until(lambda: 1 in server.runs)
                    assert (await server.runs[1].wait()).succeeded
                    assert not server.problems


@pytest.mark.parametrize("rule", ["retry", "fail"])
async def test_a_task_elsewhere_whose_start_is_durable_first_can_be_cancelled(rule):
    with anyio.fail_after(PATIENCE):
        async with Server(journal=MemoryJournal()) as server:
            server.register_tasks("app", [WaitInThread])
            server.define(job("WaitInThread", on_restart=rule))
            run = await server.start("j")
            await until(run.logs)
            (attempt,) = run.execution.live.values()
            assert attempt.handle is not None
            run.cancel()
            assert (await run.wait()).state is RunState.CANCELLED
            assert not run.tasks["t"].stuck


async def test_a_full_disk_while_code_is_restored_leaves_the_other_runs_alone(tmp_path, monkeypatch):
    path, journal = tmp_path / "work.py", MemoryJournal()
    path.write_text(BUNDLE.replace("return 1", "import anyio\n        await anyio.sleep_forever()"))
    with anyio.fail_after(PATIENCE):
        async with Server(journal=journal, watch=False) as server:
            await server.register(path)
            server.define(job("work.Work"))
            run = await server.start("j")
            await until(lambda: run.state is RunState.RUNNING)
            journal = journal.crash()

        def full(*args, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("scattersphere.registry.load.adopt_snapshot", full)
        async with Server(journal=journal, watch=False) as server:
            server.register_tasks("app", [Quick])
            server.define(job("Quick", "quick"))
            assert (await server.run("quick")).succeeded
            await until(lambda: 1 in server.runs and "space" in server.runs[1].waits_for)

"""What a rehearsal promises: the real engine, honest fakes, injections that meet, assertions that explain."""

import datetime as dt
import time

import anyio
import pytest
from loopwatch import reference
from patience import PATIENCE
from rehearsedproject import make_project

from scattersphere import (
    BundleRefusedError,
    ClosedError,
    ConflictError,
    DefinitionError,
    JobDefinition,
    RunnableTask,
    RunState,
    TaskCrashedError,
    TaskState,
    result,
)
from scattersphere.testing import FakeError, InjectedError, Rehearsal, RehearsalError

pytestmark = pytest.mark.anyio


class Flaky(RunnableTask):
    """Say which attempt it is."""

    async def run(self, context):
        return context.attempt


class Threaded(RunnableTask):
    """The same, in a thread."""

    def run(self, context):
        return context.attempt


class Forever(RunnableTask):
    """Wait until it is cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


class Hooked(RunnableTask):
    """Have side effects when it is made, and after."""

    seen = None
    word: str

    def __attrs_post_init__(self):
        raise RuntimeError("a side effect")

    async def run(self, context):
        raise RuntimeError("another")

    def on_finished(self):
        raise RuntimeError("a third")


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def job(*tasks, **more):
    """A job of these task classes, one after the other, all called by their names in small letters."""
    builder, before = JobDefinition.build("job"), []
    for task in tasks:
        builder = builder.task(task.lower(), task, depends_on=before, **more)
        before = [task.lower()]
    return builder


RETRY = {"max_attempts": 3, "delay": 0}


async def test_a_job_is_run_from_its_file_with_a_fake(project):
    async with Rehearsal(project) as rehearsal:
        fake = rehearsal.fake("etl.LoadDay", lambda day, limit: [day.day, limit])
        run = await rehearsal.run("jobs/nightly.json", {"day": "2026-11-23"})
        assert run.succeeded, run.explain()
        assert run.results["mail"] == 2
        rehearsal.assert_order(run, "load", "mail")
        rehearsal.assert_states(run, load="succeeded", mail=TaskState.SUCCEEDED)
    assert fake.calls == [{"day": dt.date(2026, 11, 23), "limit": 10}]


async def test_the_real_parameters_judge_the_arguments_of_a_fake(project):
    async with Rehearsal(project) as rehearsal:
        rehearsal.fake("etl.LoadDay", lambda **_: [1])
        with pytest.raises(DefinitionError, match="day"):
            await rehearsal.run("jobs/nightly.json", {"day": "no day at all"})
        assert (await rehearsal.run("jobs/nightly.json")).succeeded


@pytest.mark.parametrize(
    ("fake", "complaint"),
    [
        (lambda dya, limit: 0, "no 'dya'; did you mean 'day'?"),
        (lambda day: 0, "lacks 'limit'"),
        (lambda day, limit, more=1: 0, "no 'more'"),
        (lambda day, /, limit: 0, "'day' cannot be given by name"),
        (lambda: 0, "lacks 'day', 'limit'"),
    ],
)
async def test_a_fake_that_takes_something_else_is_an_error_that_shows_both(project, fake, complaint):
    async with Rehearsal(project) as rehearsal:
        rehearsal.fake("etl.LoadDay", fake)
        with pytest.raises(FakeError) as caught:
            await rehearsal.run("jobs/nightly.json")
        assert "real: etl.LoadDay(*, day: date, limit: int = 10)" in str(caught.value)
        assert "fake: <lambda>(" in str(caught.value)
        assert complaint in str(caught.value)
        with pytest.raises(FakeError):  # and it is told at once where the real one is known
            rehearsal.fake("etl.LoadDay", fake)
        rehearsal.fake("etl.LoadDay", lambda **_: [])


async def test_a_fake_may_be_async_take_the_context_or_whatever_comes(project):
    async def load(context, **rest):
        await context.checkpoint()
        context.log.info("faked %s", context.task)
        return [rest["limit"]]

    async with Rehearsal(project) as rehearsal:
        rehearsal.fake("etl:etl.LoadDay", load)
        rehearsal.fake("etl.Mail", lambda rows: rows)
        run = await rehearsal.run("jobs/nightly.json")
        assert run.results["mail"] == [10]
        assert "faked load" in [line.message for line in run.logs(task="load")]


async def test_a_fake_that_raises_fails_its_task_and_is_retried():
    def boom():
        raise ValueError("from the fake")

    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky])
        fake = rehearsal.fake("Flaky", boom)
        run = await (await rehearsal.start(job("Flaky", retry=RETRY)))
        assert "ValueError: from the fake" in run.explain()
        assert len(fake.calls) == 3


async def test_a_fake_has_none_of_the_real_side_effects():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Hooked])
        rehearsal.fake("Hooked", lambda word: word)
        run = await rehearsal.run_task("Hooked", {"word": "calm"})
        assert run.results["Hooked"] == "calm"
        assert not run.logs()


async def test_a_fake_stands_in_for_each_instance_of_a_map_and_in_child_runs():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Echo, Parent])
        fake = rehearsal.fake("Echo", lambda n: n * 10)
        child = JobDefinition.build("child").task("e", "Echo", map={"n": [1, 2, 3]}).done()
        await rehearsal.load(child)
        run = await rehearsal.run(job("Parent"))
        assert run.results["parent"] == [10, 20, 30]
    assert sorted(call["n"] for call in fake.calls) == [1, 2, 3]


class Echo(RunnableTask):
    """Return the number."""

    n: int

    async def run(self, context):
        return self.n


class Parent(RunnableTask):
    """Run the job `child`."""

    async def run(self, context):
        child = await context.start("child")
        return (await child.wait()).results["e"]


async def test_a_fake_runs_on_the_loop_even_if_the_definition_names_a_process():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Threaded])
        rehearsal.fake("Threaded", lambda context: context.task)
        run = await rehearsal.run(job("Threaded", backend="process"))
        assert run.results["threaded"] == "threaded"


@pytest.mark.parametrize("task", ["Flaky", "Threaded"])
async def test_a_failure_meets_the_attempt_that_was_named(task):
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Threaded])
        rehearsal.fail(task.lower(), attempt=1)
        rehearsal.fail(task.lower(), attempt=2, error=OSError("disk"))
        run = await rehearsal.run(job(task, retry=RETRY))
        assert run.results[task.lower()] == 3
        log = "\n".join(line.message for line in run.logs())
        assert f"InjectedError: injected into {task.lower()} by the test" in log
        assert "OSError: disk" in log


@pytest.mark.parametrize("task", ["Flaky", "Threaded"])
async def test_a_failure_may_meet_every_attempt(task):
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Threaded])
        rehearsal.fail(task.lower(), attempt=None, error=InjectedError)
        run = await (
            await rehearsal.start(job(task, "Flaky" if task == "Threaded" else "Threaded", retry=RETRY))
        )
        assert run.state is RunState.FAILED
        assert run.tasks[task.lower()].attempts == 3


@pytest.mark.parametrize("task", ["Flaky", "Threaded"])
async def test_a_crash_is_a_crash_and_may_be_tried_again(task):
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Threaded])
        rehearsal.die(task.lower())
        run = await (await rehearsal.start(job(task, retry={**RETRY, "retry_on": ["OSError"]})))
        assert run.results[task.lower()] == 2
        assert "crashed: its process died" in run.logs()[0].message
        run = await (await rehearsal.start(job(task)))
        rehearsal.assert_states(run, {task.lower(): "crashed"})


@pytest.mark.parametrize("task", ["Flaky", "Threaded"])
async def test_a_delay_runs_into_the_timeout_and_can_be_cancelled(task):
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Threaded])
        rehearsal.delay(task.lower(), 600, attempt=1)
        run = await rehearsal.run(job(task, timeout=0.05, retry=RETRY))
        assert run.results[task.lower()] == 2
        run = await rehearsal.start(job(task))
        while not run.tasks[task.lower()].attempts:
            await anyio.lowlevel.checkpoint()
        run.cancel()
        await run.wait(PATIENCE)
        assert run.state is RunState.CANCELLED
        run = await rehearsal.start(job(task))
        while not run.tasks[task.lower()].attempts:
            await anyio.lowlevel.checkpoint()
        run.kill()
        await run.wait(PATIENCE)
        assert not run.stuck


async def test_a_short_delay_is_only_a_delay():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Threaded])
        rehearsal.delay("flaky", 0.02)
        rehearsal.delay("threaded", 0.02)
        run = await rehearsal.run(job("Flaky", "Threaded"))
        assert run.succeeded
        assert all(run.tasks[name].seconds >= 0.02 for name in ("flaky", "threaded"))


async def test_an_injection_can_be_meant_for_one_instance_of_a_map():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Echo])
        rehearsal.fail("e", index=1)
        run = await (await rehearsal.start(JobDefinition.build("m").task("e", "Echo", map={"n": [1, 2, 3]})))
        assert [status.state for status in run.tasks.instances("e")] == ["succeeded", "failed", "succeeded"]


async def test_a_run_that_is_left_behind_fails_the_test_and_is_ended():
    runs = []

    async def leave():
        async with Rehearsal() as rehearsal:
            rehearsal.configure(max_runs=1)
            rehearsal.register_tasks("app", [Forever])
            runs.extend([await rehearsal.start(job("Forever")) for _ in range(2)])

    with pytest.raises(RehearsalError, match="run 2 of job is still queued") as caught:
        await leave()
    assert "run 1 of job is still running" in str(caught.value)
    assert [run.state for run in runs] == ["cancelled", "cancelled"]


async def test_what_never_came_to_pass_fails_the_test():
    async def ask_in_vain():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Flaky])
            rehearsal.fail("flaky", attempt=2)
            rehearsal.delay("flakey", 3)
            rehearsal.die("flaky", index=7)
            rehearsal.fake("Flakey", lambda: 0)
            await rehearsal.run(job("Flaky"))

    with pytest.raises(RehearsalError) as caught:
        await ask_in_vain()
    complaint = str(caught.value)
    assert "fail('flaky', attempt=2) never happened" in complaint
    assert "delay('flakey', 3) never happened" in complaint
    assert "die('flaky', attempt=1, index=7) never happened" in complaint
    assert 'the fake of Flakey never stood in for anything: no task "Flakey"' in complaint
    assert 'did you mean "Flaky"?' in complaint


async def test_an_error_in_the_test_is_not_hidden_by_what_it_leaves():
    async def go_wrong():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Forever])
            rehearsal.fail("nobody")
            await rehearsal.start(job("Forever"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await go_wrong()


async def test_wrong_orders_and_states_are_explained():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Threaded, Echo])
        builder = job("Flaky", "Threaded").task(
            "e", "Echo", args={"n": 1}, depends_on=["threaded"], run_if=False
        )
        run = await rehearsal.run(builder)
        rehearsal.assert_order(run, "flaky", "threaded")
        for names, words in (
            (("threaded", "flaky"), "'threaded' had not ended when 'flaky' started"),
            (("flaky", "e"), "'e' has not started: it is skipped"),
            (("flaky", "mial"), "has no task 'mial'; it has flaky, threaded, e"),
        ):
            with pytest.raises(AssertionError, match=words) as caught:
                rehearsal.assert_order(run, *names)
            assert "run 1 of job" in str(caught.value) or "mial" in names
        rehearsal.assert_states(run, {"flaky": "succeeded"}, e="skipped")
        with pytest.raises(AssertionError, match="'e' is skipped, not succeeded"):
            rehearsal.assert_states(run, e="succeeded")


async def test_tasks_that_overlap_are_in_no_order():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Forever, Echo])
        rehearsal.fake("Forever", lambda: 1)
        rehearsal.delay("a", 0.02)
        rehearsal.delay("b", 0.01)
        both = JobDefinition.build("both").task("a", "Flaky").task("b", "Forever")
        run = await rehearsal.run(both)
        for names in (("a", "b"), ("b", "a")):
            with pytest.raises(AssertionError, match="had not ended"):
                rehearsal.assert_order(run, *names)


async def test_a_task_that_has_not_ended_is_before_no_other():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky, Forever])
        run = await rehearsal.start(JobDefinition.build("j").task("a", "Forever").task("b", "Flaky"))
        while not (run.tasks["b"].state.ended and run.tasks["a"].state is TaskState.RUNNING):
            await anyio.lowlevel.checkpoint()  # trio lets what is ready run in any order
        with pytest.raises(AssertionError, match="'a' had not ended when 'b' started"):
            rehearsal.assert_order(run, "a", "b")
        run.cancel()
        await run.wait(PATIENCE)


async def test_a_fake_counts_for_a_job_that_has_run_before():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Flaky])
        assert (await rehearsal.run(job("Flaky"))).results["flaky"] == 1
        rehearsal.fake("Flaky", lambda: "faked")
        assert (await rehearsal.run("job")).results["flaky"] == "faked"


async def test_the_story_tells_runs_and_logs(project):
    async with Rehearsal(project) as rehearsal:
        await rehearsal.register("bundles/etl.py")
        rehearsal.fail("load", error=KeyError("rows"))
        builder = JobDefinition.build("nightly").task("load", "etl.LoadDay", args={"day": "2026-01-01"})
        run = await (await rehearsal.start(builder))
        assert run.state is RunState.FAILED
        during = rehearsal.story()
    for story in (during, rehearsal.story()):
        assert "run 1 of nightly: failed" in story
        assert "KeyError: 'rows'" in story
        assert "its log" in story


async def test_bundles_lie_in_the_root_or_beside_the_definition(project, tmp_path_factory):
    elsewhere = make_project(tmp_path_factory.mktemp("elsewhere"))
    (elsewhere / "jobs" / "etl.py").write_text((elsewhere / "bundles" / "etl.py").read_text())
    text = (elsewhere / "jobs" / "nightly.json").read_text()
    async with Rehearsal(project) as rehearsal:
        with pytest.raises(BundleRefusedError, match="outside of"):
            await rehearsal.load(elsewhere / "jobs" / "nightly.json")
        (elsewhere / "jobs" / "nightly.json").write_text(text.replace("../bundles/", ""))
        assert (await rehearsal.load(elsewhere / "jobs" / "nightly.json")).name == "nightly"


async def test_everything_is_kept_in_the_scratch_folder(project, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch") / "here"
    async with Rehearsal(project, scratch=scratch) as rehearsal:
        rehearsal.fake("etl.LoadDay", lambda **_: [])
        await rehearsal.run("jobs/nightly.json")
        assert any(scratch.rglob("etl.py"))
    assert not any(scratch.rglob("*.py"))


async def test_the_server_is_made_as_configured_and_only_when_it_is_needed():
    rehearsal = Rehearsal()
    with pytest.raises(ClosedError):
        rehearsal.server  # noqa: B018 - the question is the test
    async with rehearsal:
        rehearsal.configure(pools={"db": 1})
        rehearsal.register_tasks("app", [Flaky])
        run = await rehearsal.run(job("Flaky", pool="db"))
        assert run.succeeded
        with pytest.raises(ConflictError):
            rehearsal.configure(pools={})
        assert rehearsal.server.runs[1] is run


async def test_a_rehearsal_can_be_held_again_and_forgets_what_was_asked_for_inside():
    rehearsal = Rehearsal()
    rehearsal.register_tasks("app", [Flaky])
    rehearsal.fake("Flaky", lambda: "outside")
    for _ in range(2):
        async with rehearsal:
            assert (await (await rehearsal.start(job("Flaky")))).results["flaky"] == "outside"
            rehearsal.fake("Flaky", lambda: "inside")
            rehearsal.fail("flaky", attempt=1, error=ValueError("x"))
            assert (await (await rehearsal.start(job("Flaky")))).state is RunState.FAILED


async def test_the_same_seed_gives_the_same_jitter():
    waits = []
    for seed in (7, 7, 8):
        async with Rehearsal(seed=seed) as rehearsal:
            rehearsal.register_tasks("app", [Flaky])
            rehearsal.fail("flaky")
            server = await rehearsal.open()
            drawn = server._executor.attempts.random
            server._executor.attempts.random = lambda drawn=drawn: waits.append(drawn()) or 0.0
            run = await rehearsal.run(job("Flaky", retry={"max_attempts": 2, "delay": 1}))
            assert run.succeeded
    assert waits[0] == waits[1] != waits[2]


async def test_it_starts_in_milliseconds():
    """About two of them; judged by work that takes some twenty, whatever the machine is."""
    taken = []
    for _ in range(5):
        begun = time.thread_time()
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Flaky])
            await rehearsal.run(job("Flaky"))
        taken.append(time.thread_time() - begun)
    assert min(taken) < 2 * reference()


async def test_results_flow_from_fakes_to_real_tasks(project):
    async with Rehearsal(project) as rehearsal:
        await rehearsal.register("bundles/etl.py")
        rehearsal.fake("etl.LoadDay", lambda **_: [1, 2, 3])
        builder = JobDefinition.build("j").task("load", "etl.LoadDay", args={"day": "2026-01-01"})
        run = await rehearsal.run(builder.task("mail", "etl.Mail", args={"rows": result("load")}))
        assert run.results["mail"] == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_injections_meet_worker_processes_too(project):
    async with Rehearsal(project) as rehearsal:
        await rehearsal.register("bundles/etl.py")
        rehearsal.die("m", attempt=1)
        rehearsal.fail("m", attempt=2, error=OSError("disk"))
        mail = {"rows": [1, 2]}
        builder = JobDefinition.build("j").task(
            "m", "etl.Mail", args=mail, backend="process", retry={"max_attempts": 3, "delay": 0}
        )
        run = await rehearsal.run(builder)
        assert (run.results["m"], run.tasks["m"].attempts) == (2, 3)


class Container(RunnableTask):
    """Say that what carries it out has died, from a thread."""

    def run(self, context):
        raise TaskCrashedError("the container is gone")


async def test_a_task_may_say_itself_that_it_has_crashed():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Container])
        run = await (await rehearsal.start(job("Container")))
        rehearsal.assert_states(run, container="crashed")
        assert "the container is gone" in run.explain()

"""What a person reads of a run in a terminal, kind by kind."""

import re

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, Parameter, RunnableTask, Server, param, result
from scattersphere.engine.views.explain import duration

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


class Add(RunnableTask):
    """Add one."""

    to: int = 0

    async def run(self, context):
        return self.to + 1


class Div(RunnableTask):
    """Divide by zero, and say why."""

    async def run(self, context):
        try:
            return self._divide()
        except ZeroDivisionError as exc:
            raise RuntimeError("cannot divide") from exc

    def _divide(self):
        return 1 / 0


class Flaky(RunnableTask):
    """Fail until the given attempt."""

    until: int = 3

    async def run(self, context):
        if context.attempt < self.until:
            raise OSError(f"no answer to attempt {context.attempt}")


class Numbers(RunnableTask):
    """Return a list."""

    async def run(self, context):
        return list(range(7))


class Odd(RunnableTask):
    """Fail for 5."""

    n: int

    async def run(self, context):
        await anyio.sleep(self.n)
        if self.n == 5:
            raise ValueError("five")


class Sleep(RunnableTask):
    """Take so many seconds."""

    seconds: float = 5.0

    async def run(self, context):
        context.progress(3, 10, "rows")
        await anyio.sleep(self.seconds)


class Deep(RunnableTask):
    """Recurse without end."""

    async def run(self, context):
        return self._down()

    def _down(self):
        return self._down()


CLASSES = [Add, Div, Flaky, Numbers, Odd, Sleep, Deep]


def told(job, *, before=None, params=None, **options):
    """Return what is told of a run of `job`, in virtual time."""

    async def main():
        async with Server(**options) as server:
            server.register_tasks("app", CLASSES)
            definition = job.done()
            server.define(definition)
            run = await server.start(definition.name, params)
            if before is None:
                await run.wait()
            else:
                await before(run)
            return run.explain()

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def build(name="j", **fields):
    return JobDefinition.build(name, **fields)


def tree_of(text):
    return [re.sub(r" +", " ", line) for line in text.rpartition("\n\n")[2].splitlines()]


def test_a_run_that_succeeded_is_a_tree_of_states_and_times():
    job = build().task("a", "Sleep").task("b", "Sleep", depends_on=["a"]).task("c", "Add", depends_on=["a"])
    text = told(job.task("d", "Add", depends_on=["b", "c"]).task("tidy", "Add", finally_=True))
    assert text.splitlines() == [
        "run 1 of j: succeeded after 10.00 s",
        "",
        "a       + succeeded 5.00 s",
        "├─ b    + succeeded 5.00 s",
        "│  ↓ d  + succeeded 0.0 ms  also after c",
        "└─ c    + succeeded 0.0 ms",
        "tidy    + succeeded 0.0 ms  finally",
    ]


def test_the_users_traceback_comes_first_with_its_cause_and_without_our_frames():
    text = told(
        build()
        .task("div", "Div")
        .task("next", "Add", depends_on=["div"])
        .task("z", "Add", depends_on=["next"])
    )
    lines = text.splitlines()
    assert lines[2] == "div failed: RuntimeError: cannot divide"
    assert "        return 1 / 0" in text
    assert "direct cause" in text
    assert text.index("Traceback") < text.index("! failed")
    assert "scattersphere/engine" not in text
    assert tree_of(text)[1:] == [
        "↓ next x upstream_failed, since div did not succeed",
        "↓ z x upstream_failed, since div did not succeed",
    ]


def test_retries_are_told_with_the_reason_of_each():
    text = told(build().task("f", "Flaky", retry={"max_attempts": 3}))
    assert "retried:\n  f, attempt 1: OSError: no answer to attempt 1\n  f, attempt 2: OSError" in text
    assert tree_of(text) == ["f + succeeded 0.0 ms, 3 attempts"]


def test_a_map_is_summarised_and_its_failures_are_named():
    job = (
        build()
        .task("n", "Numbers")
        .task("each", "Odd", map={"n": result("n")}, retry={"max_attempts": 2, "delay": 0})
    )
    text = told(job)
    assert "each[5] failed: ValueError: five" in text
    assert tree_of(text)[1] == "↓ each ! failed 10.00 s, 7 instances (6 succeeded, 1 failed)"


def test_equal_failures_are_told_once():
    job = build("big")
    for number in range(300):
        job = job.task(f"t{number}", "Add" if number % 50 else "Div")
    text = told(job)
    assert text.count("direct cause") == 1
    assert "t0, t50, t100, t150, t200 and 1 more failed: RuntimeError: cannot divide" in text
    assert tree_of(text)[-1] == "and 294 succeeded"
    assert len(tree_of(text)) == 7


def test_a_large_run_that_succeeded_is_a_few_lines():
    job = build("big")
    for number in range(300):
        job = job.task(f"t{number}", "Add")
    assert told(job).splitlines() == ["run 1 of big: succeeded after 0.0 ms", "", "300 succeeded"]


def test_a_cancelled_run_says_why():
    async def cancel(run):
        await trio.sleep(65)
        run.cancel("not needed any more")
        await run.wait()

    text = told(
        build().task("a", "Sleep", args={"seconds": 1e6}).task("b", "Add", depends_on=["a"]), before=cancel
    )
    assert text.startswith("run 1 of j: cancelled after 1 min 05 s\nbecause: not needed any more\n")
    assert tree_of(text) == ["a x cancelled 1 min 05 s", "↓ b x cancelled"]


def test_a_live_run_says_how_far_it_is_and_where_it_stands():
    async def look(run):
        await trio.sleep(2)

    text = told(build().task("a", "Sleep").task("b", "Add", depends_on=["a"]), before=look)
    assert text.startswith("run 1 of j: running for 2.00 s")
    assert re.fullmatch(
        r"a > running for 2\.00 s, 3 of 10 rows, at .*test_explain.py:\d+ in run", tree_of(text)[0]
    )
    assert tree_of(text)[1] == "↓ b . pending, waits for a"


def test_a_timeout_a_skipped_task_and_an_allowed_failure_say_so():
    job = build().task("slow", "Sleep", timeout=2).task("off", "Add", run_if=False)
    job = job.task("opt", "Div", allow_failure=True).task(
        "alarm", "Add", depends_on=["off"], trigger_rule="one_failed"
    )
    text = told(job)
    assert "slow failed: TimeoutError: took longer than 2 s" in text
    assert tree_of(text) == [
        "slow ! failed 2.00 s",
        "off - skipped, run_if is false",
        "↓ alarm - skipped, its rule one_failed was not met",
        "opt ! failed 0.0 ms, allowed to fail",
    ]


def test_endless_recursion_is_short():
    text = told(build().task("deep", "Deep"))
    assert re.search(r"\n +\.\.\. \d+ frames left out\n", text)
    assert len(text.splitlines()) < 60


def test_parameters_are_shown_and_secrets_are_not():
    params = {"n": 5, "token": Parameter(default="hunter2", secret=True)}
    text = told(build(params=params).task("a", "Add", args={"to": param("n")}), params={"n": 7})
    assert text.splitlines()[1] == 'with n=7, token="***"'
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 ms"),
        (0.0032, "3.2 ms"),
        (0.9999, "1.00 s"),
        (59, "59.00 s"),
        (65, "1 min 05 s"),
        (7325, "2 h 02 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.anyio
async def test_reprs_fit_in_a_line():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("Div")).wait(PATIENCE)
        for thing in (run, run.tasks, run.results, server.runs, server, run.tasks["Div"], run.logs()[0]):
            assert "\n" not in repr(thing) or thing is run.logs()[0]
            assert " object at 0x" not in repr(thing)
        assert repr(run) == "<Run 1 of Div: failed, 1 of 1 tasks ended>"
        assert repr(run.tasks) == "<Tasks Div: failed>"

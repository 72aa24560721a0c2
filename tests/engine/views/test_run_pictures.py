"""Pictures of a run: states and times of its tasks, and a timeline that trace viewers read."""

from __future__ import annotations

import itertools
import json

import anyio
import pytest

from scattersphere import JobDefinition, RunnableTask, Server


class Find(RunnableTask):
    async def run(self, context):
        return [1, 2, 3]


class Count(RunnableTask):
    path: int

    async def run(self, context):
        await anyio.sleep(0.001)
        return self.path


class Flaky(RunnableTask):
    async def run(self, context):
        if context.attempt < 3:
            raise ValueError("not yet")


class Fail(RunnableTask):
    async def run(self, context):
        raise ValueError('it "fails" <here>')


class Hang(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()


JOB = (
    JobDefinition.build("night")
    .task("find", "Find")
    .task("count", "Count", map={"path": {"$result": "find"}})
    .task("flaky", "Flaky", retry={"max_attempts": 3, "delay": 0})
    .task("fail", "Fail", depends_on=["count"], allow_failure=True)
    .task("after", "Find", depends_on=["fail"])
    .done()
)


async def started(server, job):
    server.register_tasks("app", [Find, Count, Flaky, Fail, Hang])
    server.define(job)
    return await server.start(job.name)


@pytest.mark.anyio
async def test_pictures_show_states_times_attempts_and_instances():
    async with Server() as server:
        run = await (await started(server, JOB)).wait()
    tree = run.to_tree().splitlines()
    assert tree[0] == "run 1 of night: succeeded"
    assert "succeeded, " in tree[1]
    assert "3 instances" in run.to_tree()
    assert "3 attempts" in run.to_tree()
    mermaid = run.to_mermaid()
    assert "class t3 failed" in mermaid
    assert "class t4 upstream_failed" in mermaid
    assert "classDef succeeded fill:#e6f5ee,color:#000000" in mermaid
    assert '"fail" [label="fail\\nFail\\nfailed, ' in run.to_dot()


def assert_trace_event_format(text):
    """The members that the format asks for, and slices of one row that do not overlap.

    See "Trace Event Format", the document that Perfetto and catapult refer to: complete events ("X") have
    ts and dur in microseconds, metadata events ("M") a name and args.name.
    """
    trace = json.loads(text)
    assert trace["displayTimeUnit"] == "ms"
    rows = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name"}
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ph"] == "X"
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        rows.setdefault(event["tid"], []).append(event)
    for found in rows.values():
        for left, right in itertools.pairwise(found):
            assert right["ts"] >= left["ts"] + left["dur"] - 0.01
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


@pytest.mark.anyio
async def test_a_timeline_has_each_attempt_and_each_instance():
    async with Server() as server:
        run = await (await started(server, JOB)).wait()
    events = assert_trace_event_format(run.to_trace())
    attempts = [
        (event["name"], event["args"].get("attempt"), event["cat"]) for event in events if event["tid"]
    ]
    assert sorted(attempts) == sorted(
        [
            ("find", 1, "succeeded"),
            *((f"count[{index}]", 1, "succeeded") for index in range(3)),
            ("flaky", 1, "up_for_retry"),
            ("flaky", 2, "up_for_retry"),
            ("flaky", 3, "succeeded"),
            ("fail", 1, "failed"),
        ]
    )
    (failed,) = [event for event in events if event["name"] == "fail"]
    assert failed["args"]["failure"] == 'ValueError: it "fails" <here>'
    assert [event["name"] for event in events if event["tid"] == 0] == ["queued", "running"]


@pytest.mark.anyio
async def test_a_live_run_can_be_drawn_too():
    job = JobDefinition.build("hangs").task("hang", "Hang").done()
    async with Server(grace=1) as server:
        run = await started(server, job)
        async for event in run.events():
            if event.task == "hang":
                break
        assert "class t0 running" in run.to_mermaid()
        (slice_,) = [event for event in assert_trace_event_format(run.to_trace()) if event["tid"]]
        assert slice_["cat"] == "running"
        run.cancel()
        await run.wait()
    assert [event["cat"] for event in assert_trace_event_format(run.to_trace()) if event["tid"]] == [
        "cancelled"
    ]


@pytest.mark.anyio
async def test_a_replaced_definition_leaves_running_runs_theirs_and_each_says_which_it_runs():
    old = JobDefinition.build("job").task("hang", "Hang").done()
    new = JobDefinition.build("job").task("find", "Find").done()
    async with Server(grace=1) as server:
        first = await started(server, old)
        replaced = server.define(new, replace=True)
        second = await (await server.start("job")).wait()
        assert second.succeeded
        assert second.definition.digest == replaced.digest
        assert first.definition.digest != replaced.digest
        assert list(first.tasks) == ["hang"]
        server.undefine("job")
        assert not first.state.ended
        assert first.definition.tasks["hang"].task == "Hang"
        first.cancel()
        await first.wait()


@pytest.mark.anyio
async def test_what_a_start_lacks_is_told_with_its_place_in_the_file(tmp_path):
    file = tmp_path / "night.json"
    file.write_text('{"name": "night",\n "tasks": {"t": {"task": "Fnd", "args": {"x": 1}}}}')
    async with Server() as server:
        server.register_tasks("app", [Find])
        definition = await server.load(file)
        (lacking,) = server.validate(definition)
        assert str(lacking) == '2:18  tasks.t.task  no task "Fnd" in any bundle; did you mean "Find"?'
        with pytest.raises(Exception, match=r"2:18  tasks\.t\.task"):
            await server.start("night")
        file.write_text("{}")  # changed since: the places would be wrong
        assert server.validate(definition)[0].line is None


@pytest.mark.anyio
async def test_a_text_is_validated_with_all_its_problems_in_order():
    text = '{"name": "x", "odd": 1,\n "tasks": {"a": {"task": "Fnd"},\n "b": {"task": "Count", "pool": "db", "map": {"path": ["1"]}}}}'
    async with Server(pools={"data": 1}) as server:
        server.register_tasks("app", [Find, Count])
        assert [str(problem) for problem in server.validate(text)] == [
            "1:15  odd  unknown key",
            '2:18  tasks.a.task  no task "Fnd" in any bundle; did you mean "Find"?',
            '3:25  tasks.b.pool  no pool "db"; this Server has data',
            '3:56  tasks.b.map.path[0]  must be a whole number, not the string "1"',
        ]
        assert [str(problem) for problem in server.validate("{")] == [
            "1:1  (document)  the text ends inside an object"
        ]

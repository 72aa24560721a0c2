"""SyncServer: the same names as Server and Run, blocking, from any thread; what Ctrl-C does; what is left after closing."""

import datetime as dt
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    ClosedError,
    ConflictError,
    EventKind,
    ExistsError,
    ForkedError,
    History,
    JobDefinition,
    NoSuchRunError,
    Run,
    RunnableTask,
    RunState,
    Schedule,
    Server,
    SyncHistory,
    SyncRun,
    SyncSchedule,
    SyncServer,
    param,
)


class Add(RunnableTask):
    """Add two numbers."""

    a: int
    b: int = 1

    def run(self, context):
        context.log.info("adding")
        return self.a + self.b


class Wait(RunnableTask):
    """Wait until cancelled."""

    async def run(self, context):
        context.log.info("waiting")
        await anyio.sleep_forever()


class Stubborn(RunnableTask):
    """Do not end when cancelled, but when killed."""

    async def run(self, context):
        context.log.info("up")
        while True:
            try:
                await anyio.sleep_forever()
            except BaseException:
                context.log.info("no")
                if getattr(context, "killed", False):
                    raise


ADD = JobDefinition.build("add", params={"a": 1}).task("sum", "Add", args={"a": param("a")}).done()


@pytest.fixture
def server():
    with SyncServer(grace=5) as server:
        server.register_tasks("app", [Add, Wait, Stubborn])
        server.define(ADD)
        yield server


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


NOT_THERE = {
    (SyncRun, Run): {
        "execution": "the engine's own record: nothing of it may be touched from another thread"
    },
    (SyncSchedule, Schedule): {},
    (SyncHistory, History): {},
    (SyncServer, Server): {
        "aclose": "it is called `close`, as everywhere where nothing is awaited",
        "adefine": "`define` itself waits: there is no loop that it could hold",
        "aundefine": "`undefine` itself waits, as above",
        "avalidate": "`validate` itself waits, as above",
    },
}
"""By blocking class and original: what the blocking one lacks, and why."""
ONLY_THERE = {
    SyncSchedule: {
        "definition": "an attribute of each Schedule, which its class does not show",
        "state": "as above",
        "home": "the process that it may be used in",
    },
    SyncServer: {
        "close": "`aclose`",
        "portal": "the door to the loop's thread, for what is not here",
        "server": "the Server itself, for `portal`",
        "call": "a function on the loop's thread",
        "follow": "`call` while it is being closed, for its runs",
        "read": "`call` when it was closed, for its runs",
    },
}


@pytest.mark.parametrize(("ours", "theirs"), NOT_THERE)
def test_the_names_are_the_same_but_for_those_that_have_a_reason(ours, theirs):
    assert public(theirs) - public(ours) == NOT_THERE[ours, theirs].keys()
    assert public(ours) - public(theirs) == ONLY_THERE.get(ours, {}).keys()
    assert inspect.signature(SyncServer.close).parameters == inspect.signature(Server.aclose).parameters


@pytest.mark.parametrize(
    ("ours", "theirs"),
    NOT_THERE,
)
def test_the_arguments_are_the_same(ours, theirs):
    for name in public(ours) & public(theirs):
        mine, real = getattr(ours, name), getattr(theirs, name)
        if callable(mine):
            assert [str(p).split(":")[0] for p in inspect.signature(mine).parameters.values()] == [
                str(p).split(":")[0] for p in inspect.signature(real).parameters.values()
            ], name


def test_a_job_is_run(server):
    run = server.start("add", {"a": 41})
    assert run.wait(PATIENCE) is run
    assert (run.state, run.succeeded, run.results["sum"]) == (RunState.SUCCEEDED, True, 42)
    assert [line.message for line in run.logs("sum", tail=1)] == ["adding"]
    assert "run 1 of add: succeeded" in run.explain()
    assert run.tasks["sum"].attempts == 1
    assert run.params == {"a": 41}
    assert [event.kind for event in run.events()][-1] is EventKind.RUN_ENDED
    assert run.last_event == len(list(run.events()))
    assert run.created_at <= run.started_at <= run.ended_at
    assert (run.id, run.job, run.parent, run.key, run.reason, run.stuck) == (1, "add", None, None, "", {})
    assert run.plan.job == "add"
    assert repr(run).startswith("<Run 1 of add")
    assert run.definition.name == "add"
    assert not run.reused
    for drawing in (run.to_tree(), run.to_mermaid(), run.to_dot(), run.to_trace()):
        assert "sum" in drawing
    assert dict(server.runs)[1].results == {"sum": 42}


def test_schedules_are_there(server):
    schedule = server.schedule("add", "yearly", every=86_400 * 365, params={"a": 2})
    assert dict(server.schedules).keys() == {("add", "yearly")}
    (first,) = schedule.next()
    assert (schedule.job, schedule.name, schedule.words()) == ("add", "yearly", "every 365 days")
    assert schedule.previous == first - dt.timedelta(days=365)
    schedule.pause()
    assert schedule.paused
    schedule.resume()
    run = schedule.run_now().wait(PATIENCE)
    assert run.results["sum"] == 3
    assert str(run.scheduled) == "schedule yearly, run now"
    backfill = schedule.backfill(first - dt.timedelta(days=1200), first - dt.timedelta(days=365))
    assert [server.runs[run].results["sum"] for run in backfill.runs.values()] == [3, 3]
    assert schedule.as_dict()["last_run"] == 3
    assert (schedule.enabled, schedule.state.fired, schedule.definition.params) == (True, 0, {"a": 2})
    server.unschedule("add", "yearly")
    assert not server.schedules


def test_everything_of_the_server_is_there(server, tmp_path):
    (tmp_path / "bundle.py").write_text(
        "from scattersphere import RunnableTask\nclass One(RunnableTask):\n    def run(self, context): return 1\n"
    )
    assert server.register(tmp_path / "bundle.py", watch=False).name == "bundle"
    assert server.start_task("bundle.One").wait(PATIENCE).results["bundle.One"] == 1
    server.reload("bundle")
    server.deregister("bundle")
    server.save("add", tmp_path / "add.json")
    server.undefine("add")
    assert dict(server.definitions) == {}
    assert server.load(tmp_path / "add.json").name == "add"
    assert server.validate(ADD) == []
    assert server.stats()["jobs"] == 1
    assert server.stuck == {}
    assert dict(server.problems) == {}
    assert server.bundle_logs() == []
    events = server.events()
    kinds = [next(events).kind for _ in range(server.last_event)]
    assert EventKind.JOB_DEFINED in kinds
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    assert "private" in str(server.listen(unix=folder / "s").addresses)
    assert repr(server).startswith("<SyncServer of <Server: 0 live runs")


def test_history_is_listed_and_read(server):
    run = server.run("add")
    assert [record.id for record in server.history.list(job="add")] == [run.id]
    assert server.history.get(run.id).result == run.result


def test_a_run_is_controlled(server):
    run = server.start_task("Wait")
    while not run.logs():
        time.sleep(0.001)
    run.pause()
    run.resume()
    with pytest.raises(TimeoutError):
        run.wait(0.01)
    run.cancel("enough")
    assert run.wait(PATIENCE).state is RunState.CANCELLED
    assert run.reason == "enough"
    stopped, killed = server.start_task("Wait"), server.start_task("Wait")
    stopped.stop()
    killed.kill()
    assert killed.wait(PATIENCE).state is RunState.CANCELLED
    stopped.cancel()
    assert stopped.wait(PATIENCE).state is RunState.CANCELLED


def test_errors_come_out_as_they_are(server):
    with pytest.raises(ExistsError):
        server.define(ADD)
    with pytest.raises(NoSuchRunError):
        server.runs[99]


def test_many_threads_may_use_one_server(server):
    with ThreadPoolExecutor(8) as threads:
        results = list(
            threads.map(lambda n: server.start("add", {"a": n}).wait(PATIENCE).results["sum"], range(50))
        )
    assert results == list(range(1, 51))


def test_drain_lets_runs_finish_and_takes_no_new_ones(server):
    run = server.start("add")
    server.drain()
    assert run.succeeded
    with pytest.raises(ClosedError):
        server.start("add")


def test_what_came_of_a_run_can_be_read_after_closing_and_nothing_else():
    with SyncServer() as server:
        server.register_tasks("app", [Add])
        server.define(ADD)
        run = server.start("add").wait(PATIENCE)
    assert run.results == {"sum": 2}
    assert "succeeded" in run.explain()
    assert run.logs()
    assert run.wait().succeeded
    assert [event.kind for event in run.events()][-1] is EventKind.RUN_ENDED
    assert list(server.runs) == [1]
    for late in (
        lambda: server.start("add"),
        lambda: server.define(ADD),
        lambda: server.register("x.py"),
        run.cancel,
        run.pause,
        lambda: server.portal,
    ):
        with pytest.raises(ClosedError):
            late()
    server.close()  # may be repeated
    with pytest.raises(ClosedError), server:
        pass


def test_before_it_is_entered_it_says_so():
    with pytest.raises(ClosedError, match="with SyncServer"):
        SyncServer().start("add")


def test_a_wrong_option_is_told_at_once():
    with pytest.raises(TypeError):
        SyncServer(graze=3)


def test_leaving_ends_what_runs_also_after_an_error():
    runs = []

    def script():
        with SyncServer() as server:
            server.register_tasks("app", [Wait])
            runs.append(server.start_task("Wait"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script()
    assert (runs[0].state, runs[0].reason) == (RunState.CANCELLED, "the server is closing")


def test_closing_takes_what_closing_a_server_takes(tmp_path):
    """A journal's runs were always suspended: there was no word for it."""
    states = []
    for number, options in enumerate(({"cancel": True}, {"finish": 0.0}, {})):
        server = SyncServer(journal=tmp_path / f"{number}.db", grace=0.0)
        with server:
            server.register_tasks("app", [Wait])
            run = server.start_task("Wait")
            server.close(**options)
        states.append(run.state)
    assert states == [RunState.CANCELLED, RunState.RUNNING, RunState.RUNNING]  # the others go on some day


def test_a_wrong_word_for_closing_closes_nothing(server):
    with pytest.raises(ValueError, match="finish"):
        server.close(finish=-1)
    assert server.start("add").wait().succeeded


def test_closing_can_be_hurried_from_another_thread():
    server = SyncServer(grace=600)
    with server:
        server.register_tasks("app", [Stubborn])
        run = server.start_task("Stubborn")
        said = (event.message for event in run.events())
        assert "up" in said
        closing = threading.Thread(target=server.close)
        closing.start()
        assert "no" in said
        server.hurry()
        closing.join(PATIENCE)
        assert not closing.is_alive()
    server.hurry()  # it is closed: there is nothing to hurry
    assert run.state is RunState.CANCELLED


def test_on_its_own_thread_nothing_may_block(server):
    with pytest.raises(ConflictError, match="own thread"):
        server.portal.call(lambda: server.start("add"))


def test_a_reader_of_events_ends_when_the_server_does():
    seen = []
    with SyncServer() as server:
        server.register_tasks("app", [Wait])
        reader = threading.Thread(target=lambda: seen.extend(server.events()))
        reader.start()
        server.start_task("Wait")
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert EventKind.RUN_QUEUED in [event.kind for event in seen]


def _waits_for_a_future(frame):
    called_by = frame.f_back
    return frame.f_code is threading.Condition.wait.__code__ and called_by.f_code.co_name == "result"


def interrupt_soon(*presses):
    """Have Ctrl-C come to the main thread when it blocks after the first moment of each pair.

    It comes again until the second moment is there: Python drops one while the collector runs a callback, of
    which Hypothesis has one.
    """
    main = threading.main_thread().ident

    def press():
        for moment, heard in presses:
            while not (moment() and _waits_for_a_future(sys._current_frames()[main])):
                time.sleep(0.001)
            patience = 0.0
            while not heard():
                if time.monotonic() > patience:
                    signal.pthread_kill(main, signal.SIGINT)
                    patience = time.monotonic() + PATIENCE
                time.sleep(0.001)

    threading.Thread(target=press, daemon=True).start()


def test_an_interrupt_ends_the_wait_and_the_server_goes_on(server):
    run = server.start_task("Wait")
    heard = threading.Event()
    interrupt_soon((run.logs, heard.is_set))
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    heard.set()
    assert run.state is RunState.RUNNING
    assert server.start("add").wait(PATIENCE).succeeded
    run.cancel()
    assert run.wait(PATIENCE).state is RunState.CANCELLED


def test_an_interrupt_of_a_reader_loses_no_event(server):
    run = server.start_task("Wait")
    seen = []
    heard = threading.Event()
    interrupt_soon((lambda: len(seen) >= 3, heard.is_set))
    with pytest.raises(KeyboardInterrupt):
        seen.extend(event.seq for event in run.events())
    heard.set()
    run.cancel()
    seen += [event.seq for event in run.events(since=seen[-1])]
    assert seen == list(range(1, run.last_event + 1))


def interrupted(**options):
    """Return the run of a script that is interrupted while it waits for it, and once more if it has a grace."""
    runs = []
    heard = threading.Event()

    def script():
        with SyncServer(**options) as server:
            server.register_tasks("app", [Wait, Stubborn])
            run = server.start_task("Stubborn" if options else "Wait")
            runs.append(run)
            refused = lambda: any(line.message == "no" for line in run.logs())  # noqa: E731
            interrupt_soon(
                (run.logs, heard.is_set), *([(refused, lambda: run.state.ended)] if options else [])
            )
            try:
                run.wait()
            except KeyboardInterrupt:
                heard.set()
                raise

    with pytest.raises(KeyboardInterrupt):
        script()
    return runs[0]


def test_an_interrupt_leaves_with_and_cancels_the_runs():
    assert interrupted().state is RunState.CANCELLED


def test_a_second_interrupt_kills_what_has_its_grace():
    begun = time.monotonic()
    run = interrupted(grace=600)
    assert run.state is RunState.CANCELLED
    assert "interrupted while the server was closing" in run.reason
    assert time.monotonic() - begun < 300


def test_a_forked_child_is_told_so(server):
    child = os.fork()
    if child == 0:
        try:
            server.start("add")
        except ForkedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_ctrl_c_ends_a_script_without_a_trace_of_ours(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        dedent("""
        import scattersphere.tasks
        from scattersphere import SyncServer

        try:
            with SyncServer() as server:
                server.register_tasks("std", scattersphere.tasks.ALL)
                run = server.start_task("Delay", {"seconds": 600})
                print("ready", flush=True)
                run.wait()
        except KeyboardInterrupt:
            print(run.state, flush=True)
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, err, process.returncode) == ("cancelled\n", "", 0)


def test_several_servers_in_one_process():
    with SyncServer() as one, SyncServer() as two:
        for server, name in ((one, "one"), (two, "two")):
            server.register_tasks("app", [Add])
            server.define(JobDefinition.build(name).task("sum", "Add", args={"a": 1}).done())
        assert (one.start("one").wait(PATIENCE).id, two.start("two").wait(PATIENCE).id) == (1, 1)
        assert list(one.definitions) == ["one"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("odd")])
def test_what_ends_a_program_is_raised_where_it_was_asked_for_and_ends_no_loop(error):
    async def fail():
        raise error

    def fail_at_once():
        raise error

    with SyncServer() as server:
        server.register_tasks("app", [Wait, Add])
        run = server.start_task("Wait")
        for function in (fail, fail_at_once):
            with pytest.raises(type(error)) as raised:
                server.call(function)
            assert raised.value is error
        assert run.state is RunState.RUNNING
        assert server.start_task("Add", {"a": 1}).wait(PATIENCE).succeeded
    assert run.state is RunState.CANCELLED


def test_a_loop_that_the_host_ended_from_inside_was_closed_and_that_is_said():
    with SyncServer(grace=1) as server:
        server.register_tasks("app", [Wait])
        run = server.start_task("Wait")
        ended = server.portal.start_task_soon(sys.exit, 3)
        with pytest.raises(SystemExit):
            ended.result(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not run.state.ended and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(ClosedError, match=r"has ended|is closing"):  # the run ends before all is closed
            server.start_task("Wait")
    assert run.state.ended  # how, hangs on which of the loop's tasks asyncio cancelled first


@pytest.mark.parametrize(
    "entered", ["server.__enter__()", "stack = ExitStack(); stack.enter_context(server)"]
)
def test_one_that_was_forgotten_is_closed_when_the_program_ends_and_leaves_no_program_running(
    tmp_path, entered
):
    script = tmp_path / "script.py"
    script.write_text(
        dedent(f"""
        import sys
        from contextlib import ExitStack
        import scattersphere.tasks
        from scattersphere import SyncServer

        server = SyncServer(snapshot_folder={str(tmp_path)!r})
        {entered}
        server.register_tasks("std", scattersphere.tasks.ALL)
        sleep = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
        run = server.start_task("Shell", {{"command": sleep}})
        print(next(run.follow_logs()).message, flush=True)
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", str(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0
    assert "ResourceWarning" in done.stderr
    assert "use `with SyncServer() as server`" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
    assert [each.name for each in tmp_path.iterdir()] == ["script.py"]

"""Shell runs real processes, on both loops: what it reports, and that it leaves none behind."""

import gc
import os
import re
import signal
import sys
import time
from pathlib import Path

import anyio
import pytest
from loopwatch import reference
from patience import PATIENCE

import scattersphere.tasks
from scattersphere import JobDefinition, RunState, Server, TaskState
from scattersphere.errors import NoSuchTaskError
from scattersphere.tasks import Shell

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server():
    async with Server(grace=20) as server:
        server.register_tasks("std", scattersphere.tasks.ALL)
        yield server


def python(*lines, **more):
    return {"command": [sys.executable, "-c", "\n".join(lines)], **more}


async def finished(server, args):
    return await (await server.start_task("Shell", args)).wait(PATIENCE)


async def said(run, word):
    """Wait until the program has said `word`."""
    with anyio.fail_after(PATIENCE):
        while not any(word in line.message for line in run.logs()):  # noqa: ASYNC110 - log lines wake nobody
            await anyio.sleep(0.005)


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


async def gone(pid):
    with anyio.fail_after(PATIENCE):
        while running(pid):  # noqa: ASYNC110 - no child of ours: nobody tells us
            await anyio.sleep(0.005)


SLEEP = "time.sleep(600)"
PARENT = (
    "import subprocess, sys, time",
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
    "print('child', child.pid, flush=True)",
)
"""A program with a child that holds its output."""
STUBBORN = (
    "import signal, time",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "print('up', flush=True)",
    SLEEP,
)


def child_of(run):
    return next(int(line.message.split()[1]) for line in run.logs() if line.message.startswith("child "))


async def test_the_stock_is_in_no_registry_unless_the_host_says_so():
    async with Server() as server:
        assert not server.registry.tasks
        with pytest.raises(NoSuchTaskError):
            await server.start_task("Shell", {"command": "true"})


async def test_each_line_is_logged_and_the_output_is_returned(server):
    program = python("import sys", "print('one')", "print('two')", "print('oops', file=sys.stderr)")
    run = await finished(server, program)
    assert run.results["Shell"] == {"exit_code": 0, "stdout": "one\ntwo\n", "stderr": "oops\n"}
    assert {(line.message, line.level) for line in run.logs()} == {("one", 20), ("two", 20), ("oops", 30)}


async def test_a_line_is_in_the_log_while_the_program_still_runs(server, tmp_path):
    wait = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    run = await server.start_task("Shell", python("import os, time", "print('first', flush=True)", wait))
    await said(run, "first")
    assert run.tasks["Shell"].state is TaskState.RUNNING
    (tmp_path / "go").touch()
    assert (await run.wait(PATIENCE)).succeeded


async def test_the_program_gets_input_environment_and_folder(server, tmp_path):
    program = python(
        "import os, sys", "print(sys.stdin.read(), os.environ['WORD'], 'PATH' in os.environ, os.getcwd())"
    )
    run = await finished(server, {**program, "input": "in", "env": {"WORD": "env"}, "cwd": str(tmp_path)})
    assert run.results["Shell"]["stdout"] == f"in env True {tmp_path.resolve()}\n"


async def test_the_environment_can_be_all_that_is_given(server):
    program = python("import os", "print('PATH' in os.environ, os.environ['WORD'])")
    run = await finished(server, {**program, "env": {"WORD": "alone"}, "inherit_env": False})
    assert run.results["Shell"]["stdout"] == "False alone\n"


async def test_without_input_there_is_nothing_to_read(server):
    assert (await finished(server, python("import sys", "assert sys.stdin.read() == ''"))).succeeded


async def test_a_program_need_not_read_its_input(server):
    assert (await finished(server, {"command": ["true"], "input": "x" * 1_000_000})).succeeded


async def test_an_exit_code_that_is_not_accepted_fails_with_the_last_words(server):
    run = await finished(server, python("print('bye')", "exit(3)"))
    assert run.state is RunState.FAILED
    assert "exit code 3, accepted are [0]; last words: bye" in run.explain()
    assert (await finished(server, python("exit(3)", ok=[0, 3]))).results["Shell"]["exit_code"] == 3
    assert (await finished(server, python("exit(0)", ok=[3]))).state is RunState.FAILED


async def test_a_program_that_a_signal_ended_says_which(server):
    run = await finished(server, python("import os", f"os.kill(os.getpid(), {int(signal.SIGABRT)})"))
    assert "ended by SIGABRT (exit code -6)" in run.explain()


async def test_a_program_that_is_not_there_fails_the_task(server):
    run = await finished(server, {"command": ["no-such-program-anywhere"]})
    assert "FileNotFoundError" in run.explain()


async def test_a_string_goes_through_the_shell_and_a_list_does_not(server):
    assert (await finished(server, {"command": "echo a | tr a b"})).results["Shell"]["stdout"] == "b\n"
    run = await finished(server, {"command": ["echo", "a | tr a b"]})
    assert run.results["Shell"]["stdout"] == "a | tr a b\n"


async def test_only_the_end_of_much_output_is_kept(server):
    run = await finished(server, python("print('x' * 100_000)", "print('end')", keep=10))
    assert run.results["Shell"]["stdout"] == "xxxxx\nend\n"
    assert (await finished(server, python("print('x')", keep=0))).results["Shell"]["stdout"] == ""


async def test_characters_in_pieces_and_bytes_that_are_none_do_no_harm(server):
    lines = ("import sys, time", "out = sys.stdout.buffer")
    pieces = (
        f"out.write({piece!r}); out.flush(); time.sleep(0.02)" for piece in (b"\xe2\x82", b"\xac\n", b"\xff|")
    )
    run = await finished(server, python(*lines, *pieces))
    assert [line.message for line in run.logs()] == ["€", "\ufffd|"]


async def test_a_line_without_an_end_is_logged_in_pieces(server):
    run = await finished(server, python("import sys", "sys.stdout.write('x' * 40_000)"))
    assert len(run.logs()) > 1
    assert sum(line.message.count("x") for line in run.logs()) == 40_000


async def test_a_cancel_ends_the_whole_process_group(server):
    run = await server.start_task("Shell", python(*PARENT, SLEEP))
    await said(run, "child")
    run.cancel()
    await run.wait(PATIENCE)
    assert run.tasks["Shell"].state is TaskState.CANCELLED
    assert not run.stuck
    await gone(child_of(run))


async def test_a_program_may_clean_up_when_it_is_told_to_end(server):
    polite = ("import signal, sys, time", "def end(*_): print('tidied', flush=True); sys.exit(0)")
    run = await server.start_task(
        "Shell", python(*polite, "signal.signal(signal.SIGTERM, end)", "print('up', flush=True)", SLEEP)
    )
    await said(run, "up")
    run.cancel()
    await run.wait(PATIENCE)
    assert run.state is RunState.CANCELLED


async def test_a_program_that_ignores_sigterm_is_killed_before_the_grace_is_over(server):
    run = await server.start_task("Shell", python(*STUBBORN, terminate_seconds=30))
    await said(run, "up")
    run.cancel(grace=1)
    await run.wait(PATIENCE)
    assert run.tasks["Shell"].state is TaskState.CANCELLED
    assert not run.stuck
    assert not server.stuck


async def test_a_program_that_ignores_sigterm_is_killed_after_its_own_limit(server):
    run = await server.start_task("Shell", python(*STUBBORN, terminate_seconds=0.1))
    await said(run, "up")
    run.cancel(grace=1000)
    await run.wait(PATIENCE)
    assert run.tasks["Shell"].state is TaskState.CANCELLED


async def test_a_kill_leaves_nobody(server):
    run = await server.start_task("Shell", python(*PARENT, *STUBBORN))
    await said(run, "up")
    run.kill()
    await run.wait(PATIENCE)
    assert run.state is RunState.CANCELLED
    await gone(child_of(run))
    with anyio.fail_after(PATIENCE):
        while server.stuck:  # noqa: ASYNC110 - the kernel may take longer than a kill's grace to report the end
            await anyio.sleep(0.01)


async def test_a_timeout_ends_the_group_too(server):
    task = {"command": [sys.executable, "-c", "\n".join((*PARENT, SLEEP))]}
    server.define(JobDefinition.build("slow").task("sh", "Shell", args=task, timeout=1.5).done())
    run = await (await server.start("slow")).wait(PATIENCE)
    assert run.tasks["sh"].state is TaskState.FAILED
    assert "took longer than 1.5 s" in run.explain()
    if any(line.message.startswith("child") for line in run.logs()):  # a slow machine may not come so far
        await gone(child_of(run))


async def test_what_a_program_leaves_in_its_group_is_ended_with_it(server):
    run = await finished(server, python(*PARENT, "print('bye')"))
    assert run.results["Shell"]["stdout"].endswith("bye\n")
    await gone(child_of(run))


async def test_somebody_outside_the_group_who_holds_the_output_does_not_hold_the_task(server):
    leaves = PARENT[1].replace("600)'])", "600)'], start_new_session=True)")
    run = await finished(server, python(PARENT[0], leaves, PARENT[2]))
    assert run.succeeded
    assert running(child_of(run))  # it left the group: not ours any more
    os.kill(child_of(run), signal.SIGKILL)
    await gone(child_of(run))


async def test_closing_the_server_ends_the_programs():
    async with Server(grace=20) as server:
        server.register_tasks("std", scattersphere.tasks.ALL)
        run = await server.start_task("Shell", python(*PARENT, SLEEP))
        await said(run, "child")
    assert run.state is RunState.CANCELLED
    await gone(child_of(run))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - it does not wait; no zombie either: there is no child left


@pytest.mark.blocks_loop  # what is asserted is processor time, not the wall's
async def test_a_flood_of_short_lines_gives_the_loop_its_turns(server):
    turns = []
    gc.disable()  # a collection goes through all that the suite has made, in whichever turn it comes

    async def look():
        while True:
            began = time.thread_time()
            await anyio.lowlevel.checkpoint()
            turns.append(time.thread_time() - began)

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        try:
            run = await finished(server, python("print('\\n' * 20_000)"))
        finally:
            gc.enable()
        group.cancel_scope.cancel()
    assert run.succeeded
    # In processor time; 8,192 lines are read at once and cost ten times the reference work, and a slice a quarter of it.
    assert max(turns) < 5 * reference()


async def test_much_input_is_given_whole(server):
    run = await finished(
        server,
        {
            "command": [sys.executable, "-c", "import sys; print(len(sys.stdin.read()))"],
            "input": "x" * 1_000_000,
        },
    )
    assert run.results["Shell"]["stdout"].strip() == "1000000"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"command": []}, "command is empty"),
        ({"command": ""}, "command is empty"),
        ({"command": "  "}, "command is empty"),
        ({"command": ["", "x"]}, "command is empty"),
        ({"command": ["echo", "a\0b"]}, "NUL"),
        ({"command": ["echo"], "env": {"": "1"}}, "the name of a variable"),
        ({"command": ["echo"], "env": {"a=b": "1"}}, "the name of a variable"),
        ({"command": ["cat"], "input": "ab\ud83d"}, r"character 2 is U\+D83D"),
    ],
)
async def test_what_no_program_can_be_given_is_told_in_words_and_not_tried_again(args, words):
    class Retried(Shell):
        command: list[str] | str = ""
        input: str | None = args.get(
            "input"
        )  # a definition cannot hold such text, a program's own default can

    async with Server() as server:
        bundle = server.register_tasks("own", [Retried])
        path = next(iter(bundle.tasks))
        given = {name: value for name, value in args.items() if name != "input"}
        job = JobDefinition.build("j").task("t", path, args=given, retry={"max_attempts": 3})
        server.define(job.done())
        run = await (await server.start("j")).wait(PATIENCE)
        assert run.tasks["t"].attempts == 1
        assert re.search(words, run.tasks["t"].failure.message)


@pytest.mark.skipif(sys.platform == "win32", reason="names there are text")
async def test_a_name_that_is_not_utf8_goes_back_to_the_program_as_it_was():
    class Name(Shell):
        command: list[str] | str = "od -An -tx1"
        input: str | None = os.fsdecode(b"a\xff")

    async with Server() as server:
        bundle = server.register_tasks("own", [Name])
        run = await (await server.start_task(next(iter(bundle.tasks)))).wait(PATIENCE)
        assert run.results[next(iter(run.tasks))]["stdout"].split() == ["61", "ff"]

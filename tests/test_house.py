"""The checks of conftest.py would be worth nothing if they let things through; each is shown a culprit."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the conftest of this one, but without its patience: what is wrong is so on purpose here."""
    here = Path(__file__).parent
    for name, impatient in {
        "conftest": {"LEAVING = 30.0": "LEAVING = 0.1"},
        "loopwatch": {
            "SLEEP = 1.0": "SLEEP = 0.3",
            "WORK = 80": "WORK = 15",
            "WORTH_A_LOOK = 0.25": "WORTH_A_LOOK = 0.05",
        },
        "crashes": {},
        "costs": {"DEAR = 1.0": "DEAR = 0.2", "SLOW: dict[str, str] = {": 'SLOW = {"*known*": "",'},
    }.items():
        text = (here / f"{name}.py").read_text(encoding="utf-8")
        for before, after in impatient.items():
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        pytester.makepyfile(**{name: text})
    pytester.makeini(
        "[pytest]\naddopts = -p no:cacheprovider -p no:faulthandler\n"
        "markers =\n  blocks_loop(reason): on purpose\n  needs(module): an extra\n  slow: dear\n"
    )
    return pytester


LEFT = {
    "keep.append(open(os.devnull))": "left behind: *open file",
    "threading.Thread(target=time.sleep, args=(9,), daemon=True, name='idler').start()": "left behind: *idler",
    "keep.append(tempfile.mkstemp()[1])": "left behind: *file *scratch",
    "open('litter', 'w').close()": "left behind: *file */litter",
}


def test_what_a_test_leaves_behind_fails_it(suite: pytest.Pytester) -> None:
    tests = "".join(f"def test_{number}():\n    {body}\n\n" for number, body in enumerate(LEFT))
    suite.makepyfile(test_it=f"import os, tempfile, threading, time\nkeep = []\n\n{tests}")
    result = suite.runpytest_subprocess("-W", "default")
    result.stdout.fnmatch_lines([f"*{complaint}*" for complaint in LEFT.values()])
    result.assert_outcomes(passed=len(LEFT), errors=len(LEFT))


def test_what_others_write_where_pytest_was_started_is_not_blamed_on_a_test(suite: pytest.Pytester) -> None:
    there = suite.path / "notes.txt"
    suite.makepyfile(test_it=f"def test_it():\n    open({str(there)!r}, 'w').close()\n")
    suite.runpytest_subprocess().assert_outcomes(passed=1)
    assert there.exists()


@pytest.mark.needs("trio")
def test_a_held_loop_fails_the_test(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_it=dedent("""
        import time, pytest
        from loopwatch import reference

        def compute():
            for _ in range(12):  # each is five times the work
                reference()

        blocks = pytest.mark.parametrize("block", [lambda: time.sleep(0.5), compute], ids=["sleeps", "computes"])

        @blocks
        @pytest.mark.anyio
        async def test_it(block):
            block()

        @blocks
        @pytest.mark.anyio
        @pytest.mark.blocks_loop("that is the point")
        async def test_on_purpose(block):
            block()
    """)
    )
    result = suite.runpytest_subprocess()
    complaints = {"sleeps": "held the loop: slept for *", "computes": "held the loop: computed * times *"}
    for backend in ("asyncio", "trio"):
        for block, complaint in complaints.items():
            result.stdout.fnmatch_lines([f"*_ test_it[[]{backend}-{block}[]] _*", complaint])
    result.assert_outcomes(passed=4, failed=4)


def test_a_task_left_running_fails_the_test(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_it=dedent("""
        import asyncio, pytest
        keep = []

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_it():
            keep.append(asyncio.create_task(asyncio.sleep(9), name="sleeper"))
    """)
    )
    result = suite.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*tasks left running: sleeper*"])
    assert result.ret == 1


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_dear_test_that_is_not_marked_is_named(suite: pytest.Pytester, workers: str) -> None:
    suite.makepyfile(
        test_it=dedent("""
        import subprocess, sys, time
        WORK = "import time\\nwhile time.process_time() < 0.3: pass"

        def test_cheap():
            time.sleep(0.3)

        def test_dear():
            subprocess.run([sys.executable, "-c", WORK], check=True)

        def test_dear_and_known():
            end = time.process_time() + 0.3
            while time.process_time() < end: pass
    """)
    )
    result = suite.runpytest_subprocess("-n", workers)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["*dear tests that are not marked slow*", " *s of processor  test_it.py::test_dear"]
    )
    assert "test_cheap" not in result.stdout.str()
    assert "test_dear_and_known" not in result.stdout.str()
    suite.runpytest_subprocess("-n", workers, "-m", "not slow").assert_outcomes(
        passed=2, deselected=1 - int(workers != "0")
    )

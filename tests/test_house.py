"""The checks of conftest.py would be worth nothing if they let things through; each is shown a culprit."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the conftest of this one."""
    here = Path(__file__).parent
    conftest = (here / "conftest.py").read_text()
    assert "LEAVING = 2.0" in conftest  # what is left is left on purpose here: no need to wait for its end
    pytester.makeconftest(conftest.replace("LEAVING = 2.0", "LEAVING = 0.1"))
    pytester.makepyfile(loopwatch=(here / "loopwatch.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n  blocks_loop(reason): on purpose\n  needs(module): an extra\n")
    return pytester


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("open(os.devnull).__class__; keep.append(open(os.devnull))", "open file"),
        ("threading.Thread(target=time.sleep, args=(9,), daemon=True, name='idler').start()", "idler"),
        ("tempfile.mkstemp()[0] and keep.append(1)", "left behind: *file *scratch"),
        ("open('litter', 'w').close()", "left behind: file */litter"),
    ],
)
def test_what_a_test_leaves_behind_fails_it(suite: pytest.Pytester, body: str, complaint: str) -> None:
    suite.makepyfile(
        test_it=f"import os, tempfile, threading, time\nkeep = []\n\ndef test_it():\n    {body}\n"
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "-W", "default")
    result.stdout.fnmatch_lines([f"*{complaint}*"])
    assert result.ret == 1


@pytest.mark.needs("trio")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("block", ["time.sleep(1.2)", "spin(1.2)"])
def test_a_blocked_loop_fails_the_test(suite: pytest.Pytester, backend: str, block: str) -> None:
    suite.makepyfile(
        test_it=dedent(f"""
        import time, pytest

        def spin(seconds):
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass

        @pytest.mark.anyio
        async def test_it():
            {block}

        @pytest.mark.anyio
        @pytest.mark.blocks_loop("that is the point")
        async def test_on_purpose():
            {block}
    """)
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "-k", backend)
    result.stdout.fnmatch_lines(["*blocked the loop for 1.* s:*"])
    result.assert_outcomes(passed=1, failed=1, deselected=2)


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
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*tasks left running: sleeper*"])
    assert result.ret == 1

"""A process of the suite that dies says how, and where its threads stood."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import ctypes, os, signal, time

def test_fine():
    pass

def test_fault():
    ctypes.string_at(0)

def test_signal():
    os.kill(os.getpid(), signal.SIGKILL)

def test_stands_still():
    time.sleep(600)
"""


def test_how_a_process_died_and_where_its_threads_stood_is_shown(pytester: pytest.Pytester) -> None:
    text = Path(__file__).with_name("crashes.py").read_text(encoding="utf-8")
    assert text.count("STANDS_STILL = 600.0") == 1
    pytester.makepyfile(
        crashes=text.replace("STANDS_STILL = 600.0", "STANDS_STILL = 2.0"),
        conftest="import crashes\n\ndef pytest_configure(config):\n"
        "    config.pluginmanager.register(crashes.Crashes(config))\n",
        test_it=TESTS,
    )
    plugins = [
        word for name in ("faulthandler", "cacheprovider", "asyncio", "trio") for word in ("-p", f"no:{name}")
    ]
    result = pytester.runpytest_subprocess(*plugins, "-n", "1")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*processes of the suite that died*",
            "gw? was killed by SIGSEGV; its memory was * at most*",
            "Fatal Python error: Segmentation fault",
            "*test_it.py*in test_fault",
            "gw? was killed by SIGKILL*",
            "gw? ended with exit code 1*",
            "Timeout (0:00:02)!",
            "*test_it.py*in test_stands_still",
        ]
    )

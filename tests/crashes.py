"""What is known of a process of the suite that dies: its stacks, how it ended, and how much memory there was.

pytest-xdist says `worker 'gw1' crashed` and nothing else, whether it was a fault of an extension, a signal, a machine
without memory, or a test that stood still. Here each process keeps a file into which the interpreter writes the stacks
of all its threads when it dies, and the first process shows that in its summary. It stands in place of pytest's own
plugin `faulthandler`, which writes to the standard error of the process: there it is lost among other lines.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDS_STILL = 600.0
"""Seconds after which a test is shown with all its threads, and its process ends: nobody waits for it."""


class Crashes:
    """A plugin that notes how a process of the suite has died."""

    def __init__(self, config: pytest.Config) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._peaks: dict[str, str] = {}
        self._dead: list[str] = []
        given: dict[str, Any] | None = getattr(config, "workerinput", None)
        if given is None:
            self._folder = tempfile.TemporaryDirectory(prefix="crashes-")
            stderr = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
            self._file = os.fdopen(os.dup(stderr), "wb")
        else:
            self._file = Path(given["crashes"], given["workerid"]).open("wb")  # noqa: SIM115 - it stays open
        faulthandler.enable(self._file)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        faulthandler.disable()
        self._file.close()
        if self._folder is not None:
            self._folder.cleanup()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Say to another process of the suite where its file belongs."""
        assert self._folder is not None
        node.workerinput["crashes"] = self._folder.name

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """End the process if the test stands still."""
        faulthandler.dump_traceback_later(STANDS_STILL, exit=True, file=self._file)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def pytest_enter_pdb(self) -> None:
        """Let a person look for as long as they like."""
        faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
        """Write into the last report how much memory this process has had."""
        report: pytest.TestReport = yield
        if call.when == "teardown":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            report.user_properties.append(("peak", f"{peak // 1024:,} MB"))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of the memory of another process."""
        if hasattr(report, "node"):
            for name, peak in report.user_properties:
                if name == "peak":
                    self._peaks[report.node.gateway.id] = str(peak)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Take note of a process that has died."""
        if error and self._folder is not None:
            name = node.gateway.id
            stacks = Path(self._folder.name, name)
            self._dead.append(
                f"{name} {_how(node)}; its memory was {self._peaks.get(name, 'unknown')} at most before this test, "
                f"the machine has {_available()} left\n"
                + (stacks.read_text(errors="replace") if stacks.exists() else "")
            )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show how processes of the suite have died."""
        if self._dead:
            terminalreporter.section("processes of the suite that died (tests/crashes.py)")
            for text in self._dead:
                terminalreporter.write_line(text)


def _how(node: Any) -> str:
    try:
        code = node.gateway._io.popen.wait(30)
    except (AttributeError, subprocess.TimeoutExpired) as error:
        return f"ended somehow ({type(error).__name__})"
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def _available() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return "an unknown amount"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("MemAvailable")), "?")

"""Programs that tests start: one that stands still shows where its threads are."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_program(
    command: Sequence[str], *, patience: float = PATIENCE, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end; if it does not come, fail with what it has written, its stacks among that."""
    options["env"] = {**(options.get("env") or os.environ), "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            try:
                out, err = process.communicate(timeout=patience)
            finally:
                process.kill()
            pytest.fail(f"{command} stood still for {patience:g} s:\n{out}\n{err}", pytrace=False)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)

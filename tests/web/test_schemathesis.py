"""The API against its own description: whatever fits it and whatever does not is answered as it says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

SERVER = Path(__file__).with_name("page_server.py")
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_schemathesis_finds_nothing():
    with subprocess.Popen(
        [sys.executable, "-u", str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            address, token = (server.stdout.readline().strip() for _ in range(2))
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{address}/api/openapi.json"),
                    *("--header", f"Authorization: Bearer {token}", "--checks", "all", "--max-examples", "15"),
                    *("--exclude-path-regex", "events$", "--seed", "1", "--generation-database", "none", "--no-color"),
                ],
                capture_output=True, text=True, check=False, timeout=10 * PATIENCE, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            server.stdin.close()
            server.wait(PATIENCE)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]

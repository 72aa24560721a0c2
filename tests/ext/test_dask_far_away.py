"""The Dask backend, with workers in network namespaces of their own, behind links that are slow, lose packets, are cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed")

import far_network

HERE = Path(__file__).parent
SETTINGS = {
    "FAR": "0.02 0.01",  # 20 ms there, 20 ms back, and every hundredth packet is lost
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_SCATTERSPHERE__LEASE": "16",
}


@pytest.mark.parametrize("file", ["test_dask_contract.py", "far_checks.py"])
def test_it_holds_behind_a_slow_link_that_loses_packets(file, tmp_path):
    if reason := far_network.missing():
        pytest.skip(reason)
    pytest_of_its_own = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "",
        "-n",
        "0",
        "--basetemp",
        tmp_path / "there",
    ]
    command = [
        *far_network.IN_A_NAMESPACE,
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
        *pytest_of_its_own,
    ]
    done = subprocess.run(
        [*command, HERE / file], cwd=HERE.parents[1], env={**os.environ, **SETTINGS},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

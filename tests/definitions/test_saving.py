"""A saved definition is there, whole, whatever kills the one who saves; and nobody's work is overwritten."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys

import pytest
from patience import PATIENCE

from scattersphere import JobDefinition
from scattersphere.errors import ExistsError, FileChangedError

SAVER = """
import sys
from scattersphere import JobDefinition
path = sys.argv[1]
job = JobDefinition.load(path)
number = int(job.description)
while True:
    number += 1
    job = job.evolve(description=str(number))
    job.save(path)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def big(description, tasks=400):
    return JobDefinition.loads(
        json.dumps(
            {
                "name": "x",
                "description": description,
                "tasks": {f"t{n}": {"task": "a.B"} for n in range(tasks)},
            }
        )
    )


def test_a_save_that_was_acknowledged_is_there_and_whole_after_kill_9(tmp_path):
    path = tmp_path / "x.json"
    big("0").save(path)
    for turn in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", SAVER, path], stdout=subprocess.PIPE, text=True
        ) as saver:
            assert saver.stdout is not None
            # Another number of saves each time, and then in the middle of the next one.
            for _ in range(turn + 1):
                acknowledged = int(saver.stdout.readline())
            saver.kill()
            acknowledged = max([acknowledged, *map(int, saver.stdout.read().split())])
        loaded = JobDefinition.load(path)  # whole: it can be read
        assert len(loaded.tasks) == 400
        assert int(loaded.description) >= acknowledged
    JobDefinition.load(path).save(path)
    assert names(tmp_path) == ["x.json"]  # and what the killed left behind is swept


FULL = """
import errno, subprocess, sys
from pathlib import Path
from scattersphere import JobDefinition
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
small = JobDefinition(name="x", description="small")
small.save(folder / "x.json")
large = JobDefinition(name="x", description="d" * 100_000)
try:
    large.save(folder / "x.json", overwrite=True)
except OSError as error:
    print(error.errno, JobDefinition.load(folder / "x.json") == small, [entry.name for entry in folder.iterdir()])
"""


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path):
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip(
            "a small disk can only be made where user namespaces are allowed; see test_files.py for RLIMIT_FSIZE"
        )
    done = subprocess.run(
        [unshare, "-rm", sys.executable, "-c", FULL, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.stdout == f"{errno.ENOSPC} True ['x.json']\n", done.stderr


def test_a_definition_made_in_python_has_its_file_after_a_save(tmp_path):
    made = JobDefinition(name="x")
    assert made.path is None
    made.save(tmp_path / "x.json")
    assert made.path == str(tmp_path / "x.json")
    made.save(tmp_path / "x.json")  # its own: no overwrite= is asked for
    for number in range(8):
        (tmp_path / "x.json").write_text(f'{{"name": "y{number}"}}')
        with pytest.raises(FileChangedError):
            made.save(tmp_path / "x.json")
    with pytest.raises(ExistsError):
        JobDefinition(name="x").save(tmp_path / "x.json")
    assert made == JobDefinition(name="x")  # where it came from takes no part in equality


def test_a_save_elsewhere_moves_the_definition_there_and_leaves_its_copies(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text('{"name": "x"}')
    loaded = JobDefinition.load(first)
    copy = loaded.evolve(description="mine")
    loaded.save(second)
    assert loaded.path == str(second)
    loaded.save(second)
    copy.save(first)
    assert JobDefinition.load(first).description == "mine"


def test_a_save_keeps_order_omits_defaults_and_ends_with_a_newline():
    text = (
        JobDefinition.build("x")
        .task("b", "B", priority=0, args={"z": 1, "a": 2})
        .task("a", "A")
        .done()
        .dumps()
    )
    assert text == (
        '{\n  "$schema": "job-definition.schema.json",\n  "format": 1,\n  "name": "x",\n  "tasks": {\n'
        '    "b": {\n      "task": "B",\n      "args": {\n        "z": 1,\n        "a": 2\n      }\n    },\n'
        '    "a": {\n      "task": "A"\n    }\n  }\n}\n'
    )

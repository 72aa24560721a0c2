"""A save is whole or not there, whatever kills it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scattersphere import JobDefinition
from scattersphere.errors import ExistsError, FileChangedError
from scattersphere.files import atomic_write

WRITER = """
import sys
from scattersphere.files import atomic_write
n = 0
while True:
    atomic_write(sys.argv[1], bytes([65 + n % 26]) * 300_000)
    n += 1
    if n == 1:
        print("written", flush=True)
"""
DEAD = 2**22 + 1  # above Linux's largest process id


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_kill_leaves_the_old_or_the_new_content_whole(tmp_path):
    target = tmp_path / "job.json"
    for turn in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.003 * turn)  # another moment of its work each time
            writer.send_signal(signal.SIGKILL)
        content = target.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
    atomic_write(target, b"end")
    assert names(tmp_path) == ["job.json"]  # what the killed left behind is swept


LIMITED = """
import resource, signal, sys
from scattersphere.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(sys.argv[1], b"x" * 5000)
except OSError as error:
    print(error.errno)
"""


def test_a_disk_that_fills_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "job.json"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, target], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)]
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["job.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_an_error_at_any_step_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    target = tmp_path / "job.json"
    target.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["job.json"]


def test_only_temporary_files_of_dead_writers_of_the_same_file_are_swept(tmp_path):
    kept = [
        f".scattersphere-a.json-{os.getpid()}-abc.tmp",  # alive
        f".scattersphere-a.json-{DEAD}-{os.getpid()}-abc.tmp",  # of the file "a.json-4194305"
        f".scattersphere-b.json-{DEAD}-abc.tmp",
        "a.json.tmp",
    ]
    for name in [*kept, f".scattersphere-a.json-{DEAD}-abc.tmp"]:
        (tmp_path / name).touch()
    atomic_write(tmp_path / "a.json", b"")
    assert names(tmp_path) == sorted([*kept, "a.json"])


def test_a_name_with_pattern_characters_is_swept_too(tmp_path):
    (tmp_path / f".scattersphere-[x].json-{DEAD}-abc.tmp").touch()
    atomic_write(tmp_path / "[x].json", b"")
    assert names(tmp_path) == ["[x].json"]


def test_the_mode_is_kept_and_a_new_file_obeys_the_umask(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    old.chmod(0o604)
    before = os.umask(0o027)
    try:
        atomic_write(old, b"x")
        atomic_write(new, b"x")
    finally:
        os.umask(before)
    assert old.stat().st_mode & 0o777 == 0o604
    assert new.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    target, link = folder / "job.json", tmp_path / "link.json"
    target.write_bytes(b"old")
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_save_refuses_to_overwrite_what_another_wrote(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"name": "x", "tasks": {}}')
    definition = JobDefinition.load(path)
    changed = definition.evolve(description="mine")
    changed.save(path)  # nobody else wrote since it was loaded
    assert JobDefinition.load(path) == changed
    definition.save(path)  # the copies of one load know of each other
    path.write_text('{"name": "x", "description": "theirs", "tasks": {}}')
    with pytest.raises(FileChangedError, match="was changed since it was loaded"):
        changed.save(path)
    assert JobDefinition.load(path).description == "theirs"
    changed.save(path, overwrite=True)
    assert JobDefinition.load(path) == changed


def test_save_refuses_a_file_that_it_was_not_loaded_from(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("anything")
    made = JobDefinition(name="x")
    with pytest.raises(ExistsError, match="overwrite=True"):
        made.save(path)
    assert path.read_text() == "anything"
    made.save(path, overwrite=True)
    assert JobDefinition.load(path) == made
    assert JobDefinition.load(Path(path)).path == str(path)

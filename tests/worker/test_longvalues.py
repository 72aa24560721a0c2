"""A long result is laid into a file and read from there; where there can be no file it is sent as a short one is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from scattersphere.registry.snapshots.store import STORE_VARIABLE
from scattersphere.worker.longvalues import FILE_FROM, FOLDER, dump_to, read_value

LONG = ["a string", bytes(range(256)) * (FILE_FROM // 256), list(range(500_000)), bytearray(FILE_FROM)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    return tmp_path / FOLDER


def test_a_short_value_is_pickled_into_memory(folder) -> None:
    payload, size = dump_to("7", {"x": [1, 2]})
    assert pickle.loads(payload) == {"x": [1, 2]}
    assert size == 0
    assert not folder.exists()


@pytest.mark.parametrize("value", [*LONG[1:], LONG], ids=["bytes", "many frames", "a buffer", "all"])
def test_a_long_value_is_in_the_file_and_nowhere_else(folder, value) -> None:
    payload, size = dump_to("7", value)
    assert payload == b""
    assert size == (folder / "7").stat().st_size >= FILE_FROM
    assert read_value("7") == value


class Odd:
    def __reduce__(self):
        raise LookupError("not to be sent")


@pytest.mark.parametrize("value", [Odd(), [LONG, Odd()]], ids=["short", "long"])
def test_what_cannot_be_pickled_leaves_no_file(folder, value) -> None:
    with pytest.raises(LookupError, match="not to be sent"):
        dump_to("7", value)
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize(
    "value", [LONG, [bytes(2000 + n) for n in range(700)]], ids=["few parts", "many parts"]
)
def test_a_full_disk_sends_it_as_a_short_one_is_sent(folder, value) -> None:
    folder.mkdir()
    (folder / "7").symlink_to("/dev/full")
    payload, size = dump_to("7", value)
    assert pickle.loads(payload) == value
    assert size == 0
    assert not list(folder.iterdir())


def test_without_a_folder_it_is_sent_as_a_short_one_is_sent(folder) -> None:
    folder.write_text("a file is here")
    payload, size = dump_to("7", LONG)
    assert pickle.loads(payload) == LONG
    assert size == 0

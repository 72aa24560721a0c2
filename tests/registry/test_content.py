"""How the files of a snapshot are kept."""

from __future__ import annotations

import shutil
import stat

from scattersphere.registry.snapshots.content import SourcePool, digest_of


def test_equal_sources_share_one_file_and_data_files_never_do(tmp_path):
    pool = SourcePool()
    for version in ("v1", "v2"):
        for name in ("a.py", "a.txt"):
            assert pool.place(str(tmp_path / version / "etl" / name), b"x = 1") == digest_of(b"x = 1")
    assert (tmp_path / "v1/etl/a.py").samefile(tmp_path / "v2/etl/a.py")
    assert not (tmp_path / "v1/etl/a.txt").samefile(tmp_path / "v2/etl/a.txt")
    assert stat.S_IMODE((tmp_path / "v2/etl/a.py").stat().st_mode) == 0o600


def test_a_source_whose_first_place_is_gone_is_written_anew(tmp_path):
    pool = SourcePool()
    pool.place(str(tmp_path / "v1/a.py"), b"x = 1")
    shutil.rmtree(tmp_path / "v1")
    pool.place(str(tmp_path / "v2/a.py"), b"x = 1")
    assert (tmp_path / "v2/a.py").read_bytes() == b"x = 1"


def test_deleting_one_version_leaves_the_files_of_the_other(tmp_path):
    pool = SourcePool()
    pool.place(str(tmp_path / "v1/a.py"), b"x = 1")
    pool.place(str(tmp_path / "v2/a.py"), b"x = 1")
    pool.forget(tmp_path / "v2")
    shutil.rmtree(tmp_path / "v2")
    assert (tmp_path / "v1/a.py").read_bytes() == b"x = 1"
    pool.place(str(tmp_path / "v3/a.py"), b"x = 1")
    assert (tmp_path / "v3/a.py").read_bytes() == b"x = 1"

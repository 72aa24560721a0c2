"""How the files of a snapshot are kept."""

from __future__ import annotations

import shutil
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots.store import (
    SourcePool,
    check_digest,
    digest_of,
    digest_of_all,
    size_of,
)


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


def test_lengths_are_part_of_the_digest():
    """Else the end of one file could be the name and the content of another one."""
    name = b"b.py"
    for width in (4, 8):
        glued = b"X = 1\n" + len(name).to_bytes(width, "big") + name + b"Y = 2\n"
        two = {"a.py": b"X = 1\n", "b.py": b"Y = 2\n"}
        assert digest_of_all(two) != digest_of_all({"a.py": glued})
        digests = {file: digest_of(content) for file, content in two.items()}
        assert digest_of_all(digests) != digest_of_all({"a.py": digest_of(glued)})


BUNDLES = st.dictionaries(st.text(min_size=1, max_size=4), st.binary(max_size=8), max_size=4)


@given(BUNDLES, BUNDLES)
def test_two_bundles_have_one_digest_if_and_only_if_they_are_equal(one, other):
    assert (digest_of_all(one) == digest_of_all(other)) == (one == other)


def test_the_same_content_has_this_digest_on_every_machine():
    files = {"etl/__init__.py": b"", "etl/util.py": b"X = 1\n", "etl/data/\u00e9.txt": b"\r\n", "z.py": b"Z"}
    digests = {name: digest_of(files[name]) for name in reversed(files)}
    assert digest_of_all(digests) == "6241e77815cc1aa885bf920cabd2d78de5c429db-2"
    assert [size_of(digest) for digest in digests.values()] == [1, 2, 6, 0]


def test_a_digest_of_another_form_is_never_taken_for_one():
    check_digest("91be07" + "0" * 34 + "-2")
    for other in ("91be07" + "0" * 34, "91be07" + "0" * 34 + "-3", "", "91be07-2", "x" * 40 + "-2"):
        with pytest.raises(BundleRefusedError, match="another form"):
            check_digest(other)
    with pytest.raises(TypeError, match="is a str"):
        check_digest(b"91be07")

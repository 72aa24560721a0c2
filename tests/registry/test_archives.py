"""Archives that mean harm, or are broken: refused before anything is executed, and nothing is left."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots.archives import unpack
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.registry.snapshots.store import SourcePool


def zipped(path, *entries):
    """Write an archive of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refused(path, tmp_path, match, **limits):
    target = tmp_path / "out"
    target.mkdir(exist_ok=True)
    with pytest.raises(BundleRefusedError, match=match):
        unpack(path, target, SourceLimits(**limits), SourcePool())
    assert [p.name for p in tmp_path.iterdir() if p.name not in {"out", path.name}] == []


def test_files_are_unpacked_with_their_folders(tmp_path):
    path = zipped(tmp_path / "a.zip", ("etl/", ""), ("etl/x.py", "1"), (".git/x", ""), ("etl/x.pyc", ""))
    target = tmp_path / "out"
    target.mkdir()
    assert set(unpack(path, target, SourceLimits(), SourcePool())) == {"etl/x.py"}
    assert (target / "etl/x.py").read_text() == "1"
    assert stat.S_IMODE((target / "etl").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x.py", r"'\.\.'"),
        ("etl/../../x.py", r"'\.\.'"),
        ("etl/./x.py", r"'\.'"),
        ("etl//x.py", "empty parts"),
        ("/etc/x.py", "absolute"),
        ("C:/x.py", "drive letter"),
        ("etl/c:x.py", "drive letter"),
        ("etl\\..\\x.py", "backslash"),
        ("\\\\host\\share", "backslash"),
        ("etl/x\n.py", "control"),
        ("x" * 256, "255 bytes"),
        ("/".join("abcdef"), "more than 5 folders"),
    ],
)
def test_a_path_that_could_escape_is_refused(tmp_path, name, why):
    refused(zipped(tmp_path / "a.zip", (name, "1")), tmp_path, why, depth=5)


def test_a_name_with_a_nul_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", ("etl/x.py#", "1"))
    path.write_bytes(path.read_bytes().replace(b"x.py#", b"x.py\0"))
    refused(path, tmp_path, "control")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path, kind):
    entry = zipfile.ZipInfo("etl/x.py")
    entry.external_attr = (kind | 0o777) << 16
    refused(zipped(tmp_path / "a.zip", (entry, "/etc/passwd")), tmp_path, "link or a special file")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["x.py", "x.py"], "twice"),
        (["x.py", "X.py"], "only in case"),
        (["etl/a.py", "ETL/b.py"], "only in case"),
        (["caf\u00e9.py", "cafe\u0301.py"], "only in case"),
        (["etl", "etl/a.py"], "both a file and a folder"),
        (["etl/a.py", "etl"], "both a file and a folder"),
    ],
)
def test_names_that_clash_are_refused(tmp_path, names, why):
    refused(zipped(tmp_path / "a.zip", *((name, "1") for name in names)), tmp_path, why)


# ---- wheels

OWN = "etl-1.0.dist-info/RECORD"


def wheel(path, files, *, record=None, kind="sha256", **instead):
    """Write a wheel of `files` with their RECORD; `instead` holds hashes of it that are other ones."""
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.new(kind, content.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},{instead.get(name, f'{kind}={digest}')},{len(content)}")
    text = "\r\n".join([*lines, f"{OWN},,"]) if record is None else record
    return zipped(path, *files.items(), (OWN, text))


GOOD = {"etl/__init__.py": "", "etl/x.py": "1", "etl-1.0.dist-info/METADATA": "Name: etl"}


def test_a_wheel_is_what_its_record_says(tmp_path):
    for number, kind in enumerate(("sha256", "sha512")):
        target = tmp_path / str(number)
        target.mkdir()
        path = wheel(tmp_path / f"etl-1.{number}-py3-none-any.whl", GOOD, kind=kind)
        assert unpack(path, target, SourceLimits(), SourcePool()).keys() == {*GOOD, OWN}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"etl/x.py": "sha256=AAAA"},
            "'etl/x.py': not what the RECORD of the wheel says; build the wheel anew",
        ),
        ({"etl/x.py": ""}, "'etl/x.py': its RECORD has no sha256"),
        ({"etl/x.py": "md5=AAAA"}, "'etl/x.py': its RECORD has no sha256 of it, or a better hash"),
        ({"record": f"{OWN},,"}, "not in the RECORD of the wheel"),
    ],
)
def test_a_wheel_that_was_changed_after_it_was_built_is_refused(tmp_path, changes, why):
    refused(wheel(tmp_path / "etl-1.0-py3-none-any.whl", GOOD, **changes), tmp_path, why)


def test_a_wheel_that_lacks_what_its_record_names_is_refused(tmp_path):
    path = wheel(tmp_path / "whole.whl", GOOD)
    with zipfile.ZipFile(path) as archive:
        record = archive.read(OWN).decode()
    cut = zipped(tmp_path / "etl-1.0-py3-none-any.whl", ("etl/__init__.py", ""), (OWN, record))
    path.unlink()
    refused(cut, tmp_path, "its RECORD names 'etl")


def test_a_zip_with_the_record_of_something_inside_is_taken_as_it_is(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    unpack(
        wheel(tmp_path / "etl.zip", GOOD, **{"etl/x.py": "sha256=AAAA"}), target, SourceLimits(), SourcePool()
    )


@pytest.mark.parametrize("ending", ["whl", "zip"])
def test_files_of_two_schemes_of_a_wheel_with_one_name_are_refused(tmp_path, ending):
    """One replaced the other in silence."""
    files = {"t.py": "1", "etl-1.0.data/purelib/t.py": "2"}
    refused(wheel(tmp_path / f"etl-1.0-py3-none-any.{ending}", files), tmp_path, "would both become 't.py'")
    files = {"etl-1.0.data/platlib/t.py": "1", "etl-1.0.data/purelib/t.py": "2"}
    refused(wheel(tmp_path / f"etl-1.0-py3-none-any.{ending}", files), tmp_path, "would both become 't.py'")


def test_limits_hold(tmp_path):
    many = zipped(tmp_path / "many.zip", *((f"f{i}.py", "") for i in range(11)))
    refused(many, tmp_path, "more than 10 entries", entries=10)
    many.unlink()
    large = zipped(tmp_path / "large.zip", ("x.py", os.urandom(600)), ("y.py", b"0" * 600))
    refused(large, tmp_path, "unpacks to 1,200 bytes", unpacked=1_100)
    refused(large, tmp_path, "larger than 500 bytes", unpacked=500)
    large.unlink()
    refused(zipped(tmp_path / "bomb.zip", ("x", b"0" * 5_000_000)), tmp_path, "zip bomb")


def test_a_size_that_lies_is_found_out(tmp_path):
    """The declared size of a bomb is small: zipfile reads no further, and the CRC does not fit."""
    path = zipped(tmp_path / "a.zip", ("x.py", b"0" * 100_000))
    real = struct.pack("<L", 100_000)
    path.write_bytes(path.read_bytes().replace(real, struct.pack("<L", 10)))
    refused(path, tmp_path, "not a whole zip archive")


def test_a_wrong_checksum_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x.py", "value = 1")
    path.write_bytes(path.read_bytes().replace(b"value = 1", b"value = 2"))
    refused(path, tmp_path, "CRC")


def test_an_encrypted_entry_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", ("x.py", "1"))
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1
    path.write_bytes(bytes(content))
    refused(path, tmp_path, "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compression_is_refused(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.py", "1" * 100)
    refused(path, tmp_path, "deflate")


@given(st.data())
def test_a_truncated_or_altered_archive_is_refused_or_unpacks_whole(tmp_path_factory, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("etl/x.py", "value = 1\n" * 20)
        archive.writestr("etl/y.py", "value = 2\n" * 20)
    whole = buffer.getvalue()
    cut = data.draw(st.integers(0, len(whole)))
    altered = bytearray(whole[:cut])
    for position in data.draw(st.lists(st.integers(0, max(cut - 1, 0)), max_size=3)) if cut else []:
        altered[position] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("archive")
    (folder / "a.zip").write_bytes(bytes(altered))
    target = folder / "out"
    target.mkdir()
    try:
        files = unpack(folder / "a.zip", target, SourceLimits(), SourcePool())
    except BundleRefusedError:
        return
    assert all((target / name).resolve().is_relative_to(target.resolve()) for name in files)
    assert [p.name for p in folder.iterdir() if p.name not in {"a.zip", "out"}] == []

"""Names to files: nothing outside the operator's folders, nothing that others may write, nothing odd."""

import os

import pytest

from scattersphere.remote.errors import RequestError
from scattersphere.remote.places import bundle_file, job_file


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir(mode=0o755)
    (folder / "etl.py").write_text("x = 1\n")
    (folder / "etl.py").chmod(0o644)
    return folder


def code(call, *args):
    with pytest.raises(RequestError) as caught:
        call(*args)
    return caught.value.code


def test_a_bundle_is_found_by_its_name_in_the_first_root_that_has_it(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    assert bundle_file("etl.py", [other, root]) == root / "etl.py"
    assert code(bundle_file, "missing.py", [root]) == "no-such-bundle"
    assert code(bundle_file, "etl.py", []) == "no-such-bundle"


@pytest.mark.parametrize(
    "name",
    [
        "../etl.py",
        "/etc/passwd",
        "a/b.py",
        "a\\b",
        "..",
        ".",
        "",
        ".hidden.py",
        "etl.py\n",
        "etl.py\x00",
        "é.py",
        "x" * 300,
        "a..b",
        "~root",
        "$HOME",
        "-rf",
    ],
)
def test_a_path_is_no_name(root, name):
    """The incident class: path traversal."""
    assert code(bundle_file, name, [root]) == "bad-args"


def test_a_link_may_lead_within_the_root_and_not_out_of_it(root, tmp_path):
    """The incident class: symlinks."""
    (tmp_path / "secret.py").write_text("")
    (root / "out.py").symlink_to(tmp_path / "secret.py")
    (root / "up.py").symlink_to("..")
    (root / "self").symlink_to(".")
    (root / "in.py").symlink_to("etl.py")
    for name in ("out.py", "up.py", "self"):
        assert code(bundle_file, name, [root]) == "forbidden"
    assert bundle_file("in.py", [root]).name == "in.py"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(root, mode):
    (root / "etl.py").chmod(mode)
    assert code(bundle_file, "etl.py", [root]) == "forbidden"


def test_folders_up_to_the_root_and_inside_the_bundle_count_and_those_above_do_not(root, tmp_path):
    package = root / "pkg"
    package.mkdir(mode=0o755)
    (package / "mod.py").write_text("")
    (package / "mod.py").chmod(0o644)
    tmp_path.chmod(0o777)
    assert bundle_file("pkg", [root]) == package
    (package / "mod.py").chmod(0o666)
    assert code(bundle_file, "pkg", [root]) == "forbidden"
    (package / "mod.py").chmod(0o644)
    root.chmod(0o777)
    assert code(bundle_file, "pkg", [root]) == "forbidden"


def test_pipes_and_sockets_are_no_bundles(root):
    os.mkfifo(root / "pipe.py", 0o600)
    assert code(bundle_file, "pipe.py", [root]) == "forbidden"


def test_a_job_is_a_file_of_its_name_in_the_folder(root, tmp_path):
    assert job_file("nightly", root) == root / "nightly.json"
    for name in ("../x", "a/b", "", ".x", "a\n", "x" * 200):
        assert code(job_file, name, root) == "bad-args"
    assert code(job_file, "nightly", None) == "unsupported"
    (root / "out.json").symlink_to(tmp_path / "elsewhere.json")
    assert code(job_file, "out", root) == "forbidden"

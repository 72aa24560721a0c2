"""Names to files: nothing outside the operator's folders, nothing that others may write, nothing odd."""

import os

import pytest
from wire import served

from scattersphere.commands.errors import RequestError
from scattersphere.commands.paths import bundle_file, job_file

GOOD = "from scattersphere import RunnableTask\nclass T(RunnableTask):\n    def run(self, context): ...\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir(mode=0o755)
    (folder / "etl.py").write_text(GOOD)
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


@pytest.fixture
async def registering(root, tmp_path):
    async with served(tmp_path, bundle_roots=[root]) as front, front.client() as client:

        async def register(name):
            reply = await client.ask(f"register {name}")
            assert "result" in reply or str(root) not in reply["error"]["message"].removeprefix(f"{root}: ")
            return "ok" if "result" in reply else reply["error"]["code"]

        yield register


@pytest.mark.anyio
async def test_a_link_may_lead_within_the_root_and_not_out_of_it(root, tmp_path, registering):
    """The incident class: symlinks."""
    (tmp_path / "secret.py").write_text("")
    (root / "out.py").symlink_to(tmp_path / "secret.py")
    (root / "up.py").symlink_to("..")
    (root / "self").symlink_to(".")
    (root / "inside.py").symlink_to("etl.py")
    (root / "etl.py").write_text(GOOD)
    for name in ("out.py", "up.py", "self"):
        assert await registering(name) == "forbidden", name
    assert await registering("inside.py") == "ok"


@pytest.mark.anyio
@pytest.mark.parametrize("mode", [0o646, 0o666])
async def test_a_file_that_others_may_write_is_refused(root, mode, registering):
    (root / "etl.py").chmod(mode)
    assert await registering("etl.py") == "forbidden"


@pytest.mark.anyio
async def test_folders_up_to_the_root_and_inside_the_bundle_count(root, registering):
    package = root / "pkg"
    package.mkdir(mode=0o755)
    (package / "__init__.py").write_text(GOOD)
    (package / "mod.py").write_text("")
    for each in package.iterdir():
        each.chmod(0o644)
    (package / "mod.py").chmod(0o666)
    assert await registering("pkg") == "forbidden"
    (package / "mod.py").chmod(0o644)
    root.chmod(0o777)
    assert await registering("pkg") == "forbidden"
    root.chmod(0o755)
    assert await registering("pkg") == "ok"


@pytest.mark.anyio
async def test_pipes_and_sockets_are_no_bundles(root, registering):
    os.mkfifo(root / "pipe.py", 0o600)
    assert await registering("pipe.py") == "forbidden"


def test_a_job_is_a_file_of_its_name_in_the_folder(root, tmp_path):
    assert job_file("nightly", root) == root / "nightly.json"
    for name in ("../x", "a/b", "", ".x", "a\n", "x" * 200):
        assert code(job_file, name, root) == "bad-args"
    assert code(job_file, "nightly", None) == "unsupported"
    (root / "out.json").symlink_to(tmp_path / "elsewhere.json")
    assert code(job_file, "out", root) == "forbidden"

"""Projects as they lie on people's disks: taken up, or refused with the cure."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
from bundlefiles import job, task_module, write

from scattersphere import Server
from scattersphere.errors import BundleRefusedError

pytestmark = pytest.mark.anyio

PROJECT = {
    "proj/pyproject.toml": "[project]\nname = 'proj'\n",
    "proj/tests/test_x.py": "raise AssertionError('no code of the bundle')\n",
    "proj/src/mylib/__init__.py": "",
    "proj/src/mylib/main.py": job("import mylib.util\nreturn mylib.util.VALUE"),
    "proj/src/mylib/util.py": "VALUE = {v}\n",
}


async def test_a_project_with_src_is_a_bundle_of_what_is_in_src(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, PROJECT, v=1) / "proj")
    assert list(bundle.tasks) == ["mylib.main.Job"]
    assert bundle.tasks["mylib.main.Job"].cls().run(None) == 1
    write(tmp_path, {"proj/src/mylib/util.py": "VALUE = 2\nBROKEN = = 3\n"})
    with pytest.raises(Exception, match=r"proj/src/mylib/util\.py:2"):
        await registry.reload("proj")


@pytest.mark.parametrize("watch", [True, False])
async def test_in_a_root_it_is_taken_up_and_so_is_a_folder_of_packages_without_init(tmp_path, watch):
    write(tmp_path, PROJECT, v=1)
    write(tmp_path, {"spaced/acme/jobs.py": task_module(3), "venv/pyvenv.cfg": "", "venv/lib/x.py": ""})
    write(tmp_path, {"notes/deep/readme.txt": ""})
    async with Server(bundle_roots=[tmp_path], watch=watch) as server:
        assert sorted(server.registry.bundles) == ["proj", "spaced"]
        assert sorted(server.registry.tasks) == ["acme.jobs.Job", "mylib.main.Job"]


async def test_a_package_called_src_is_what_it_is(registry, tmp_path):
    files = {"proj/pyproject.toml": "", "proj/src/__init__.py": "", "proj/src/main.py": task_module(1)}
    bundle = await registry.register(write(tmp_path, files) / "proj")
    assert list(bundle.tasks) == ["src.main.Job"]


SHARED = {
    "acme/jobs.py": job(
        "from acme import fast\nimport acme.fast, acme.util\nreturn fast.SPEED, acme.fast is fast, acme.util.X"
    ),
    "acme/util.py": "X = 'own'\n",
    "acme/fast.cpython-311-x86_64-linux-gnu.so": "",
    "Acme_Fast-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: Acme-Fast\nVersion: 1.2\n",
    "Acme_Fast-1.2.dist-info/RECORD": "acme/fast.cpython-311-x86_64-linux-gnu.so,,\n",
}


async def test_a_namespace_with_one_c_extension_keeps_its_own_modules(registry, tmp_path, monkeypatch):
    (tmp_path / "host" / "acme").mkdir(parents=True)
    (tmp_path / "host" / "acme" / "fast.py").write_text("SPEED = 'host'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "host"))
    try:
        bundle = await registry.register(write(tmp_path / "b", SHARED))
        assert bundle.tasks["acme.jobs.Job"].cls().run(None) == ("host", True, "own")
        (warning,) = bundle.warnings
        assert warning.startswith("acme.fast contains the C extension acme/fast.cpython-311")
        assert "(the bundle's is Acme-Fast 1.2)" in warning
        assert sys.modules["acme.fast"].__spec__.name == "acme.fast"
        await registry.deregister("b")
    finally:
        for name in ("acme.fast", "acme"):
            sys.modules.pop(name, None)


async def test_where_the_host_lacks_it_the_message_names_the_distribution(registry, tmp_path):
    with pytest.raises(BundleRefusedError, match=r"install 'Acme-Fast' \(1\.2 in the bundle\) there"):
        await registry.register(write(tmp_path / "b", SHARED))


async def test_the_release_that_the_host_has_is_told(registry, tmp_path):
    files = {
        "attr/__init__.py": "",
        "attr/_c.so": "",
        "attrs-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: attrs\nVersion: 1.0\n",
        "attrs-1.0.dist-info/RECORD": "attr/__init__.py,,\nattr/_c.so,,\n",
        "main.py": task_module(1),
    }
    bundle = await registry.register(write(tmp_path / "b", files))
    release = importlib.metadata.version("attrs")
    assert bundle.warnings == (
        f"attr contains the C extension attr/_c.so: the host's attr is used instead (attrs {release}; the bundle's is 1.0)",
    )


async def test_a_metaclass_with_an_odd_comparison_stops_no_load(registry, tmp_path):
    before = """
class Odd(type):
    def __eq__(cls, other): raise RuntimeError("not comparable")
    __hash__ = type.__hash__
class Thing(metaclass=Odd): ...
class Yes(type):
    def __eq__(cls, other): return True
    __hash__ = type.__hash__
class Other(metaclass=Yes): ...
"""
    (tmp_path / "a.py").write_text(task_module(1, before=before))
    bundle = await registry.register(tmp_path / "a.py")
    assert list(bundle.tasks) == ["a.Job"]
    await registry.deregister("a")
    assert registry.leaks("a") == []


async def test_metadata_that_is_no_text_is_no_obstacle(registry, tmp_path):
    files = {
        "main.py": task_module(1),
        "acme_fast/__init__.py": "",
        "acme_fast/core.so": "",
        "acme_fast-1.2.dist-info/RECORD": "acme_fast/core.so,,\n",
    }
    folder = write(tmp_path, {f"b/{name}": content for name, content in files.items()}) / "b"
    (folder / "acme_fast-1.2.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleRefusedError, match=r"install 'acme_fast' \(\? in the bundle\) there"):
        await registry.register(folder)

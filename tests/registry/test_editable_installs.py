"""Projects that are installed with `pip install -e` in the host's environment, and registered as bundles too."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

import pytest
from bundlefiles import job, write

pytestmark = pytest.mark.anyio

INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: acme-etl\nVersion: {release}\n",
    "RECORD": "__editable__.acme_etl.pth,,\nacme_etl-1.dist-info/METADATA,,\n",
    "entry_points.txt": "[acme.plugins]\nmain = acme_etl.main:NAME\n",
    "top_level.txt": "acme_etl\n",
}
"""What an installer leaves of an editable install, but for the way to it: a `.pth` file, or a finder (PEP 660)."""

ASK = """
import importlib.metadata as metadata
found = metadata.distribution("acme-etl")
return {
    "version": metadata.version("acme-etl"),
    "loaded": [entry.load() for entry in metadata.entry_points(group="acme.plugins")],
    "by distribution": [entry.load() for entry in found.entry_points],
    "by search": [e.load() for d in metadata.distributions() for e in d.entry_points if e.group == "acme.plugins"],
    "name": found.metadata["Name"],
}
"""
PROJECT = {
    "proj/pyproject.toml": "[project]\nname = 'acme-etl'\n",
    "proj/{sources}acme_etl/__init__.py": "",
    "proj/{sources}acme_etl/main.py": "NAME = __name__\n" + job(ASK),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a project in the host's environment, by a folder in `sys.path`, or by a finder."""
    names = []

    def install(sources, name="acme_etl", *, release="1.0", project=None, finder=False):
        names.append(name)
        site = tmp_path / "site"
        info = {f"site/acme_etl-1.dist-info/{file}": text for file, text in INFO.items()}
        write(tmp_path, info, release=release)
        if project is not None:
            url = {"url": project.as_uri(), "dir_info": {"editable": True}}
            (site / "acme_etl-1.dist-info" / "direct_url.json").write_text(json.dumps(url))
        monkeypatch.syspath_prepend(str(site))
        if not finder:
            monkeypatch.syspath_prepend(str(sources))
            return

        class Finder:
            @staticmethod
            def find_spec(fullname, path=None, target=None):
                if fullname == name:
                    folder = sources / name
                    return spec_from_file_location(
                        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
                    )
                return PathFinder.find_spec(fullname, [str(sources / name)]) if path == name else None

        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])

    yield install
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]


def project(tmp_path, sources=""):
    files = {name.replace("{sources}", sources): text for name, text in PROJECT.items()}
    return write(tmp_path, files) / "proj"


@pytest.mark.parametrize("sources", ["", "src/"])
@pytest.mark.parametrize("finder", [False, True])
async def test_what_is_installed_of_a_bundle_loads_the_bundles_modules(
    registry, tmp_path, install, sources, finder
):
    folder = project(tmp_path, sources)
    install(folder / sources, project=folder, finder=finder)
    bundle = await registry.register(folder)
    namespace = bundle.current.namespace
    own = [namespace.full("acme_etl.main")]
    assert registry.find("acme_etl.main.Job").cls().run(None) == {
        "version": "1.0",
        "loaded": own,
        "by distribution": own,
        "by search": own,
        "name": "acme-etl",
    }
    assert bundle.warnings == ()  # it is the same project
    (entry,) = importlib.metadata.entry_points(group="acme.plugins")
    assert entry.load() == "acme_etl.main"  # the host's own view is as ever


async def test_a_release_of_the_host_that_is_not_what_runs_is_warned_of(registry, tmp_path, install):
    install(tmp_path / "site", release="0.9")
    bundle = await registry.register(project(tmp_path))
    assert bundle.warnings == ()
    assert registry.find("acme_etl.main.Job").cls().run(None)["version"] == "0.9"
    (warning,) = bundle.warnings
    assert warning == (
        "importlib.metadata tells of acme-etl 0.9, which is the host's, and what runs is the bundle's own acme_etl: "
        "put its *.dist-info or *.egg-info folder into the bundle"
    )


@pytest.mark.parametrize("sources", ["", "src/"])
async def test_the_metadata_that_setuptools_leaves_in_a_project_is_the_bundles(
    registry, tmp_path, install, sources
):
    install(tmp_path / "site", release="0.9")
    folder = project(tmp_path, sources)
    info = {
        "PKG-INFO": INFO["METADATA"],
        **{name: INFO[name] for name in ("entry_points.txt", "top_level.txt")},
    }
    write(folder / sources, {f"acme_etl.egg-info/{name}": text for name, text in info.items()}, release="1.1")
    bundle = await registry.register(folder)
    told = registry.find("acme_etl.main.Job").cls().run(None)
    assert told["version"] == "1.1"
    assert told["loaded"] == told["by search"] == [bundle.current.namespace.full("acme_etl.main")]
    assert bundle.warnings == ()


@pytest.mark.parametrize("how", ["import acme_etl", "import importlib; importlib.import_module('acme_etl')"])
async def test_a_module_of_the_bundle_that_an_import_gets_from_the_host_is_warned_of(
    registry, tmp_path, install, how
):
    files = {
        "proj/pyproject.toml": "",
        "proj/lib/acme_etl/__init__.py": "",
        "proj/lib/acme_etl/main.py": job(how),
    }
    folder = write(tmp_path, files) / "proj"
    install(folder / "lib", project=folder, finder=True)
    bundle = await registry.register(folder)
    registry.find("lib.acme_etl.main.Job").cls().run(None)
    registry.find("lib.acme_etl.main.Job").cls().run(None)
    (warning,) = bundle.warnings
    assert warning == (
        f"`import acme_etl` gives the host's module, which it has loaded once from {folder}/lib: edits of it are not "
        f"taken up. Register {folder}/lib, where that is its name"
    )


async def test_a_module_of_the_host_beside_a_bundle_is_not_warned_of(registry, tmp_path, install):
    write(tmp_path, {"app/acme_etl.py": "", "app/tasks.py": job("import acme_etl, json")})
    install(tmp_path / "app")
    bundle = await registry.register(tmp_path / "app" / "tasks.py")
    registry.find("tasks.Job").cls().run(None)
    assert bundle.warnings == ()


async def test_what_a_build_has_left_is_no_part_of_a_project(registry, tmp_path):
    folder = project(tmp_path)
    copy = {"build/lib/acme_etl/main.py": job("return 1"), "dist/acme_etl-1.tar.gz": "", "dist/x.py": "1 / 0"}
    bundle = await registry.register(write(folder, copy))
    assert list(bundle.tasks) == ["acme_etl.main.Job"]
    assert bundle.warnings == (
        "left out: build (what a build has left; !build in .scattersphereignore takes it in), "
        "dist (what a build has left; !dist in .scattersphereignore takes it in)",
    )
    write(folder, {".scattersphereignore": "!build\n"})
    await registry.reload("proj")
    assert sorted(bundle.tasks) == ["acme_etl.main.Job", "build.lib.acme_etl.main.Job"]


async def test_a_package_called_build_and_a_build_folder_of_no_project_are_what_they_are(registry, tmp_path):
    write(
        tmp_path,
        {"one/pyproject.toml": "", "one/build/__init__.py": "", "one/build/main.py": job("return 1")},
    )
    write(tmp_path, {"two/build/main.py": job("return 2")})
    for name in ("one", "two"):
        bundle = await registry.register(tmp_path / name)
        assert list(bundle.tasks) == ["build.main.Job"]


async def test_what_lies_beside_the_code_of_a_project_is_not_searched_for_tasks(registry, tmp_path):
    files = {
        "docs/conf.py": "raise SystemExit('run by Sphinx alone')",
        "noxfile.py": "1 / 0",
        "setup.py": "1 / 0",
    }
    bundle = await registry.register(write(project(tmp_path), files))
    assert list(bundle.tasks) == ["acme_etl.main.Job"]
    bundle = await registry.register(write(tmp_path, {"plain/docs/conf.py": job("return 1")}) / "plain")
    assert list(bundle.tasks) == ["docs.conf.Job"]  # no project

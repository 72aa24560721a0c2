"""`importlib.metadata` in a bundle sees the distributions that the bundle brings, before those of the host."""

from __future__ import annotations

import importlib.metadata

import pytest
from bundlefiles import write

pytestmark = pytest.mark.anyio

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: attrs\n"
ASK = """
import importlib.metadata, importlib
from importlib import metadata
from importlib.metadata import PackageNotFoundError, distributions, entry_points, files, requires, version
from scattersphere.runnable import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        try:
            version("no-such-thing")
        except PackageNotFoundError:
            missing = True
        names = [found.metadata["Name"].lower() for found in distributions()]
        return {
            "own": [version("my.lib"), metadata.version("My_Lib"), importlib.metadata.version("my-lib")],
            "name": metadata.metadata("my-lib")["Name"],
            "requires": requires("my-lib"),
            "files": [str(file) for file in files("my-lib")],
            "entries": [entry.value for entry in entry_points(group="plugins")],
            "vendored": version("attrs"),
            "attrs": names.count("attrs"),
            "host": version("anyio"),
            "missing": missing,
            "elsewhere": [found.version for found in metadata.distributions(path=[])],
        }
"""


async def test_own_distributions_come_first(registry, tmp_path):
    info = "my_lib-1.5.dist-info"
    files = {
        "b/job.py": ASK,
        f"b/{info}/METADATA": METADATA.replace("{name}", "my-lib").replace("{version}", "1.5"),
        f"b/{info}/RECORD": "my_lib/__init__.py,,\n",
        f"b/{info}/entry_points.txt": "[plugins]\nmine = my_lib:main\n",
        "b/my_lib/__init__.py": "",
        "b/attrs-1.0.dist-info/METADATA": METADATA.replace("{name}", "attrs").replace("{version}", "1.0"),
        "b/attrs-1.0.dist-info/RECORD": "",
    }
    await registry.register(write(tmp_path, files) / "b")
    assert registry.find("job.Job").cls().run(None) == {
        "own": ["1.5", "1.5", "1.5"],
        "name": "my-lib",
        "requires": ["attrs"],
        "files": ["my_lib/__init__.py"],
        "entries": ["my_lib:main"],
        "vendored": "1.0",
        "attrs": 1,
        "host": importlib.metadata.version("anyio"),
        "missing": True,
        "elsewhere": [],
    }
    assert importlib.metadata.version("attrs") != "1.0"  # the host's own view is as ever


ENTRY_POINTS = """
import copy, importlib, pickle
import importlib.metadata as metadata
from importlib.metadata import EntryPoint, entry_points
from scattersphere.runnable import RunnableTask
def main(): return "the bundle's"
class Special(EntryPoint):
    pass
class Job(RunnableTask):
    def run(self, context):
        own, special = EntryPoint("a", "job:main", "b"), Special("a", "job:main", "b")
        mine, = entry_points(group="plugins")
        return {
            "all": [(entry, isinstance(entry, metadata.EntryPoint)) for entry in (own, special, mine, *entry_points())],
            "class": issubclass(type(mine), EntryPoint),
            "others": [isinstance(other, EntryPoint) for other in ("a", ("a", "job:main", "b"), None)],
            "special": [isinstance(entry, Special) for entry in (special, own, mine)],
            "pickled": [pickle.loads(pickle.dumps(entry, 2)) == entry for entry in (own, special, mine)],
            "copied": [copy.deepcopy(copy.copy(entry)).load()() for entry in (own, special, mine)],
        }
"""


async def test_what_a_bundle_knows_as_an_entry_point_is_any_and_can_be_pickled_and_copied(registry, tmp_path):
    files = {
        "b/job.py": ENTRY_POINTS,
        "b/mine-1.dist-info/METADATA": METADATA.replace("{name}", "mine").replace("{version}", "1"),
        "b/mine-1.dist-info/entry_points.txt": "[plugins]\nmine = job:main\n",
    }
    await registry.register(write(tmp_path, files) / "b")
    seen = registry.find("job.Job").cls().run(None)
    # Those of the host may be of other classes: `importlib_metadata`, where it is imported, finds them with its own.
    judged = seen.pop("all")
    assert [found for _, found in judged] == [
        isinstance(each, importlib.metadata.EntryPoint) for each, _ in judged
    ]
    assert [found for _, found in judged[:3]] == [True] * 3
    assert seen == {
        "class": True,
        "others": [False] * 3,
        "special": [True, False, False],
        "pickled": [True] * 3,
        "copied": ["the bundle's"] * 3,
    }


DISTRIBUTION = """
import copy, pickle
from importlib.metadata import distribution, distributions
from scattersphere.runnable import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        found = [distribution("anyio"), *[one for one in distributions() if one.metadata["Name"] == "anyio"]]
        ways = (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)))
        return [way(one).version == one.version for one in found for way in ways]
"""


async def test_a_distribution_of_the_host_can_be_copied_and_pickled(registry, tmp_path):
    await registry.register(write(tmp_path, {"b/job.py": DISTRIBUTION}) / "b")
    seen = registry.find("job.Job").cls().run(None)
    assert len(seen) >= 6
    assert all(seen)


BACKPORT = """
import importlib.metadata, sys
from importlib.machinery import PathFinder
if hasattr(PathFinder, "find_distributions"):  # as `importlib_metadata` does, to find distributions by itself
    del PathFinder.find_distributions
def names(context):
    resolvers = [finder.find_distributions for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    return [found.metadata["Name"] for resolve in resolvers for found in resolve(context)]
"""


async def test_a_backport_that_a_bundle_brings_finds_its_distributions_and_the_host_goes_on_finding_its_own(
    registry, tmp_path
):
    ask = (
        "import backport\nfrom importlib.metadata import DistributionFinder\n"
        "from scattersphere.runnable import RunnableTask\nclass Job(RunnableTask):\n    def run(self, context):\n"
        "        return backport.names(DistributionFinder.Context(name='My.Lib')), "
        "'my-lib' in backport.names(DistributionFinder.Context()), "
        "backport.names(DistributionFinder.Context(name='my-lib', path=[]))\n"
    )
    files = {
        "b/job.py": ask,
        "b/backport.py": BACKPORT,
        "b/my_lib-1.5.dist-info/METADATA": METADATA.replace("{name}", "my-lib").replace("{version}", "1.5"),
        "b/my_lib-1.5.dist-info/RECORD": "",
    }
    before = importlib.metadata.version("anyio")
    await registry.register(write(tmp_path, files) / "b")
    assert registry.find("job.Job").cls().run(None) == (["my-lib"], True, [])
    assert importlib.metadata.version("anyio") == before
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("my-lib")
    await registry.deregister("b")
    assert importlib.metadata.version("anyio") == before

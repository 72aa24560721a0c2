"""Names in strings that a bundle's code resolves mean its own modules, and never silently the host's."""

from __future__ import annotations

import builtins
import io
import sys
import types

import anyio
import anyio.to_thread
import pytest
from bundlefiles import job, write
from patience import PATIENCE

pytestmark = pytest.mark.anyio

FILES = {
    "etl/__init__.py": "",
    "etl/util.py": "VALUE = {v}\ndef get(): return VALUE\nif __name__ == '__main__': RESULT = 'run ' + str(VALUE)\n",
    "etl/tool.py": "from etl import util\nRESULT = util.VALUE, __name__\n",
    "etl/data/words.txt": "words {v}",
}


@pytest.fixture(autouse=True)
def host_etl(monkeypatch):
    """The host has modules of the same names, which no string in the bundle may mean."""
    for name in ("etl", "etl.util"):
        module = types.ModuleType(name)
        module.VALUE = "host"
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)


async def results(registry, tmp_path, body, *, before="", versions=(1, 2)):
    """Return what a task returns in two versions that are both in memory."""
    found = []
    for number in versions:
        place = write(tmp_path, {**FILES, "etl/main.py": job(body, before)}, v=number) / "etl"
        bundle = await (registry.register(place) if number == versions[0] else registry.reload("etl"))
        registry.pin(number, [bundle.current])
        found.append(bundle.current.tasks["etl.main.Job"])
    return [await anyio.to_thread.run_sync(task.cls().run, None) for task in found]


RESOLVERS = {
    "sys.modules": "import etl.util, sys\nreturn sys.modules['etl.util'].VALUE",
    "sys.modules.get": "import etl.util\nfrom sys import modules\nreturn modules.get('etl.util').VALUE",
    "a loop over sys.modules": (
        "import etl.util, sys\nreturn {n: m.VALUE for n, m in sys.modules.copy().items() if n == 'etl.util'}['etl.util']"
    ),
    "pickle.loads": "import pickle\nreturn pickle.loads(b'cetl.util\\nget\\n.')()",
    "pickle.load": "import io, pickle\nreturn pickle.load(io.BytesIO(b'cetl.util\\nget\\n.'), encoding='utf-8')()",
    "a pickle.Unpickler": (
        "import io\nfrom pickle import Unpickler\nclass Own(Unpickler): pass\n"
        "return Own(io.BytesIO(b'cetl.util\\nget\\n.')).load()()"
    ),
    "an entry point that it makes": (
        "from importlib.metadata import EntryPoint\nmade = EntryPoint('a', 'etl.util:get', 'b')\n"
        "return made == EntryPoint(name='a', value='etl.util:get', group='b') and made.load()()"
    ),
    "pkgutil.resolve_name": "import pkgutil\nreturn pkgutil.resolve_name('etl.util:get')()",
    "pkgutil.get_data": "import pkgutil\nreturn int(pkgutil.get_data('etl', 'data/words.txt').split()[1])",
    "pydoc.locate": "import pydoc\nreturn pydoc.locate('etl.util.VALUE')",
    "runpy.run_module": "import runpy\nreturn runpy.run_module('etl.tool')['RESULT'][0]",
    "runpy.run_path": ("import etl.tool, runpy\nreturn runpy.run_path(etl.tool.__file__)['RESULT'][0]"),
    "importlib.import_module": "from importlib import import_module\nreturn import_module('etl.util').VALUE",
    "import_module of importlib": (
        "from importlib import import_module\nreturn import_module('importlib').import_module('etl.util').VALUE"
    ),
    "__import__": "return __import__('etl.util').util.VALUE",
    "importlib.util": (
        "import importlib.util\nspec = importlib.util.find_spec('etl.util')\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nreturn module.VALUE"
    ),
    "another top-level name before its own": (
        "from importlib import import_module\npackage, dot, rest = __name__.partition('.')\n"
        "return import_module('etl' + dot + rest).__name__ == __name__ and import_module('etl.util').VALUE"
    ),
}


@pytest.mark.parametrize("way", RESOLVERS)
async def test_a_name_means_the_bundles_own_module_in_each_version(registry, tmp_path, way):
    assert await results(registry, tmp_path, RESOLVERS[way]) == [1, 2]


async def test_what_code_has_pickled_every_version_of_it_reads_as_its_own(registry, tmp_path):
    before = "import pickle\nclass Row: pass\nclass Table:\n    class Cell: pass\n"
    file = tmp_path / "rows"
    body = (
        f"from pathlib import Path\nfile = Path({str(file)!r})\n"
        "if not file.exists(): file.write_bytes(pickle.dumps([Row(), Table.Cell()]))\n"
        "found = pickle.loads(file.read_bytes())\n"
        "return [type(one) for one in found] == [Row, Table.Cell]"
    )
    assert await results(registry, tmp_path, body, before=before) == [True, True]
    await registry.deregister("etl")
    for run in (2, 1):
        registry.unpin(run)
    assert await results(registry, tmp_path, body, before=before, versions=(3,)) == [True]


async def test_what_another_bundle_has_pickled_is_none_of_its_own(registry, tmp_path):
    body = "import pickle\nreturn pickle.loads(b'cscattersphere.bundles.{name}.etl.util\\nget\\n.')"
    for name in ("etl_g", "other_g1", "etl_g1_g1", "xetl_g1"):
        with pytest.raises(ImportError, match=r"No module named|lacks it"):
            await results(registry, tmp_path, body.replace("{name}", name), versions=(1,))
        registry.unpin(1)
        await registry.deregister("etl")


async def test_walk_packages_tells_the_names_that_the_author_knows(registry, tmp_path):
    body = "import etl, pkgutil\nreturn sorted(i.name for i in pkgutil.walk_packages(etl.__path__, 'etl.'))"
    assert await results(registry, tmp_path, body, versions=(1,)) == [["etl.main", "etl.tool", "etl.util"]]


async def test_a_module_that_code_runs_has_the_name_that_it_asked_for(registry, tmp_path):
    body = "import runpy\nreturn runpy.run_module('etl.util', run_name='__main__')['RESULT']"
    assert await results(registry, tmp_path, body) == ["run 1", "run 2"]


async def test_what_code_enters_under_a_new_name_is_its_own_in_each_version(registry, tmp_path):
    before = (
        "import sys, types\nextra = types.ModuleType('extra_of_etl')\nextra.VALUE = {v}\n"
        "sys.modules['extra_of_etl'] = extra\nsys.modules['etl.made'] = extra\n"
    )
    body = "import extra_of_etl\nreturn extra_of_etl.VALUE, sys.modules['etl.made'].VALUE, 'etl.made' in sys.modules"
    assert await results(registry, tmp_path, body, before=before) == [(1, 1, True), (2, 2, True)]
    assert "extra_of_etl" not in sys.modules
    assert "etl.made" not in sys.modules


async def test_a_module_of_the_host_that_code_replaces_is_warned_of_and_put_back(registry, tmp_path):
    import colorsys

    before = "import sys, types\nsys.modules['colorsys'] = types.ModuleType('colorsys')\n"
    await results(registry, tmp_path, "return 1", before=before)
    assert sys.modules["colorsys"] is not colorsys
    (warning,) = registry.bundles["etl"].warnings
    assert "sys.modules['colorsys'], which is the host's" in warning
    await registry.deregister("etl")
    for run in (2, 1):
        registry.unpin(run)
    assert sys.modules["colorsys"] is colorsys


async def test_a_finder_of_the_bundle_is_asked_by_the_names_that_it_knows(registry, tmp_path):
    """As toolz makes `tlz`: each module of it by a finder of its own in `sys.meta_path`."""
    before = """
import sys, types
from importlib.machinery import ModuleSpec
class Finder:
    def find_spec(self, name, path, target=None):
        return ModuleSpec(name, self) if name.startswith("etl.made_") else None
    def create_module(self, spec): return types.ModuleType(spec.name)
    def exec_module(self, module): module.VALUE = {v}
sys.meta_path.append(Finder())
"""
    finders = list(sys.meta_path)
    body = "import etl.made_up\nreturn etl.made_up.VALUE"
    assert await results(registry, tmp_path, body, before=before) == [1, 2]
    await registry.deregister("etl")
    for run in (2, 1):
        registry.unpin(run)
    assert [finder for finder in sys.meta_path if finder not in finders] == []


async def test_the_rest_of_sys_is_the_real_one(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "scattersphere_test", None, raising=False)
    body = (
        "import sys, types\nsys.scattersphere_test = sys.path\n"
        "return isinstance(sys, types.ModuleType) and sys.maxsize, 'path' in dir(sys), sys._getframe(0).f_code.co_name"
    )
    assert await results(registry, tmp_path, body, versions=(1,)) == [(sys.maxsize, True, "run")]
    assert sys.scattersphere_test is sys.path


PLUG = {
    "plug/__init__.py": "V = 'bundle'\nclass Deep:\n    inner = 'deep'\n",
    "plug-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: plug\nVersion: 2.0\n",
    "plug-2.0.dist-info/RECORD": "plug/__init__.py,,\n",
    "plug-2.0.dist-info/entry_points.txt": "[my.group]\nx = plug:V\ny = plug:Deep.inner\nz = plug\n",
}


@pytest.mark.parametrize("host_has_it", [True, False])
async def test_entry_points_load_the_bundles_module(registry, tmp_path, monkeypatch, host_has_it):
    if host_has_it:
        module = types.ModuleType("plug")
        module.V = "host"
        monkeypatch.setitem(sys.modules, "plug", module)
    body = (
        "from importlib.metadata import entry_points, distribution\n"
        "loaded = {e.name: e.load() for e in entry_points(group='my.group')}\n"
        "(one,) = distribution('plug').entry_points.select(name='x')\n"
        "return loaded['x'], loaded['y'], loaded['z'].V, one.load(), one.dist.version"
    )
    write(tmp_path / "b", {**PLUG, "main.py": job(body)})
    task = (await registry.register(tmp_path / "b")).current.tasks["main.Job"]
    assert task.cls().run(None) == ("bundle", "deep", "bundle", "bundle", "2.0")


async def test_the_release_of_a_library_is_that_of_what_runs(registry, tmp_path):
    """`attrs` with a C extension in the bundle comes from the host, and so does its number."""
    import importlib.metadata

    files = {
        "attr/__init__.py": "",
        "attr/fast.so": "",
        "attrs-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: attrs\nVersion: 1.0\n",
        "attrs-1.0.dist-info/RECORD": "attr/__init__.py,,\nattr/fast.so,,\n",
        "main.py": job("from importlib.metadata import version\nreturn version('attrs')"),
    }
    bundle = await registry.register(write(tmp_path / "b", files))
    release = importlib.metadata.version("attrs")
    assert bundle.current.tasks["main.Job"].cls().run(None) == release


async def test_a_folder_of_its_own_in_sys_path_gives_each_version_its_own_library_and_is_taken_out(
    registry, tmp_path
):
    before = list(sys.path)
    head = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'vendor'))\nimport vlib.deep\nfrom vlib import V\n"
    found = []
    for number in (1, 2):
        files = {
            "etl/__init__.py": "",
            "etl/vendor/vlib/__init__.py": "V = {v}\n",
            "etl/vendor/vlib/deep.py": "import vlib\nDEEP = vlib.V\n",
            "etl/main.py": job("import vlib\nreturn V, vlib.V, vlib.deep.DEEP", head),
        }
        place = write(tmp_path, files, v=number) / "etl"
        bundle = await (registry.register(place) if number == 1 else registry.reload("etl"))
        registry.pin(number, [bundle.current])
        found.append(bundle.current.tasks["etl.main.Job"])
        (warning,) = bundle.warnings
        assert "'etl/vendor' into sys.path" in warning
    assert [task.cls().run(None) for task in found] == [(1, 1, 1), (2, 2, 2)]
    assert "vlib" not in sys.modules
    await registry.deregister("etl")
    for run in (1, 2):
        registry.unpin(run)
    assert sys.path == before


PLUGIN = {
    "etl/plugins/first.py": "from etl import util\nRESULT = util.VALUE\n",
    "etl/plugins/other.py": "from .first import RESULT\n",
}

BY_PATH = {
    "a name below its package": """
import importlib.util
spec = importlib.util.spec_from_file_location("etl.plugins.other", path.with_name("other.py"))
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
return module.RESULT
""",
    "spec_from_file_location": """
import importlib.util
spec = importlib.util.spec_from_file_location("first", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
return module.RESULT
""",
    "SourceFileLoader": """
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = SourceFileLoader("first", str(path))
module = module_from_spec(spec_from_loader("first", loader))
loader.exec_module(module)
return module.RESULT
""",
    "load_module": """
import importlib.machinery, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    module = importlib.machinery.SourceFileLoader("first", str(path)).load_module()
import first
assert first is module is sys.modules["first"]
return module.RESULT
""",
    "a folder in __path__": """
import etl
etl.__path__.append(str(path.parent))
import etl.first
return etl.first.RESULT
""",
}


@pytest.mark.parametrize("way", BY_PATH)
async def test_a_file_of_the_bundle_that_is_loaded_by_its_path_imports_as_the_bundle_does(
    registry, tmp_path, monkeypatch, way
):
    write(tmp_path, PLUGIN, v=0)
    body = f"from pathlib import Path\npath = Path(__file__).parent / 'plugins' / 'first.py'{BY_PATH[way]}".strip()
    assert await results(registry, tmp_path, body) == [1, 2]
    assert "first" not in sys.modules
    for number in (1, 2):
        registry.unpin(number)
    await registry.deregister("etl")
    with anyio.fail_after(PATIENCE):
        while registry.leaks("etl"):  # noqa: ASYNC110 - the worker thread that ran the body has nobody to tell
            await anyio.sleep(0.01)


async def test_a_file_elsewhere_is_loaded_by_its_path_as_ever(registry, tmp_path):
    (tmp_path / "elsewhere.py").write_text("import etl\nRESULT = etl.VALUE\n")
    body = f"""
import importlib.util, importlib.machinery
found = []
for loader in (None, importlib.machinery.SourceFileLoader("elsewhere", {str(tmp_path / "elsewhere.py")!r})):
    spec = importlib.util.spec_from_file_location("elsewhere", {str(tmp_path / "elsewhere.py")!r}, loader=loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found.append(module.RESULT)
return found
""".strip()
    assert await results(registry, tmp_path, body, versions=(1,)) == [["host", "host"]]


async def test_what_code_sets_in_builtins_is_there_for_its_version_alone(registry, tmp_path):
    before = "import builtins\nbuiltins.number = {v}\nbuiltins.open = lambda *names: ('opened', *names)"
    body = """
import builtins
from builtins import number as imported
found = [number, imported, builtins.number, vars(builtins)['number'], open('x'), 'number' in dir(builtins)]
found.append(builtins.__import__ is __import__)
del builtins.number
try:
    number
except NameError:
    found.append(hasattr(builtins, 'number'))
try:
    del builtins.number
except AttributeError as error:
    found.append(str(error))
return found
""".strip()
    lacking = "module 'builtins' has no attribute 'number'"
    assert await results(registry, tmp_path, body, before=before) == [
        [number, number, number, number, ("opened", "x"), True, True, False, lacking] for number in (1, 2)
    ]
    assert not hasattr(builtins, "number")
    assert open is builtins.open is io.open


async def test_translations_that_code_installs_are_there_for_it(registry, tmp_path):
    before = "import gettext\ngettext.install('etl', names=['ngettext'])"
    body = "return _('word'), ngettext('one', 'many', 2), gettext.gettext('word')"
    assert await results(registry, tmp_path, body, before=before) == [("word", "many", "word")] * 2
    assert not hasattr(builtins, "_")

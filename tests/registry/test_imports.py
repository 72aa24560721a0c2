"""Bundle code is ordinary Python: every way of importing, and everything that looks modules up, works."""

from __future__ import annotations

import gc
import inspect
import pickle
import sys
import traceback
import zipfile

import pytest
from bundlefiles import PACKAGE, job, task_module, write
from wheelfiles import record_of

from scattersphere.errors import BundleLoadError, BundleRefusedError
from scattersphere.registry.registry import TaskRegistry
from scattersphere.runnable import RunnableTask

pytestmark = pytest.mark.anyio


async def result_of(registry, root, files, path="etl.main.Job", **values):
    bundle = await registry.register(write(root, files, **values) / "etl", name=f"etl{len(registry.bundles)}")
    return registry.find(path, bundle=bundle.name).cls().run(None)


WAYS = {
    "absolute": "import etl.util\nreturn etl.util.VALUE",
    "absolute with as": "import etl.sub.deep as deep\nreturn deep.VALUE",
    "from": "from etl.util import VALUE\nreturn VALUE",
    "relative": "from .util import VALUE\nreturn VALUE",
    "relative package": "from . import util\nreturn util.VALUE",
    "submodule by from": "from etl.sub import deep\nreturn deep.VALUE",
    "package without init": "from etl.ns import inner\nreturn inner.VALUE",
    "circular": "from etl import ring_a\nreturn ring_a.get()",
    "import_module, literal": "import importlib\nreturn importlib.import_module('etl.util').VALUE",
    "import_module, relative": "from importlib import import_module\nreturn import_module('.util', __package__).VALUE",
    "import_module, logical package": "import importlib\nreturn importlib.import_module('.util', 'etl').VALUE",
    "__import__": "return __import__('etl.util').util.VALUE",
    "exec": "names = {}\nexec('from etl.util import VALUE', names)\nreturn names['VALUE']",
    "reload": "import importlib\nfrom etl import util\nreturn importlib.reload(util).VALUE",
    "find_spec": "import importlib.util\nfrom importlib.util import find_spec, module_from_spec\n"
    "assert find_spec('etl.gone') is None and find_spec('json').name == 'json'\n"
    "spec = importlib.util.find_spec('etl.util')\nassert find_spec('.util', __package__).name == spec.name\n"
    "module = module_from_spec(spec)\nspec.loader.exec_module(module)\nreturn module.VALUE",
    "resources, literal": "from importlib import resources\n"
    "return int(resources.files('etl').joinpath('data/words.txt').read_text()[4:])",
    "resources, package": "from importlib.resources import files\n"
    "return int((files(__package__) / 'data' / 'words.txt').read_text()[4:])",
    "resources, module": "import importlib.resources\nimport etl\n"
    "return int((importlib.resources.files(etl) / 'data' / 'words.txt').read_text()[4:])",
    "__file__": "from pathlib import Path\nreturn int((Path(__file__).parent / 'data/words.txt').read_text()[4:])",
    "pkgutil": "import pkgutil\nreturn int(pkgutil.get_data(__package__, 'data/words.txt')[4:])",
    "walk_packages": "import pkgutil, etl\n"
    "names = [m.name for m in pkgutil.walk_packages(etl.__path__, etl.__name__ + '.')]\n"
    "assert etl.__name__ + '.sub.deep' in names\nreturn {v}",
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_of_importing_reaches_the_own_version(registry, tmp_path, way):
    files = {**PACKAGE, "etl/main.py": job(WAYS[way])}
    root = write(tmp_path, files, v=1)
    first = await registry.register(root / "etl")
    old = registry.find("etl.main.Job").cls
    registry.pin(1, [first.current])
    write(tmp_path, files, v=2)
    await registry.reload("etl")
    new = registry.find("etl.main.Job").cls
    assert (old().run(None), new().run(None)) == (1, 2)


async def test_star_imports_and_type_checking_imports(registry, tmp_path):
    before = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom etl.star import *\n"
        "if TYPE_CHECKING:\n    from etl.nowhere import Nothing\ndef f(x: Nothing) -> None: ...\n"
    )
    body = "return SHOWN, 'HIDDEN' in globals()"
    module = "from __future__ import annotations\n" + job(body, before.partition("\n")[2])
    assert await result_of(registry, tmp_path, {**PACKAGE, "etl/main.py": module}, v=3) == (3, False)


@pytest.mark.parametrize("ending", [".zip", ".whl"])
async def test_archives_hold_several_packages_and_data(registry, tmp_path, ending):
    path = tmp_path / f"etl-1.0-py3-none-any{ending}"
    read = job("from importlib.resources import files\nreturn files('two').joinpath('d.txt').read_text()")
    files = {
        "one/__init__.py": read,
        "two/__init__.py": "",
        "two/d.txt": "data",
        "three.py": task_module(3),
        "etl-1.0.data/purelib/four.py": task_module(4),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {"etl-1.0.dist-info/RECORD": record_of(files)}).items():
            archive.writestr(name, content)
    bundle = await registry.register(path, name="etl")
    assert set(bundle.tasks) == {"one.Job", "three.Job", "four.Job"}
    assert registry.find("one.Job").cls().run(None) == "data"


async def test_a_class_keeps_working_with_pickle_in_two_versions(registry, tmp_path):
    files = {**PACKAGE, "etl/main.py": job("return P", "class P:\n    value = {v}\n")}
    bundle = await registry.register(write(tmp_path, files, v=1) / "etl")
    registry.pin(1, [bundle.current])
    first = registry.find("etl.main.Job").cls().run(None)
    write(tmp_path, files, v=2)
    await registry.reload("etl")
    second = registry.find("etl.main.Job").cls().run(None)
    for cls, value in ((first, 1), (second, 2)):
        assert type(pickle.loads(pickle.dumps(cls()))) is cls
        assert cls.value == value


async def test_type_hints_of_one_version_never_give_a_class_of_another(registry, tmp_path):
    before = "import typing\nclass Item:\n    value = {v}\ndef f(x: typing.Optional['Item']): ...\n"
    files = {**PACKAGE, "etl/main.py": job("return typing.get_type_hints(f)['x'].__args__[0].value", before)}
    bundle = await registry.register(write(tmp_path, files, v=1) / "etl")
    registry.pin(1, [bundle.current])
    assert registry.find("etl.main.Job").cls().run(None) == 1
    write(tmp_path, files, v=2)
    await registry.reload("etl")
    assert registry.find("etl.main.Job").cls().run(None) == 2


async def test_type_hints_of_a_lazily_imported_module_are_of_its_own_version(registry, tmp_path):
    lazy = "import typing\nclass Item:\n    value = {v}\ndef f(x: typing.Optional['Item']): ...\n"
    body = (
        "import typing\nfrom etl.test_lazy import f\nreturn typing.get_type_hints(f)['x'].__args__[0].value"
    )
    files = {**PACKAGE, "etl/main.py": job(body), "etl/test_lazy.py": lazy}  # not loaded in search of tasks
    bundle = await registry.register(write(tmp_path, files, v=1) / "etl")
    registry.pin(1, [bundle.current])
    old = registry.find("etl.main.Job").cls
    write(tmp_path, files, v=2)
    await registry.reload("etl")
    assert registry.find("etl.main.Job").cls().run(None) == 2
    assert old().run(None) == 1


async def test_two_bundles_with_equal_module_names_coexist(registry, tmp_path):
    files = {**PACKAGE, "etl/main.py": job("from etl.util import VALUE\nreturn VALUE")}
    assert await result_of(registry, tmp_path / "x", files, v=1) == 1
    assert await result_of(registry, tmp_path / "y", files, v=2) == 2
    assert registry.find("etl.main.Job", "etl0").cls().run(None) == 1


async def test_tracebacks_and_sources_are_those_of_the_version_after_the_file_changed(registry, tmp_path):
    files = {**PACKAGE, "etl/main.py": job("raise ValueError(1)  # version {v}")}
    bundle = await registry.register(write(tmp_path, files, v=1) / "etl")
    version, old = bundle.current, registry.find("etl.main.Job").cls
    registry.pin(1, [version])
    write(tmp_path, {"etl/main.py": "# other lines\n" * 9 + files["etl/main.py"]}, v=2)
    await registry.reload("etl")
    with pytest.raises(ValueError, match="1") as caught:
        old().run(None)
    text = version.logical("".join(traceback.format_exception(caught.value)))
    assert "raise ValueError(1)  # version 1" in text
    assert f'File "{tmp_path}/etl/main.py"' in text
    assert "# version 1" in inspect.getsource(old)
    assert "# version 2" in inspect.getsource(registry.find("etl.main.Job").cls)
    caught = None
    old = None


async def test_import_errors_speak_of_logical_names(registry, tmp_path):
    files = {
        **PACKAGE,
        "etl/main.py": job(
            "try:\n    from etl.util import NOTHING\nexcept ImportError as e:\n    return e.name, str(e)"
        ),
    }
    name, text = await result_of(registry, tmp_path, files, v=1)
    assert name == "etl.util"
    assert "from 'etl.util'" in text
    assert "scattersphere" not in text
    files["etl/main.py"] = job(
        "try:\n    import etl.gone\nexcept ImportError as e:\n    return e.name, str(e)"
    )
    assert await result_of(registry, tmp_path, files, v=1) == (
        "etl.gone",
        "No module named 'etl.gone' (the bundle 'etl1' lacks it)",
    )


async def test_this_library_comes_from_the_host_even_if_the_bundle_has_its_own(registry, tmp_path):
    root = write(
        tmp_path / "b",
        {"scattersphere/__init__.py": "1/0", "scattersphere/task.py": "1/0", "job.py": task_module(1)},
    )
    bundle = await registry.register(root, name="b")
    assert issubclass(registry.find("job.Job").cls, RunnableTask)
    assert any("scattersphere has the name" in warning for warning in bundle.warnings)


async def test_a_module_with_the_name_of_a_standard_one_is_loaded_but_does_not_shadow_it(registry, tmp_path):
    (tmp_path / "email.py").write_text(job("import email\nreturn email.__file__", ""))
    await registry.register(tmp_path / "email.py")
    import email

    assert registry.find("email.Job").cls().run(None) == email.__file__


async def test_the_child_comes_first_for_its_own_names_and_the_parent_for_shared_ones(tmp_path):
    root = write(
        tmp_path,
        {
            "b/attrs/__init__.py": "MINE = True\n",
            "b/job.py": job("import attrs\nreturn hasattr(attrs, 'MINE')"),
        },
    )
    for shared, own in (((), True), (("attrs",), False)):
        registry = TaskRegistry(shared=shared, collect_garbage=False)
        await registry.register(root / "b")
        assert registry.find("job.Job").cls().run(None) is own
        await registry.aclose()


async def test_a_c_extension_comes_from_the_host_and_that_is_said(registry, tmp_path):
    root = write(
        tmp_path,
        {
            "b/attr/_c.so": "",
            "b/attr/__init__.py": "1/0",
            "b/job.py": job("import attr\nreturn attr.__file__"),
        },
    )
    bundle = await registry.register(root / "b")
    import attr

    assert registry.find("job.Job").cls().run(None) == attr.__file__
    assert bundle.warnings == ("attr contains the C extension attr/_c.so: the host's attr is used instead",)


async def test_a_c_extension_that_the_host_lacks_is_refused(registry, tmp_path):
    root = write(tmp_path, {"b/speedy/_c.so": "", "b/job.py": task_module(1)})
    with pytest.raises(BundleRefusedError, match=r"speedy/_c\.so is a C extension.*install 'speedy'"):
        await registry.register(root / "b")


async def test_a_module_without_tasks_that_lacks_something_is_a_warning(registry, tmp_path):
    root = write(
        tmp_path,
        {"etl/__init__.py": "", "etl/opt.py": "import nothing_like_this", "etl/main.py": task_module(1)},
    )
    bundle = await registry.register(root / "etl")
    assert list(bundle.tasks) == ["etl.main.Job"]
    assert "module etl.opt was left out" in bundle.warnings[0]
    assert "No module named 'nothing_like_this'" in bundle.warnings[0]


async def test_a_module_with_a_task_that_lacks_something_is_an_error(registry, tmp_path):
    broken = "import nothing_like_this\nfrom etl.main import Job as Base\nclass Mine(Base): ..."
    root = write(tmp_path, {"etl/__init__.py": "", "etl/opt.py": broken, "etl/main.py": task_module(1)})
    with pytest.raises(BundleLoadError, match=r"etl/opt\.py:1: ModuleNotFoundError.*\(the host lacks it\)"):
        await registry.register(root / "etl")


async def test_an_import_of_a_module_that_the_bundle_lacks_says_so(registry, tmp_path):
    root = write(tmp_path, {"etl/__init__.py": "", "etl/main.py": "import etl.gone\n" + task_module(1)})
    with pytest.raises(BundleLoadError, match=r"No module named 'etl\.gone'.*the bundle 'etl' lacks it"):
        await registry.register(root / "etl")


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("import nothing_here", "No module named 'nothing_here' (the host lacks it)"),
        ("from nothing_here.sub import x", "No module named 'nothing_here' (the host lacks it)"),
        ("import json.nothing", "No module named 'json.nothing' (the host lacks it)"),
        (
            "import importlib\n    importlib.import_module('nothing_here')",
            "No module named 'nothing_here' (the host lacks it)",
        ),
        ("from .nothing import x", "No module named 'etl.nothing' (the bundle 'etl0' lacks it)"),
        ("import etl.nothing.more", "No module named 'etl.nothing' (the bundle 'etl0' lacks it)"),
        ("from etl import needs", "No module named 'nothing_here' (the host lacks it)"),
    ],
)
async def test_an_import_error_at_run_time_says_whether_the_host_or_the_bundle_lacks_the_module(
    registry, tmp_path, way, said
):
    files = {
        **PACKAGE,
        "etl/needs.py": "import nothing_here\n",
        "etl/main.py": job(f"try:\n    {way}\nexcept ModuleNotFoundError as error:\n    return str(error)"),
    }
    assert await result_of(registry, tmp_path, files, v=1) == said


async def test_a_straggler_that_imports_after_release_gets_a_clear_error(registry, tmp_path):
    for way in (
        "from etl.util import VALUE",
        "from . import util",
        "import importlib\nimportlib.import_module('etl.util')",
    ):
        await registry.register(write(tmp_path, {**PACKAGE, "etl/main.py": job(way)}, v=1) / "etl")
        straggler = registry.find("etl.main.Job").cls
        await registry.deregister("etl")
        with pytest.raises(ImportError, match="code that still runs"):
            straggler().run(None)


async def test_nothing_is_written_beside_the_origin(registry, tmp_path):
    root = write(tmp_path, {**PACKAGE, "etl/main.py": task_module(1)}, v=1)
    before = sorted(root.rglob("*"))
    await registry.register(root / "etl")
    assert sorted(root.rglob("*")) == before
    snapshot = registry.bundles["etl"].current.snapshot
    assert not list(snapshot.rglob("*.pyc"))


async def test_slugs_that_are_prefixes_of_others_are_told_apart(registry, tmp_path):
    """Releasing `a_g1` must leave `a_g10` alone, in `sys.modules`, logging and messages."""
    file = tmp_path / "a.py"
    versions = []
    for value in range(12):
        file.write_text(task_module(value, before="import logging\nlogging.getLogger(__name__)"))
        bundle = await (registry.reload("a") if value else registry.register(file))
        registry.pin(value, [bundle.current])
        versions.append(bundle.current)
    modules = {name for name in sys.modules if name.startswith("scattersphere.bundles.a_g")}
    for run, version in enumerate(versions[:-1]):
        registry.unpin(run)
        modules -= {version.namespace.name, f"{version.namespace.name}.a"}
        assert {name for name in sys.modules if name.startswith("scattersphere.bundles.a_g")} == modules
    del version, versions, bundle
    gc.collect()
    assert registry.find("a.Job").cls().run(None) == 11

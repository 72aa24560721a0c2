"""A version that nobody needs is gone: classes, modules, and every note of it in the interpreter."""

from __future__ import annotations

import abc
import gc
import inspect
import linecache
import logging
import subprocess
import sys
import typing
import weakref
from pathlib import Path

import anyio
import pytest
from bundlefiles import write

from scattersphere.registry.registry import TaskRegistry

MODULES = 20
RELOADS = 1_000
HEAVY = 3
"""How many of the modules make classes by attrs and dataclasses, which costs milliseconds each."""

MODULE = """
import abc, enum, functools, logging, typing
from dataclasses import dataclass
import attrs
from etl import base
log = logging.getLogger(__name__)

@dataclass(slots=True)
class Row:
    number: int
    next: typing.Optional["Row"] = None

@attrs.define
class Box:
    rows: list[Row] = attrs.field(factory=list)

class Colour(enum.Enum):
    RED = {v}

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Square(Shape):
    def area(self): return {v}

@typing.overload
def scale(x: int) -> int: ...
@typing.overload
def scale(x: str) -> str: ...
def scale(x): return x

@functools.singledispatch
def show(x): return "any"

@show.register
def _(x: Row): return "row"

@functools.lru_cache
def cached(x): return Row(x)
"""

LIGHT = """
from etl import base
class Plain:
    def value(self): return base.VALUE
"""

FILES = {
    "etl/__init__.py": "",
    "etl/base.py": "VALUE = {v}\n",
    "etl/main.py": """
        import collections.abc, inspect, pkgutil, typing
        from scattersphere.runnable import RunnableTask
        import etl
        from etl import m0
        class Job(RunnableTask):
            names: list[str]
            def run(self, context):
                assert isinstance(m0.Square(), m0.Shape) and isinstance(m0.Row(1), collections.abc.Hashable) is False
                assert typing.get_type_hints(m0.Row)["next"] == typing.Optional[m0.Row]
                assert m0.show(m0.cached(1)) == "row"
                assert "def run" in inspect.getsource(Job.run)
                assert inspect.getmodule(Job.run.__code__).__name__ == __name__
                assert len(list(pkgutil.iter_modules(etl.__path__))) == 19
                m0.log.debug("x")
                return m0.base.VALUE
        """,
    **{f"etl/m{i}.py": MODULE if i < HEAVY else LIGHT for i in range(MODULES - 3)},
}


def resident():
    """Return the resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def footprint():
    """Count what the interpreter holds, by the tables that are known to hold code."""
    loggers = logging.Logger.manager.loggerDict
    return {
        "objects": len(gc.get_objects()),
        "modules": len(sys.modules),
        "path": list(sys.path),
        "finders": list(sys.meta_path),
        "importers": len(sys.path_importer_cache),
        "lines": len(linecache.cache),
        "loggers": len(loggers),
        "overloads": len(typing._overload_registry),
        "by file": len(inspect.modulesbyfile),
        "by name": len(inspect._filesbymodname),
        "subclasses": len(abc.ABC.__subclasses__()),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for the memory")
def test_a_thousand_reloads_of_twenty_modules_leave_nothing(tmp_path):
    # In a process of its own: resident memory after thousands of other tests measures those.
    program = "import sys, anyio, test_release; anyio.run(test_release.reload_a_thousand_times, sys.argv[1])"
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


async def settled(registry):
    """Wait until the loader has deleted what was posted to it: on a busy machine that piles up."""
    while registry._versions._loader._later:  # noqa: ASYNC110 - the loader's thread has nobody to tell
        await anyio.sleep(0.01)


async def reload_a_thousand_times(folder):
    tmp_path = Path(folder)
    registry = TaskRegistry(collect_garbage=False)
    write(tmp_path, FILES, v=0)
    bundle = await registry.register(tmp_path / "etl")
    refs, after_warm_up = [], None
    for number in range(1, RELOADS + 1):
        # One module and the value change; the other 18 come from the code cache.
        write(tmp_path, {"etl/base.py": FILES["etl/base.py"], "etl/m1.py": MODULE}, v=number)
        task = registry.find("etl.main.Job").cls
        assert task(names=[]).run(None) == number - 1
        prefix = bundle.current.namespace.prefix
        refs += [weakref.ref(task), *(weakref.ref(sys.modules[f"{prefix}etl.m{i}"]) for i in range(17))]
        refs += [
            weakref.ref(sys.modules[f"{prefix}etl.m0"].Row),
            weakref.ref(sys.modules[f"{prefix}etl.m0"].log),
        ]
        del task
        await registry.reload("etl")
        if number % 50 == 0:  # often, so that the peak between two collections is always the same
            gc.collect()
            assert [ref() for ref in refs if ref() is not None] == []
            refs.clear()
            if number == 200:
                await settled(registry)
                after_warm_up = footprint(), resident()
    await settled(registry)
    gc.collect()
    before, memory = after_warm_up
    after = footprint()
    # A single object left by each reload would make 800. (What other tests left may vanish meanwhile.)
    assert after.pop("objects") - before.pop("objects") < 200
    assert after == before
    assert resident() - memory < 5_000_000
    assert registry.leaks("etl") == []
    # __init__, base, main, the light text, and the heavy one with the first and the last value
    assert len(registry._versions.settings.code) == 6
    await registry.aclose()


@pytest.mark.anyio
async def test_twenty_failing_loads_leave_nothing(tmp_path):
    registry = TaskRegistry(collect_garbage=False)
    files = {**FILES, "etl/zz.py": "from etl import m0\nm0.log.debug('x')\n1 / 0\n"}
    write(tmp_path, files, v=0)
    before = None
    for _ in range(20):
        with pytest.raises(Exception, match="ZeroDivisionError"):
            await registry.register(tmp_path / "etl")
        gc.collect()
        found = footprint()
        found.pop("objects")
        before = before or found
        assert found == before
    assert not list(registry._versions.settings.store.folder.glob("etl_*"))
    await registry.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "said"), [("import etl\n1 / 0\n", "ZeroDivisionError"), ("", "defines no task")]
)
async def test_an_error_of_a_failed_load_does_not_hold_its_modules(tmp_path, code, said):
    registry = TaskRegistry(collect_garbage=False)
    write(tmp_path, {"etl/__init__.py": "class OfAFailedLoad: ...\n", "etl/a.py": code})
    caught = []
    try:
        await registry.register(tmp_path / "etl")
    except Exception as error:  # noqa: BLE001 - kept on purpose, as a host would
        caught.append(error)
    gc.collect()
    assert not [cls for cls in object.__subclasses__() if cls.__name__ == "OfAFailedLoad"]
    assert said in str(caught[0])
    await registry.aclose()


@pytest.mark.anyio
async def test_an_import_that_failed_while_a_task_ran_holds_no_version(tmp_path):
    body = "try:\n            import etl.test_bad\n        except ZeroDivisionError:\n            return 'caught'"
    files = {
        "etl/__init__.py": "",
        "etl/test_bad.py": "def function(): ...\n1 / 0\n",  # not searched for tasks, so not imported before
        "etl/main.py": (
            "from scattersphere.runnable import RunnableTask\nclass Job(RunnableTask):\n"
            f"    def run(self, context):\n        {body}\n"
        ),
    }
    registry = TaskRegistry(collect_garbage=False)
    await registry.register(write(tmp_path, files) / "etl")
    task = registry.find("etl.main.Job").cls
    assert task().run(None) == "caught"
    reference = weakref.ref(task)
    del task
    await registry.deregister("etl")
    gc.collect()
    assert reference() is None
    assert registry.leaks("etl") == []
    await registry.aclose()

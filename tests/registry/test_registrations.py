"""Libraries that enter themselves into tables of the process are released with their version, each by its own way."""

from __future__ import annotations

import copyreg
import gc
import sys
import typing
import warnings
import weakref

import pytest
from bundlefiles import task_module

pytestmark = pytest.mark.anyio

LIBRARIES = {
    "a finder, as six and bottle": """
import sys
class Finder:
    def find_spec(self, name, path, target=None): return None
sys.meta_path.append(Finder())
""",
    "a path hook": """
import sys
def hook(path): raise ImportError
sys.path_hooks.append(hook)
""",
    "functions that typing caches, as typing_extensions": """
import typing
@typing._tp_cache
def special(parameters): return parameters
special(int)
""",
    "a pickle reducer and a filter, as sympy": """
import copyreg, warnings
class Thing: ...
class Odd(DeprecationWarning): ...
copyreg.pickle(Thing, lambda thing: (Thing, ()))
warnings.simplefilter("once", Odd)
""",
    "pointers of ctypes": """
import ctypes
class Point(ctypes.Structure): _fields_ = [("x", ctypes.c_int)]
ctypes.POINTER(Point)
""",
    "function types of ctypes": """
import ctypes
class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int)]
    def shown(self): return Job
ctypes.CFUNCTYPE(None, Point), ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Point))
""",
    "strings of its own class that are patterns, formats, URLs": """
import datetime, enum, fnmatch, glob, re, urllib.parse
import xml.etree.ElementTree as ElementTree
class Text(enum.StrEnum):
    PATTERN = "a*"
    FORMAT = "%Y"
    URL = "http://localhost/a"
    PATH = "a/b"
    def shown(self): return Job
re.match(Text.PATTERN, "a"), re.sub("(a)", Text.PATTERN, "a"), fnmatch.fnmatch("a", Text.PATTERN)
glob.glob(Text.PATTERN), datetime.datetime.strptime("2020", Text.FORMAT)
urllib.parse.urlsplit(Text.URL), urllib.parse.quote("a", safe=Text.PATH)
ElementTree.fromstring("<a/>").findall(Text.PATH)
""",
    "an override under the name of a module of the host": """
import sys, types
module = types.ModuleType("colorsys")
def function(): ...
module.function = function
sys.modules["colorsys"] = module
""",
}


def tables():
    return [
        list(sys.meta_path),
        list(sys.path_hooks),
        list(typing._cleanups),
        list(warnings.filters),
        dict(copyreg.dispatch_table),
    ]


@pytest.mark.parametrize("library", LIBRARIES)
async def test_no_version_is_left_alive_and_the_tables_are_as_they_were(registry, tmp_path, library):
    import colorsys  # noqa: F401
    import ctypes  # noqa: F401

    file, refs = tmp_path / "a.py", []
    await registry.register(_other(tmp_path))
    before = tables()
    for number in range(5):
        file.write_text(task_module(number, before=LIBRARIES[library]))
        bundle = await (registry.register(file) if not number else registry.reload("a"))
        refs.append(weakref.ref(bundle.current.tasks["a.Job"].cls))
    assert tables() != before or library in {
        "pointers of ctypes",
        "function types of ctypes",
        "strings of its own class that are patterns, formats, URLs",
        "an override under the name of a module of the host",
    }
    await registry.deregister("a")
    gc.collect()
    assert registry.leaks("a") == []
    assert [ref() for ref in refs] == [None] * 5
    assert tables() == before


def _other(tmp_path):
    """Return a bundle that stays, so that what is undone with the last version is not undone here."""
    (tmp_path / "other.py").write_text(task_module(0))
    return tmp_path / "other.py"


async def test_what_the_host_entered_meanwhile_stays(registry, tmp_path):
    (tmp_path / "a.py").write_text(task_module(1, before=LIBRARIES["a finder, as six and bottle"]))

    class Mine:
        def find_spec(self, name, path, target=None):
            return None

    mine = Mine()
    await registry.register(tmp_path / "a.py")
    sys.meta_path.append(mine)
    try:
        await registry.deregister("a")
        assert mine in sys.meta_path
        assert not [finder for finder in sys.meta_path if type(finder).__name__ == "Finder"]
    finally:
        sys.meta_path.remove(mine)

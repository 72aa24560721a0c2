"""What keeps a released version alive is noticed, and named."""

from __future__ import annotations

import asyncio
import gc
import sys
import types

import pytest
from bundlefiles import write

from scattersphere.registry.modules import leaks as leaks_module

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.blocks_loop("to find a holder, the heap of the whole suite is searched"),
]

HOST = "scattersphere_test_host"
"""A module of the host into which the leaking code puts things."""

HEAD = f"""
import {HOST} as host
from scattersphere.runnable import RunnableTask
class Thing:
    def method(self): ...
def function(*args): ...
"""


@pytest.fixture
def host(monkeypatch):
    module = types.ModuleType(HOST)
    module.undo = []
    module.table = {}
    monkeypatch.setitem(sys.modules, HOST, module)
    yield module
    while module.undo:
        module.undo.pop()()


async def leaks_of(registry, tmp_path, code):
    body = "\n        ".join(code.strip().splitlines())
    main = f"{HEAD}\nclass Job(RunnableTask):\n    def run(self, context):\n        {body}\n"
    await registry.register(write(tmp_path, {"etl/__init__.py": "", "etl/main.py": main}) / "etl")
    registry.find("etl.main.Job", "etl").cls().run(None)
    label = registry.bundles["etl"].current.label
    await registry.deregister("etl")
    found = registry.leaks("etl")
    assert all(leak.label == label for leak in found)
    assert "scattersphere.bundles" not in str(found)
    return [(leak.kind, leak.holder) for leak in found]


CASES = {
    "thread": (
        (
            "import threading\nevent, ready = threading.Event(), threading.Event()\n"
            "def work():\n    ready.set()\n    event.wait()\n"
            "t = threading.Thread(target=work, name='worker')\nt.start()\nready.wait()\n"
            "host.undo += [t.join, event.set]"
        ),
        ("thread", "'worker' is executing etl.main.work"),
    ),
    "timer": (
        (
            "import threading\nt = threading.Timer(1000, function)\nt.daemon = True\nt.start()\n"
            "host.undo += [t.join, t.cancel]"
        ),
        ("thread", "etl.main.function"),
    ),
    "generator": (
        "def numbers():\n    yield 1\n    yield 2\ng = numbers()\nnext(g)\nhost.table['g'] = g",
        ("generator", "suspended at etl.main.numbers"),
    ),
    "coroutine": (
        "async def wait(): ...\nc = wait()\nhost.table['c'] = c\nhost.undo.append(c.close)",
        ("coroutine", "suspended at etl.main.wait"),
    ),
    "logging handler": (
        (
            "import logging\nclass Handler(logging.Handler): ...\nh = Handler()\nlog = logging.getLogger('host')\n"
            "log.addHandler(h)\nhost.undo.append(lambda: log.removeHandler(h))"
        ),
        ("logging handler", "Handler on the logger 'host'"),
    ),
    "formatter": (
        (
            "import logging\nclass F(logging.Formatter): ...\nh = logging.NullHandler()\nh.setFormatter(F())\n"
            "logging.root.addHandler(h)\nhost.undo.append(lambda: logging.root.removeHandler(h))"
        ),
        ("logging handler", "F on the logger 'root'"),
    ),
    "logging filter": (
        (
            "import logging\nlog = logging.getLogger('host')\nlog.addFilter(function)\n"
            "host.undo.append(lambda: log.removeFilter(function))"
        ),
        ("logging filter", "etl.main.function on the logger 'host'"),
    ),
    "signal": (
        (
            "import signal\nold = signal.signal(signal.SIGUSR1, function)\n"
            "host.undo.append(lambda: signal.signal(signal.SIGUSR1, old))"
        ),
        ("signal handler", "SIGUSR1: etl.main.function"),
    ),
    "excepthook": (
        (
            "import sys\nold, sys.excepthook = sys.excepthook, function\n"
            "host.undo.append(lambda: setattr(sys, 'excepthook', old))"
        ),
        ("hook", "sys.excepthook = etl.main.function"),
    ),
    "gc callback": (
        "import gc\ngc.callbacks.append(function)\nhost.undo.append(lambda: gc.callbacks.remove(function))",
        ("hook", "etl.main.function in gc.callbacks"),
    ),
    "meta path": (
        (
            "import sys\nt = Thing()\nt.find_spec = lambda *a: None\nsys.meta_path.append(t)\n"
            "host.undo.append(lambda: sys.meta_path.remove(t))"
        ),
        ("hook", "etl.main.Thing in sys.meta_path"),
    ),
    "copyreg": (
        (
            "import copyreg\ncopyreg.pickle(Thing, function)\n"
            "host.undo.append(lambda: copyreg.dispatch_table.pop(Thing))"
        ),
        ("pickle reducer", "etl.main.Thing"),
    ),
    "warnings filter": (
        (
            "import warnings\nclass W(Warning): ...\nold = warnings.filters[:]\n"
            "warnings.simplefilter('ignore', W)\n"
            "host.undo.append(lambda: warnings.filters.__setitem__(slice(None), old))"
        ),
        ("warnings filter", "W"),
    ),
    "finalizer": (
        "import weakref\nf = weakref.finalize(host, function)\nf.atexit = False\nhost.undo.append(f.detach)",
        ("finalizer", "etl.main.function"),
    ),
    "monkeypatch": (
        "import json\njson.extra = function\nhost.undo.append(lambda: delattr(json, 'extra'))",
        ("global", "json.extra = etl.main.function"),
    ),
    "patched method": (
        (
            "import json\njson.JSONEncoder.extra = function\n"
            "host.undo.append(lambda: delattr(json.JSONEncoder, 'extra'))"
        ),
        ("patched method", "json.encoder.JSONEncoder.extra = etl.main.function"),
    ),
    "registry of another library": (
        "host.table['thing'] = {'deep': [Thing]}",
        ("global", f"{HOST}.table -> dict -> dict -> list -> etl.main.Thing"),
    ),
    "an instance as a result": (
        "host.result = Thing()",
        ("global", f"{HOST}.result -> an instance of etl.main.Thing"),
    ),
    "a module": (
        "import sys\nhost.module = sys.modules[__name__]",
        ("global", f"{HOST}.module -> module etl.main"),
    ),
    "atexit": (
        "import atexit\natexit.register(function)\nhost.undo.append(lambda: atexit.unregister(function))",
        ("atexit function", "etl.main.function"),
    ),
    "atexit method": (
        "import atexit\nt = Thing()\natexit.register(t.method)\nhost.undo.append(lambda: atexit.unregister(t.method))",
        ("atexit function", "etl.main.Thing.method"),
    ),
    "codec": (
        "import codecs\ncodecs.register(function)\nhost.undo.append(lambda: codecs.unregister(function))",
        ("codec", "the search function etl.main.function"),
    ),
    "context variable": (
        "import contextvars\nhost.variable = contextvars.ContextVar('x', default=function)",
        ("global", f"{HOST}.variable -> ContextVar -> etl.main.function"),
    ),
    "partial": (
        "from functools import partial\nhost.call = partial(function, 1)",
        ("global", f"{HOST}.call -> partial -> etl.main.function"),
    ),
}


@pytest.fixture
async def ten_others(registry, tmp_path):
    """Ten other versions in memory: older ones of the same bundle, and other bundles that are much alike."""
    bundle = None
    for number in range(5):
        files = {"etl/__init__.py": "", "etl/main.py": OTHER.format(v=number)}
        place = write(tmp_path / "older", files) / "etl"
        bundle = await (
            registry.register(place, name="older") if bundle is None else registry.reload("older")
        )
        registry.pin(number + 1, [bundle.current])
        await registry.register(write(tmp_path / f"other{number}", files) / "etl", name=f"other{number}")


OTHER = f"{HEAD}\nVERSION = {{v}}\nclass Job(RunnableTask):\n    def run(self, context): return Thing(), function\n"


@pytest.mark.usefixtures("thaws")
@pytest.mark.parametrize("case", CASES)
async def test_the_holder_of_a_released_version_is_named(registry, tmp_path, host, case, ten_others):
    code, (kind, where) = CASES[case]
    found = await leaks_of(registry, tmp_path, code)
    assert all(kind == k and where in w for k, w in found), found
    assert 1 <= len(found) <= 2
    # When the holder lets go, the leak is gone.
    while host.undo:
        host.undo.pop()()
    host.__dict__.update(table=None, result=None, module=None, call=None, variable=None)
    assert registry.leaks("etl") == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_asyncio_is_named_by_the_line_it_waits_at(registry, tmp_path, host):
    code = "import asyncio\nasync def wait():\n    await asyncio.sleep(1000)\nhost.task = asyncio.ensure_future(wait())"
    body = "\n        ".join(code.splitlines())
    main = f"{HEAD}\nclass Job(RunnableTask):\n    async def run(self, context):\n        {body}\n"
    await registry.register(write(tmp_path, {"etl/__init__.py": "", "etl/main.py": main}) / "etl")
    await registry.find("etl.main.Job").cls().run(None)
    await asyncio.sleep(0)
    await registry.deregister("etl")
    found = registry.leaks("etl")
    assert any(leak.kind == "coroutine" and "etl.main.wait, line" in leak.holder for leak in found), found
    task = host.__dict__.pop("task")
    task.cancel()
    await asyncio.wait([task])
    del task
    assert registry.leaks("etl") == []


async def test_a_local_variable_of_the_host_is_named(registry, tmp_path, host):
    (tmp_path / "a.py").write_text(HEAD + "class Job(RunnableTask):\n    def run(self, context): ...\n")
    await registry.register(tmp_path / "a.py")
    held = registry.find("a.Job").cls
    await registry.deregister("a")
    found = registry.leaks("a")
    assert any(leak.kind == "frame" and "test_a_local_variable" in leak.holder for leak in found), found
    assert held is not None


@pytest.mark.usefixtures("thaws")
async def test_the_holder_is_named_where_the_host_has_frozen_its_heap(registry, tmp_path, host):
    """As is advised before a fork: gc shows nothing of what is frozen."""
    source = f"{HEAD}\nhost.result = Thing()\nclass Job(RunnableTask):\n    def run(self, context): ...\n"
    (tmp_path / "a.py").write_text(source)
    await registry.register(tmp_path / "a.py")
    gc.freeze()
    await registry.deregister("a")
    (leak,) = registry.leaks("a")
    assert (leak.kind, leak.holder) == ("global", f"{HOST}.result -> an instance of a.Thing")


async def test_a_version_that_nothing_holds_is_no_leak(registry, tmp_path, host):
    assert await leaks_of(registry, tmp_path, "return None") == []


async def test_the_bundle_shows_the_leaks_of_its_older_versions(registry, tmp_path, host):
    files = {
        "etl/__init__.py": "",
        "etl/main.py": HEAD
        + "host.thing = Thing\nclass Job(RunnableTask):\n    def run(self, context): return {v}\n",
    }
    bundle = await registry.register(write(tmp_path, files, v=1) / "etl")
    first, held = bundle.current.label, host.thing
    write(tmp_path, files, v=2)
    await registry.reload("etl")
    assert held is not host.thing
    assert {leak.label for leak in bundle.leaks} == {first}
    host.__dict__.pop("thing")
    held = None
    assert bundle.leaks == []


async def test_what_the_collector_cannot_see_into_is_named(registry, tmp_path, host):
    """A circle through an object of C code that tells the collector nothing is never freed: rpds, `datetime`."""
    code = f"""
from datetime import datetime, timedelta, tzinfo
{HEAD}
class Zone(tzinfo):
    def utcoffset(self, when): return timedelta(0)

EPOCH = datetime(2000, 1, 1, tzinfo=Zone())
PLAIN = datetime(2000, 1, 1)

class Job(RunnableTask):
    def run(self, context): return EPOCH.isoformat()
"""
    (tmp_path / "etl.py").write_text(code)
    await registry.register(tmp_path / "etl.py")
    await registry.deregister("etl")
    [leak] = registry.leaks("etl")
    assert leak.kind == "holder in C code"
    assert leak.holder == "datetime.datetime in etl; the garbage collector cannot see into it"
    assert "shared=" in str(leak)


async def test_of_many_versions_the_last_few_are_searched_for_and_older_ones_said_to_be_held_likewise(
    registry, tmp_path, host, monkeypatch
):
    searched = []
    diagnose = leaks_module._diagnose

    def counting(released):
        searched.append(released.label)
        return diagnose(released)

    monkeypatch.setattr(leaks_module, "_diagnose", counting)
    file, labels = tmp_path / "etl.py", []
    for number in range(12):
        file.write_text(
            f"NUMBER = {number}\n{HEAD}\nclass Job(RunnableTask):\n    def run(self, context): ...\n"
        )
        bundle = await (registry.reload("etl") if number else registry.register(file))
        labels.append(bundle.current.label)
        host.table[number] = bundle.current.tasks["etl.Job"].cls
    await registry.deregister("etl")
    found = registry.leaks("etl")
    assert searched == labels[-leaks_module.SEARCHED :]
    assert list(dict.fromkeys(leak.label for leak in found)) == labels
    assert {leak.kind for leak in found} == {"global"}
    host.table.clear()
    assert registry.leaks("etl") == []

"""What the standard library looks up by module name is found in the code of a bundle."""

from __future__ import annotations

import zipfile

import pytest
from bundlefiles import PACKAGE, job, write

pytestmark = pytest.mark.anyio

LIBRARY = {
    "dataclass": (
        (
            "from dataclasses import dataclass, field, fields\n@dataclass(slots=True)\nclass D:\n"
            "    x: int\n    y: 'list[D]' = field(default_factory=list)\n"
        ),
        "return D(1) == D(1) and [f.name for f in fields(D)] == ['x', 'y']",
    ),
    "attrs": (
        "import attrs\n@attrs.define\nclass A:\n    x: 'int' = 1\n",
        "return attrs.asdict(A()) == {'x': 1}",
    ),
    "get_type_hints": (
        "import typing\nclass Item:\n    def f(self): ...\ndef f(x: typing.Optional['Item']) -> 'list[Item]': ...\n",
        "return typing.get_type_hints(f) == {'x': typing.Optional[Item], 'return': list[Item]}",
    ),
    "pickle": (
        "import pickle\nclass P:\n    def __init__(self, x): self.x = x\n",
        "p = pickle.loads(pickle.dumps(P(4)))\nreturn type(p) is P and p.x == 4",
    ),
    "enum": (
        "import enum, pickle\nclass E(enum.Enum):\n    A = 1\n",
        "return pickle.loads(pickle.dumps(E.A)) is E.A and E(1) is E.A",
    ),
    "abc": (
        (
            "import abc\nclass B(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n"
            "class C(B):\n    def f(self): return type(self)\n"
        ),
        "return isinstance(C(), B) and C().f() is C",
    ),
    "singledispatch": (
        (
            "from functools import singledispatch\n@singledispatch\ndef f(x): return 'any'\n"
            "class K: ...\n@f.register\ndef _(x: K): return 'k'\n"
        ),
        "return (f(1), f(K())) == ('any', 'k')",
    ),
    "__init_subclass__": (
        "seen = []\nclass R:\n    def __init_subclass__(cls, **kw): seen.append(cls.__name__)\nclass S(R): ...\n",
        "return seen == ['S']",
    ),
    "NamedTuple and TypedDict": (
        (
            "from typing import NamedTuple, TypedDict, get_type_hints\nclass N(NamedTuple):\n    x: 'int'\n"
            "class T(TypedDict):\n    y: 'N'\n"
        ),
        "return N(1).x == 1 and get_type_hints(T)['y'] is N",
    ),
    "overload": (
        (
            "import typing\n@typing.overload\ndef o(x: int) -> int: ...\n@typing.overload\n"
            "def o(x: str) -> str: ...\ndef o(x): return x\n"
        ),
        "return len(typing.get_overloads(o)) == 2",
    ),
    "getsource": ("import inspect\n", "return 'inspect.getsource(Job)' in inspect.getsource(Job)"),
    "logging": (
        "import logging\nlog = logging.getLogger(__name__)\n",
        "log.debug('x')\nreturn logging.getLogger(__name__) is log",
    ),
    "contextvars and threads": (
        "import threading\n",
        (
            "out = []\ndef late():\n    from etl.util import VALUE\n    out.append(VALUE)\n"
            "t = threading.Thread(target=late)\nt.start()\nt.join()\nreturn out == [1]"
        ),
    ),
}


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("part", LIBRARY)
async def test_the_standard_library_finds_what_it_looks_up(registry, tmp_path, part, archive):
    before, body = LIBRARY[part]
    root = write(tmp_path, {**PACKAGE, "etl/main.py": job(body, before)}, v=1)
    path = root / "etl"
    if archive:
        path = tmp_path / "etl.zip"
        with zipfile.ZipFile(path, "w") as packed:
            for file in (root / "etl").rglob("*"):
                packed.write(file, file.relative_to(root))
    bundle = await registry.register(path)
    assert registry.find("etl.main.Job").cls().run(None) is True
    await registry.deregister(bundle.name)
    assert registry.leaks(bundle.name) == []

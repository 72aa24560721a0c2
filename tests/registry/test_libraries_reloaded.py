"""Well-known libraries that enter themselves into tables of the process: a hundred reloads leave no version alive.

Or one line says what holds it. Each in a process of its own, whose tables and heap are nobody else's. With `LONG_RELOADS` in the
environment all are loaded a hundred times; else ten reloads stand for those of sympy, which take a minute and a half of
processor, and some more for those whose every version stays, or which only had to be loaded at all.
"""

from __future__ import annotations

import faulthandler
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from patience import PATIENCE
from wheelfiles import installed

RELOADS = 100
LONG = bool(os.environ.get("LONG_RELOADS"))

ATEXIT = "is held by an atexit function: {} (atexit.unregister it in on_release)"


class Case(NamedTuple):
    """A library in a bundle, and what a task does with it."""

    vendored: tuple[str, ...]
    imports: str
    body: str
    gives: object
    leak: str = ""
    """What holds its versions, where that is not ours to undo."""
    reloads: int = RELOADS


CASES = {
    "six": Case(
        ("six",), "import six\nfrom six.moves import urllib", "six.moves.urllib.parse.quote('a b')", "a%20b"
    ),
    "requests": Case(
        ("requests", "urllib3", "idna", "certifi"),
        "import requests, requests.packages.urllib3",
        "[requests.Request('GET', 'http://a/', params={'q': 'x'}).prepare().url, requests.packages.urllib3.__name__[-8:]]",
        ["http://a/?q=x", ".urllib3"],
        ATEXIT.format("certifi.core.exit_cacert_ctx"),
    ),
    "dateutil": Case(
        ("python-dateutil", "six"),
        "import dateutil, dateutil.parser, dateutil.rrule, dateutil.tz",
        "dateutil.parser.parse('2020-01-01T00:00Z').isoformat()",
        "2020-01-01T00:00:00+00:00",
    ),
    "bottle": Case(("bottle",), "import bottle", "bottle.template('{{x}}', x='<')", "&lt;"),
    "typing_extensions": Case(
        ("typing_extensions",),
        "import typing_extensions as te\nclass P(te.Protocol):\n    x: int\n"
        "class D(te.TypedDict):\n    p: te.NotRequired[P]\nT = te.TypeVar('T', default=int)",
        "sorted(te.get_type_hints(D))",
        ["p"],
    ),
    "typer": Case(
        ("typer", "click", "rich", "shellingham", "markdown-it-py", "mdurl", "pygments", "typing_extensions"),
        "import typer\nfrom typer.testing import CliRunner\napp = typer.Typer()\n"
        "@app.command()\ndef main(x: int = 1): print(x + 1)",
        "CliRunner().invoke(app, ['--x', '4']).output",
        "5\n",
    ),
    "loguru": Case(
        ("loguru",),
        "from loguru import logger\nlogger.remove()\nlines = []\nlogger.add(lines.append, format='{message}')",
        "logger.info('x') or str(lines.pop())",
        "x\n",
        ATEXIT.format("loguru._logger.Logger.remove"),
    ),
    "sympy": Case(  # 1,400 modules
        ("sympy", "mpmath"),
        "import sympy",
        "str(sympy.solve('x**2 - 1'))",
        "[-1, 1]",
        reloads=10,
    ),
    "jsonschema": Case(
        ("jsonschema", "jsonschema-specifications", "referencing", "attrs", "typing_extensions"),
        "import jsonschema",
        "jsonschema.validate({'a': 1}, {'type': 'object'})",
        None,
        "rpds.HashTrieMap",
        reloads=25,  # every one stays in memory, and the heap of them all is searched
    ),
    "pydantic generics": Case(  # pydantic is the host's: it has C code
        (),
        "from typing import Generic, TypeVar\nfrom pydantic import BaseModel, TypeAdapter\nT = TypeVar('T')\n"
        "class Item(BaseModel):\n    number: int = 5\nclass Box(BaseModel, Generic[T]):\n    inner: T\n"
        "ADAPTER = TypeAdapter(list[Box[Item]])",
        "ADAPTER.validate_python([{'inner': {}}])[0].inner.number",
        5,
    ),
    # Names in strings: these did not load at all.
    "toolz": Case(
        ("toolz",),
        "import toolz, toolz.curried, tlz",
        "[list(tlz.map(str, [1])), tlz.__name__[-4:]]",
        [["1"], ".tlz"],
        reloads=5,
    ),
    "setuptools": Case(
        ("setuptools",),
        "import setuptools, setuptools.dist",
        "setuptools.dist.Distribution({'name': 'a'}).get_name()",
        "a",
        reloads=5,
    ),
    "markdown": Case(
        ("markdown",),
        "import markdown",
        "markdown.markdown('| a |\\n|---|\\n| b |', extensions=['tables', 'toc'])[:7]",
        "<table>",
        reloads=5,
    ),
}

PROGRAM = """
import gc, json, logging, sys, time, warnings
from pathlib import Path
import anyio
from scattersphere import Server

TASK = r'''
{imports}
from scattersphere import RunnableTask
class Main(RunnableTask):
    def run(self, context): return VERSION, {body}
'''

async def main(folder, reloads, patience, expected):
    given = []
    async with Server(watch=False) as server:
        for number in range(reloads + 1):
            (folder / "t.py").write_text(TASK.replace("VERSION", str(number)))
            bundle = await (server.reload("lib") if number else server.register(folder, name="lib"))
            run = await (await server.start_task("t.Main")).wait()
            assert run.state == "succeeded", run.failure
            given.append(run.results["t.Main"])
            del run
        end = time.monotonic() + patience
        while True:  # the thread that ran the last body may not have let go of it yet
            leaks = bundle.leaks
            if bool(leaks) == expected or time.monotonic() > end:
                break
            await anyio.sleep(0.05)
        lines = sorted({{str(leak).partition(" ")[2] for leak in leaks}})
        print(json.dumps([given, lines, bundle.current.label in {{leak.label for leak in leaks}}]))

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "leak")
"""


@pytest.mark.parametrize("name", CASES)
def test_many_reloads_leave_no_version_alive_or_one_line_says_what_holds_it(tmp_path, name):
    case = CASES[name]
    if LONG:
        case = case._replace(reloads=RELOADS)
        faulthandler.cancel_dump_traceback_later()  # it does not stand still
    folder = tmp_path / "lib"
    for distribution in case.vendored:
        write_installed(folder, distribution)
    folder.mkdir(exist_ok=True)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(imports=case.imports, body=case.body))
    arguments = [str(folder), str(case.reloads), str(PATIENCE), "leak" if case.leak else "none"]
    done = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, check=False, timeout=3_600
    )
    assert done.returncode == 0, done.stderr
    given, lines, current = json.loads(done.stdout.splitlines()[-1])
    assert given == [[number, case.gives] for number in range(case.reloads + 1)]
    assert not current
    if case.leak:
        [line] = lines
        assert case.leak in line
    else:
        assert lines == []


def write_installed(folder: Path, distribution: str) -> None:
    try:
        files = installed(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed; it is in the dependency group `test`")
    for name, content in files.items():
        if Path(name).suffix in {".so", ".pth", ".exe"} and name.count("/") == 0:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

"""Bundles that the tests write."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ETL = {
    "etl/__init__.py": "",
    "etl/util.py": "VERSION = {v}\ndef twice(x): return 2 * x\n",
    "etl/load.py": """
        from scattersphere.runnable import RunnableTask
        from etl import util
        class LoadDay(RunnableTask):
            '''Load one day.

            More text.'''
            day: str
            retries: int = 3
            async def run(self, context):
                from etl.lazy import late
                return late()
        """,
    "etl/lazy.py": "from . import util\ndef late(): return util.VERSION\n",
}


def write(root: Path, files: dict[str, str], **values: object) -> Path:
    """Write files below `root`; `{v}` in them is replaced by the value of v."""
    for name, text in files.items():
        content = textwrap.dedent(text)
        for key, value in values.items():
            content = content.replace("{" + key + "}", str(value))
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def task_module(value: object, *, before: str = "") -> str:
    """Return the text of a module with one task, `Job`, whose run returns `value`."""
    return (
        f"{before}\nfrom scattersphere.runnable import RunnableTask\n"
        f"class Job(RunnableTask):\n    def run(self, context): return {value!r}\n"
    )


def job(body: str, before: str = "") -> str:
    """Return a module with one task whose run executes `body`."""
    lines = "\n        ".join(body.strip().splitlines())
    return f"""{before}
from scattersphere.runnable import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        {lines}
"""


PACKAGE = {
    "etl/__init__.py": "",
    "etl/util.py": "VALUE = {v}\n",
    "etl/sub/__init__.py": "",
    "etl/sub/deep.py": "from ..util import VALUE\nimport etl.util\nassert etl.util.VALUE == VALUE\n",
    "etl/ns/inner.py": "from etl import util\nVALUE = util.VALUE\n",
    "etl/star.py": "__all__ = ['SHOWN']\nSHOWN = {v}\nHIDDEN = 0\n",
    "etl/ring_a.py": "from etl import ring_b\nVALUE = {v}\ndef get(): return ring_b.get()\n",
    "etl/ring_b.py": "import etl.ring_a\ndef get(): return etl.ring_a.VALUE\n",
    "etl/data/words.txt": "word{v}",
}
"""A package `etl` with modules for every way of importing; its `main` is to be added."""

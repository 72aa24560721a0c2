"""A small project to rehearse: one bundle, one job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ETL = '''
import datetime as dt
from scattersphere import RunnableTask

class LoadDay(RunnableTask):
    """Load the rows of a day."""
    day: dt.date
    limit: int = 10

    async def run(self, context):
        context.log.info("loading %s", self.day)
        raise RuntimeError("the real database is not for tests")

class Mail(RunnableTask):
    """Mail how many there are."""
    rows: list[int]

    def run(self, context):
        context.log.info("mailing %d rows", len(self.rows))
        return len(self.rows)
'''

NIGHTLY = {
    "name": "nightly",
    "params": {"day": "2026-01-01"},
    "bundles": {"etl": "../bundles/etl.py"},
    "tasks": {
        "load": {
            "task": "etl.LoadDay",
            "args": {"day": {"$param": "day"}},
            "retry": {"max_attempts": 2, "delay": 60, "jitter": False},
            "timeout": 30,
        },
        "mail": {"task": "etl.Mail", "args": {"rows": {"$result": "load"}}, "timeout": 30},
    },
}


def make_project(root: Path) -> Path:
    """Write the project into the folder `root` and return it."""
    (root / "bundles").mkdir()
    (root / "jobs").mkdir()
    (root / "bundles" / "etl.py").write_text(ETL)
    (root / "jobs" / "nightly.json").write_text(json.dumps(NIGHTLY))
    return root

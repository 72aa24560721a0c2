"""Journals under test, closed in the end."""

from __future__ import annotations

import contextlib

import pytest
from journalrows import Loop

from scattersphere.errors import JournalError
from scattersphere.journal import SqliteJournal


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "runs.db"


@pytest.fixture
def opened(path):
    """Open journals at the path; those that are still open are closed."""
    journals = []

    def open_one(loop=None, **options):
        journal = SqliteJournal(path, **options)
        journals.append(journal)
        loop = loop or Loop()
        return loop, journal, journal.open(loop)

    yield open_one
    for journal in journals:
        with contextlib.suppress(JournalError):
            journal.close()

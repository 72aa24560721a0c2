"""SqliteJournal keeps the contract that every journal keeps."""

from __future__ import annotations

import pytest

from scattersphere.journal import SqliteJournal
from scattersphere.testing.journals import CHECKS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS)
async def test_contract(check, path):
    await check(lambda: SqliteJournal(path))

"""Every backend of ours keeps the contract, on both event loops."""

from __future__ import annotations

import functools

import pytest

from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.testing.backends import CHECKS

pytestmark = pytest.mark.anyio

MAKERS = {
    "threads": functools.partial(ThreadBackend, limit=4),
    "threads without limit": functools.partial(ThreadBackend, limit=None),
    "processes": functools.partial(ProcessBackend, limit=2),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("maker", MAKERS)
async def test_contract(maker, check):
    await check(MAKERS[maker])

"""The Dask backend keeps the contract of backends, on both event loops, against a real cluster."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed")

from dask_cluster import cluster

from scattersphere.ext.dask import DaskBackend
from scattersphere.testing.backends import CHECKS

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask")) as made:
        yield made.address


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_contract(address, check):
    await check(lambda: DaskBackend(address))

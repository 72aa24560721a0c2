"""Until the common tests/conftest.py is there: each asynchronous test on both loops."""

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

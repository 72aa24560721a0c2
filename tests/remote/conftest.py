"""Until the common tests/conftest.py is there: each asynchronous test on both loops."""

import pytest
from wire import served


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
async def front(tmp_path):
    async with served(tmp_path) as found:
        yield found

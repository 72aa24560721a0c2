"""A served Server for the tests of the front-end."""

import functools
import inspect

import pytest
from wire import served


@pytest.fixture
async def front(tmp_path):
    async with served(tmp_path) as found:
        yield found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Close the server of a test before its tasks are counted."""
    front, function = pyfuncitem.funcargs.get("front"), pyfuncitem.obj
    if front is not None and inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def closing(*args, **kwargs):
            outcome = await function(*args, **kwargs)
            await front.server.aclose()
            return outcome

        pyfuncitem.obj = closing
    return (yield)

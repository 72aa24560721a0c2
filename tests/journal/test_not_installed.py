"""A program may carry the package without installing it: in a folder on `sys.path`, in a zip, or frozen."""

from importlib.metadata import PackageNotFoundError

import pytest

from scattersphere import RunnableTask, Server, _version

pytestmark = pytest.mark.anyio


class Count(RunnableTask):
    async def run(self, context):
        return 3


@pytest.fixture
def _not_installed(monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_version, "version", unknown)
    _version.own_version.cache_clear()
    yield
    monkeypatch.undo()
    _version.own_version.cache_clear()


@pytest.mark.usefixtures("_not_installed")
async def test_a_server_with_a_journal_starts_where_the_package_is_not_installed(path):
    assert _version.own_version() == "unknown"
    async with Server(journal=path, watch=False) as server:
        server.register_tasks("app", [Count])
        assert (await server.run_task("Count")).result == 3


def test_else_the_version_is_that_of_the_distribution():
    assert _version.own_version()[0].isdigit()

"""What somebody may not see of a journal's history is neither told nor loaded; and what cannot be kept is refused."""

import anyio
import pytest
from patience import PATIENCE

from scattersphere import RunnableTask, Server
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.errors import RequestError
from scattersphere.commands.gateway import make_gateway

pytestmark = pytest.mark.anyio

BUNDLE = """
from pathlib import Path
from scattersphere import RunnableTask

with open({mark!r}, "a") as mark:
    mark.write("imported ")


class Secret(RunnableTask):
    def run(self, context):
        return 1
"""


class Greet(RunnableTask):
    """Say hello."""

    async def run(self, context):
        return "hello"


async def test_code_of_a_run_is_loaded_for_those_only_who_may_see_it(tmp_path):
    bundle, journal, mark = tmp_path / "hidden.py", tmp_path / "journal.db", tmp_path / "mark"
    bundle.write_text(BUNDLE.format(mark=str(mark)))
    async with Server(journal=journal) as server:
        await server.register(bundle)
        run = await (await server.start_task("hidden.Secret")).wait(PATIENCE)
    bundle.write_text(BUNDLE.format(mark=str(mark)) + "# another version\n")
    async with Server(journal=journal) as server:
        await server.register(bundle)
        imported, gateway = mark.read_text(), make_gateway(server, tokens=None)
        stranger = Principal(user="x", role=Role.VIEWER, patterns=("job:other",))
        with pytest.raises(RequestError) as hidden:
            await gateway.run(stranger, run.id, results=True)
        with pytest.raises(RequestError) as absent:
            await gateway.run(stranger, 999, results=True)
        assert str(hidden.value).replace(str(run.id), "") == str(absent.value).replace("999", "")
        assert mark.read_text() == imported
        seen = await gateway.run(Principal(user="y", role=Role.VIEWER), run.id, results=True)
        assert seen.result == 1


@pytest.mark.parametrize("user", [None, 5, ["x"]])
async def test_a_user_that_is_no_text_is_refused_and_the_journal_goes_on(tmp_path, user):
    async with Server(journal=tmp_path / "journal.db") as server:
        server.register_tasks("app", [Greet])
        run = await server.run_task("Greet")
        for start in (
            lambda: server.start_task("Greet", user=user),
            lambda: server.start(run.definition, user=user),
            lambda: server.rerun(run.id, user=user),
        ):
            with pytest.raises(TypeError, match="user is a str"):
                await start()
        with anyio.fail_after(PATIENCE):
            assert (await server.run_task("Greet", user="ann")).result == "hello"

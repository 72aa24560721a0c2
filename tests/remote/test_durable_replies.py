"""With a journal, a reply over the wire says what a crash does not take back."""

import json

import anyio
import pytest
from wire import job, served, until

from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio

SCHEDULED = job("nightly") | {"format": 2, "schedules": {"often": {"every": 3600}}}
ASKED = {
    "pause 1": "run",
    "stop 1 enough": "run",
    "cancel 1": "run",
    "kill 1": "run",
    "pause-schedule nightly often": "schedule",
    "start forever": "run",
}


async def begun(client):
    await client.ok("define " + json.dumps(job("forever", "Forever")))
    await client.ok("define " + json.dumps(SCHEDULED))
    await client.ok("start forever")


@pytest.mark.parametrize("line", ASKED)
async def test_a_reply_comes_when_what_was_asked_for_is_durable(tmp_path, line):
    journal = MemoryJournal()
    async with served(tmp_path, journal=journal) as front, front.client() as client:
        await begun(client)
        journal.auto = False
        async with anyio.create_task_group() as tasks:
            replies = []

            async def ask():
                replies.append(await client.ask(line))

            tasks.start_soon(ask)
            await until(lambda: journal.waiting)
            async with front.client() as other:  # by now the reply would be there
                await other.ok("status 1")
                assert (await other.ok("runs"))["runs"]
            assert not replies
            journal.auto = True
            journal.commit_all()
        assert "result" in replies[0]


async def test_who_only_looks_does_not_wait(tmp_path):
    journal = MemoryJournal()
    async with served(tmp_path, journal=journal) as front, front.client() as client:
        await begun(client)
        journal.auto = False
        front.server.runs[1].pause()
        await client.ok("status 1")
        await client.ok("schedules")
        assert journal.waiting
        journal.auto = True
        journal.commit_all()


async def test_while_the_journal_commits_nothing_the_reply_says_that_a_crash_would_take_it_back(tmp_path):
    journal = MemoryJournal()
    async with served(tmp_path, journal=journal) as front, front.client() as client:
        await begun(client)
        journal.fail_next("database or disk is full", times=100)
        for _ in range(2):  # when it fails, and while it does
            error = (await client.ask("pause 1"))["error"]
            assert error["code"] == "journal-unavailable"
            assert "disk is full" in error["message"]
            assert "has taken effect" in error["message"]
        assert (await client.ok("status 1"))["state"] in {"pausing", "paused"}
        while not journal.commit():  # as a journal on disk does each second
            pass
        journal.commit_all()
        await client.ok("resume 1")


async def test_without_a_journal_nobody_waits(tmp_path):
    async with served(tmp_path) as front, front.client() as client:
        await begun(client)
        await front.server.committed()
        await client.ok("pause 1")

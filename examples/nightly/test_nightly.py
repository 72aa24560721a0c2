"""Rehearse the nightly job: `pytest examples/nightly`."""

import datetime as dt

import pytest

from scattersphere.testing import Rehearsal, VirtualTimeLoop

pytestmark = pytest.mark.anyio


# begin loop
@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run the tests on asyncio, on a loop whose time jumps."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


# end loop


# begin first
async def test_the_total_is_sent(scattersphere: Rehearsal) -> None:
    """The whole job, with a fake in place of the only task that talks to the world."""
    sent = scattersphere.fake("etl.Send", lambda total, url: None)
    run = await scattersphere.run("nightly.json", {"day": "2026-11-23", "orders": "orders.csv"})
    assert run.succeeded, run.explain()
    assert sent.calls == [{"total": 10.0, "url": ""}]
    scattersphere.assert_order(run, "load", "total", "send")


# end first


# begin fake
async def test_a_day_without_orders_has_the_total_zero(scattersphere: Rehearsal) -> None:
    """A fake takes what the real task takes: `file` and `day`, with their types."""

    def load(file: object, day: dt.date) -> list[float]:
        assert (str(file), day) == ("orders.csv", dt.date(2026, 1, 1))
        return []

    scattersphere.fake("etl.LoadOrders", load)
    run = await scattersphere.run("nightly.json", {"day": "2026-01-01", "orders": "orders.csv"})
    assert run.results["total"] == 0


# end fake


# begin failures
async def test_a_server_that_is_down_is_tried_again_after_five_minutes(scattersphere: Rehearsal) -> None:
    """The five minutes of the back-off take no time here."""
    scattersphere.fail("send", attempt=1, error=ConnectionError("down"))
    run = await scattersphere.run("nightly.json", {"orders": "orders.csv"})
    assert run.succeeded, run.explain()
    assert run.tasks["send"].attempts == 2
    assert run.ended_at is not None
    assert run.started_at is not None
    assert run.ended_at - run.started_at >= dt.timedelta(minutes=5)


async def test_a_disk_that_hangs_is_given_five_minutes(scattersphere: Rehearsal) -> None:
    """A delay before the first attempt runs into the timeout; a death takes the second; the third succeeds."""
    scattersphere.delay("load", 3600, attempt=1)
    scattersphere.die("load", attempt=2)
    run = await scattersphere.run("nightly.json", {"orders": "orders.csv"})
    scattersphere.assert_states(run, load="succeeded", total="succeeded", send="succeeded")
    assert run.tasks["load"].attempts == 3


async def test_nothing_is_sent_when_there_is_no_total(scattersphere: Rehearsal) -> None:
    """What stands behind a failure does not start."""
    scattersphere.fail("total", attempt=None, error=OverflowError("too much"))
    run = await (await scattersphere.start("nightly.json", {"orders": "orders.csv"}))
    scattersphere.assert_states(run, {"total": "failed", "send": "upstream_failed"})
    assert "OverflowError: too much" in run.explain()


# end failures

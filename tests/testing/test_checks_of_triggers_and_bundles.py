"""The contracts of triggers and of bundles on their way hold for ours, and find out who breaks them."""

import datetime as dt
from typing import ClassVar

import attrs
import pytest
from livebundles import task

from scattersphere.abc import BundleAdopter, BundleContent, Trigger
from scattersphere.registry.registry import TaskRegistry
from scattersphere.schedules.triggers import AtTrigger, CronTrigger, EveryTrigger
from scattersphere.testing import bundles, triggers

DAY = dt.datetime(2027, 12, 24, 18, tzinfo=dt.UTC)
OURS = {
    "every": lambda: EveryTrigger(5_400),
    "at": lambda: AtTrigger((DAY, DAY + dt.timedelta(days=1))),
    "never": lambda: AtTrigger(()),
    "cron": lambda: CronTrigger.of("*/7 2 * * *", "Europe/Berlin"),
    "leap": lambda: CronTrigger.of("0 12 29 2 *"),
}


def name_of(check):
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", triggers.CHECKS, ids=name_of)
@pytest.mark.parametrize("kind", OURS)
def test_our_triggers_keep_the_contract(kind, check):
    if kind in {"cron", "leap"}:
        pytest.importorskip("cronsim")
    assert isinstance(OURS[kind](), Trigger)
    check(OURS[kind])


@attrs.frozen
class Hourly:
    """Right; those below are it with one thing wrong."""

    def next(self, after):
        return after.replace(minute=0, second=0, microsecond=0) + dt.timedelta(hours=1)

    def previous(self, before):
        return (before - dt.timedelta(microseconds=1)).replace(minute=0, second=0, microsecond=0)

    def words(self):
        return "every hour"


class InLocalTime(Hourly):
    def next(self, after):
        return super().next(after).astimezone(dt.timezone(dt.timedelta(hours=1)))


class Inclusive(Hourly):
    def next(self, after):
        return super().next(after - dt.timedelta(microseconds=1))


class OneSided(Hourly):
    def previous(self, before):
        return super().previous(before - dt.timedelta(hours=1))


class Drifting(Hourly):
    def next(self, after):
        return after.replace(microsecond=0) + dt.timedelta(hours=1)


class Remembering(Hourly):
    asked: ClassVar[list[int]] = []

    def next(self, after):
        self.asked.append(1)
        return super().next(after) + dt.timedelta(hours=len(self.asked) % 2)


class Wordless(Hourly):
    def words(self):
        return ""


WRONG = {
    InLocalTime: "a_time_is_in_utc_and_to_the_second",
    Inclusive: "next_is_after_and_previous_is_before",
    OneSided: "both_directions_are_one_row",
    Drifting: "nothing_is_left_out",
    Remembering: "it_is_pure",
    Wordless: "it_has_words",
}


@pytest.mark.parametrize("check", triggers.CHECKS, ids=name_of)
def test_a_right_one_passes(check):
    check(Hourly)


@pytest.mark.parametrize(("cls", "name"), WRONG.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_one_is_found(cls, name):
    check = next(check for check in triggers.CHECKS if name_of(check) == name)
    with pytest.raises(AssertionError):
        check(cls)


# ---- bundles


@pytest.mark.anyio
@pytest.mark.parametrize("check", bundles.CHECKS, ids=name_of)
async def test_our_registry_keeps_the_contract(check, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text(task(3))
    one, other = TaskRegistry(collect_garbage=False), TaskRegistry(collect_garbage=False)
    try:
        version = (await one.register(tmp_path / "app")).current
        assert isinstance(version, BundleContent)
        assert isinstance(other, BundleAdopter)
        await check("app", version, other)
    finally:
        await one.aclose()
        await other.aclose()


class Trusting:
    """Adopts whatever it is given."""

    async def adopt(self, name, digest, content):
        adopted = Trusting()
        adopted.digest, adopted.content = digest, content
        return adopted

    def export(self):
        return self.content


@pytest.mark.anyio
async def test_who_adopts_anything_is_found():
    version = await Trusting().adopt("app", "0a", b"some content")
    with pytest.raises(AssertionError, match="under another digest"):
        await bundles.check_other_bytes_are_refused("app", version, Trusting())

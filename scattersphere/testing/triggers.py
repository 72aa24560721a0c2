"""Contract tests for a `Trigger`: checks that any trigger can be put through.

In a test suite of one's own::

    import pytest
    from scattersphere.testing.triggers import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check):
        check(lambda: MyTrigger("full moon"))

Each check is given what makes a trigger, asks it over four years, and raises AssertionError with words where a promise
is broken.
"""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc.ports import Trigger

START = dt.datetime(2027, 2, 27, 22, 59, 58, tzinfo=dt.UTC)
INSTANTS = tuple(START + number * dt.timedelta(days=7, hours=5, minutes=7) for number in range(208))
"""At all times of the day, over both changes of the clocks and a 29 February."""
SECOND = dt.timedelta(seconds=1)
SUBSECOND = dt.timedelta(microseconds=1)
LONG = 50
"""Firings that are followed from one to the next."""


def _expect(condition: object, words: str) -> None:
    if not condition:
        raise AssertionError(words)


def check_a_time_is_in_utc_and_to_the_second(make: Callable[[], Trigger]) -> None:
    """`next` and `previous` return aware instants in UTC without a fraction of a second, or None."""
    trigger = make()
    for instant in INSTANTS:
        for name, found in (("next", trigger.next(instant)), ("previous", trigger.previous(instant))):
            if found is not None:
                _expect(
                    found.utcoffset() == dt.timedelta(), f"{name}({instant}) is {found}, which is not in UTC"
                )
                _expect(not found.microsecond, f"{name}({instant}) is {found}, with a fraction of a second")


def check_next_is_after_and_previous_is_before(make: Callable[[], Trigger]) -> None:
    """Neither returns the instant that it is asked about; a fraction of a second decides too."""
    trigger = make()
    for instant in INSTANTS:
        after, before = trigger.next(instant), trigger.previous(instant)
        _expect(after is None or after > instant, f"next({instant}) is {after}")
        _expect(before is None or before < instant, f"previous({instant}) is {before}")
        for found in filter(None, (after, before)):
            later, earlier = trigger.next(found), trigger.previous(found)
            _expect(later is None or later > found, f"next({found}) is {later}")
            _expect(earlier is None or earlier < found, f"previous({found}) is {earlier}")
        if after is not None:
            _expect(trigger.next(after - SUBSECOND) == after, f"{after} is not the next a moment before it")
            _expect(
                trigger.previous(after + SUBSECOND) == after, f"{after} is not the last a moment after it"
            )


def check_both_directions_are_one_row(make: Callable[[], Trigger]) -> None:
    """The time before the next but one is the next: none is seen from one side only."""
    trigger = make()
    for instant in INSTANTS[:: len(INSTANTS) // 8]:
        known: list[dt.datetime] = []
        when = instant
        while len(known) < LONG and (found := trigger.next(when)) is not None:
            known.append(found)
            when = found
        _expect(known == sorted(set(known)), f"from {instant} on its times are not in order: {known}")
        for earlier, later in itertools.pairwise(known):
            found = trigger.previous(later)
            _expect(found == earlier, f"after {earlier} comes {later}, but before that {found}")
        if known:
            last = trigger.previous(known[0])
            _expect(last is None or last <= instant, f"next({instant}) is {known[0]}; it left out {last}")


def check_nothing_is_left_out(make: Callable[[], Trigger]) -> None:
    """Who asks in between finds the same times as who goes from one to the next."""
    trigger = make()
    for instant in INSTANTS:
        found = trigger.next(instant)
        if found is not None and found - instant > 2 * SECOND:
            middle = instant + (found - instant) / 2
            _expect(trigger.next(middle) == found, f"next({instant}) is {found}, but {middle} has another")


def check_it_is_pure(make: Callable[[], Trigger]) -> None:
    """The same question has the same answer, in whatever order it is asked, of any trigger made alike."""
    one, other = make(), make()
    forward = [one.next(instant) for instant in INSTANTS]
    backward = [one.next(instant) for instant in reversed(INSTANTS)]
    _expect(forward == backward[::-1], "its answers depend on what it was asked before")
    _expect(
        forward == [other.next(instant) for instant in INSTANTS], "two that are made alike answer differently"
    )


def check_equal_ones_are_equal_and_hashable(make: Callable[[], Trigger]) -> None:
    """A schedule that is defined again with equal timing keeps its state: that is seen by this."""
    _expect(make() == make(), "two that are made alike are not equal")
    _expect(hash(make()) == hash(make()), "two that are equal have different hashes")
    _expect(make() != object(), "it is equal to anything")


def check_it_has_words(make: Callable[[], Trigger]) -> None:
    """`words` tells people when it fires, in one line."""
    words = make().words()
    _expect(isinstance(words, str) and words.strip(), f"its words are {words!r}")
    _expect("\n" not in words, f"its words are more than a line: {words!r}")


CHECKS: tuple[Callable[[Callable[[], Trigger]], None], ...] = (
    check_a_time_is_in_utc_and_to_the_second,
    check_next_is_after_and_previous_is_before,
    check_both_directions_are_one_row,
    check_nothing_is_left_out,
    check_it_is_pure,
    check_equal_ones_are_equal_and_hashable,
    check_it_has_words,
)
"""All checks."""

"""Deadlines: nothing early, nothing forgotten, nothing twice."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtualtime import virtually

from scattersphere import JobDefinition, RunnableTask, RunState, Server
from scattersphere.engine.timers import FEW, Timers


def test_next_is_the_earliest_of_both_kinds():
    timers = Timers()
    assert timers.next is None
    timers.at(5.0, lambda: None)
    timers.expire("a", 0.0, 3.0)
    assert timers.next == 3.0
    timers.forget("a", 3.0)
    assert timers.next == 5.0


def test_a_cancelled_timer_is_not_called():
    timers = Timers()
    timers.at(1.0, lambda: None).cancel()
    assert timers.next is None
    assert not timers.meet(2.0, pytest.fail)


def test_forgetting_tells_the_deadline_and_a_second_time_nothing():
    timers = Timers()
    timers.expire("a", 1.0, 2.0)
    assert timers.forget("a", 2.0) == 3.0
    assert timers.forget("a", 2.0) is None


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from([1.0, 2.5, 7.0]), st.booleans()), max_size=40))
def test_what_is_due_comes_exactly_once(entries):
    timers, expected = Timers(), {}
    for key, (at, duration, dropped) in enumerate(sorted(entries)):
        timers.expire(key, at, duration)
        if dropped:
            timers.forget(key, duration)
        else:
            expected[key] = at + duration
    seen = {}
    for now in range(20):

        def expired(key, now=now):
            assert key not in seen
            seen[key] = now

        timers.meet(float(now), expired)
    assert seen.keys() == expected.keys()
    assert all(seen[key] - 1 < when <= seen[key] for key, when in expected.items())


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from(["expire", "expire", "forget", "at"]),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_an_alarm_that_is_set_when_told_to_is_never_late(steps):
    """What the driver does: it sets the alarm where `changed` says so, and when one has come."""
    timers, now, alarm, expected, met = Timers(), 0.0, None, {}, []

    def ring_until(end):
        nonlocal alarm
        while alarm is not None and alarm <= end:
            moment = alarm
            timers.meet(moment, lambda key: met.append(expected.pop(key)))
            assert all(when == moment for when in met)
            met.clear()
            alarm = timers.next
        assert all(when > end for when in expected.values())

    for number, (pause, verb, which) in enumerate(steps):
        now += pause
        ring_until(now)
        duration = (1.0, 1.5, 4.0, 4.0)[which]
        if verb == "expire":
            timers.expire(number, now, duration)
            expected[number] = now + duration
        elif verb == "at":
            timers.at(now + duration, lambda: None)
        elif expected:
            key = sorted(expected)[which % len(expected)]
            for each in (1.0, 1.5, 4.0):
                timers.forget(key, each)
            del expected[key]
        if timers.changed:
            timers.changed, alarm = False, timers.next
    ring_until(100.0)


KEYS = st.integers(0, 5)
LANES = st.sampled_from([1.0, 1.5, 2.0])


@given(
    st.lists(LANES, min_size=6, max_size=6),
    st.dictionaries(
        KEYS, st.lists(st.tuples(KEYS, st.sampled_from(["forget", *["renew"] * 2]), LANES), max_size=3)
    ),
    st.lists(st.tuples(KEYS, st.sampled_from(["forget", "renew"]), LANES), max_size=3),
    st.sampled_from([None, 1, 2, 64]),
)
def test_what_is_met_with_others_is_met_only_if_they_have_left_its_deadline(
    lanes, by_key, by_callback, limit
):
    """A callback, or another key that expires in the same look, forgets keys and gives them other deadlines."""
    timers, deadlines, now = Timers(), {}, 2.0

    def expire(key, since, lane):
        timers.expire(key, since, lane)
        deadlines[key] = since + lane, lane

    def change(changes):
        for key, verb, lane in changes:
            if key in deadlines:
                assert timers.forget(key, deadlines[key][1]) == deadlines.pop(key)[0]
                if verb == "renew":
                    expire(key, now, lane)

    def expired(key):
        assert deadlines.pop(key)[0] <= now
        change(by_key.pop(key, ()))

    for key, lane in enumerate(lanes):
        expire(key, 0.0, lane)
    timers.at(1.0, lambda: change(by_callback))
    for moment in (2.0, 2.5, 3.0, 3.5, 4.0):
        now = moment
        while timers.meet(now, expired, limit):
            pass
        assert all(when > now for when, _ in deadlines.values())


class Moment(float):
    """A time that counts how often one is compared with another."""

    compared = 0

    def __add__(self, other):
        return Moment(float(self) + other)

    def _counting(name):  # noqa: N805 - a maker of methods
        compare = getattr(float, name)

        def counted(self, other):
            Moment.compared += 1
            return compare(self, other)

        return counted

    __lt__, __le__, __gt__, __ge__, __eq__ = map(
        _counting, ("__lt__", "__le__", "__gt__", "__ge__", "__eq__")
    )
    __hash__ = float.__hash__


def test_durations_that_all_differ_are_not_all_looked_at_for_each_alarm():
    """A host that gives what is left of its own deadline as grace has a duration of its own for each run."""
    many, now = 1_000, Moment(0)
    timers, met = Timers(), []
    Moment.compared = 0
    for key in range(many):
        timers.expire(key, now, 60 - key / many)
        assert timers.next == 60 - key / many
    while timers.next is not None:
        assert timers.meet(timers.next, met.append)
    assert met == list(reversed(range(many)))
    assert Moment.compared < 100 * many
    assert not timers._lanes


def test_lanes_that_have_become_empty_are_dropped_long_before_their_time():
    timers = Timers()
    timers.expire("kept", 0.0, 1e6)
    for key in range(10_000):
        timers.expire(key, 0.0, 86_400.0 + key)
        timers.forget(key, 86_400.0 + key)
    assert len(timers._lanes) == len(timers._firsts) < 200
    assert timers.next == 1e6


def test_a_timer_that_is_cancelled_by_another_of_the_same_look_is_not_called():
    timers = Timers()
    later = []
    timers.at(1.0, lambda: [timer.cancel() for timer in later])
    later.append(timers.at(1.0, lambda: pytest.fail("it was cancelled")))
    timers.meet(2.0, pytest.fail)
    assert len(timers) == 0


def test_a_key_that_is_renewed_waits_behind_those_that_are_due_before_it():
    timers, met = Timers(), []
    timers.expire("a", 0.0, 5.0)
    timers.expire("b", 1.0, 5.0)
    timers.expire("a", 2.0, 5.0)
    timers.meet(6.0, met.append)
    assert met == ["b"]
    assert timers.next == 7.0


def test_forgotten_timers_leave_the_heap_long_before_their_time():
    timers = Timers()
    kept = timers.at(1e6, lambda: None)
    for _ in range(10_000):
        timers.at(86_400.0, lambda: None).cancel()
    assert len(timers) < 200
    assert timers.next == kept.when


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=300))
def test_putting_the_heap_in_order_loses_no_timer_and_revives_none(entries):
    timers, called, expected = Timers(), [], []
    for number, (when, dropped) in enumerate(entries):
        timer = timers.at(when, lambda number=number: called.append(number))
        if dropped:
            timer.cancel()
            timer.cancel()
        else:
            expected.append((when, number))
    for now in range(10):
        timers.meet(now, pytest.fail)
    assert called == [number for _, number in sorted(expected)]
    assert len(timers) == 0


def test_a_timer_that_was_met_may_be_cancelled_later():
    timers = Timers()
    met = [timers.at(0.0, lambda: None) for _ in range(500)]
    timers.meet(1.0, pytest.fail)
    kept = [timers.at(9.0, lambda: None) for _ in range(500)]
    for timer in met:
        timer.cancel()
    assert len(timers) == len(kept)


class Fails(RunnableTask):
    async def run(self, context):
        raise OSError("not yet")


class Waits(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()


DAY = 86_400


@pytest.mark.anyio
async def test_no_timer_of_a_run_outlives_it():
    """Its own timeout, those of its attempts, back-offs, graces."""
    async with Server(grace=DAY) as server:
        server.register_tasks("app", [Fails, Waits])
        job = JobDefinition.build("day", timeout=DAY).task("waits", "Waits", timeout=DAY)
        back_off = {"max_attempts": 3, "delay": DAY, "max_delay": DAY, "jitter": False}
        server.define(job.task("fails", "Fails", retry=back_off).done())
        timers = server._executor.deadlines.timers
        for _ in range(3 * FEW):
            run = await server.start("day")
            while run.tasks["fails"].attempts == 0:
                await anyio.lowlevel.checkpoint()
            run.cancel()
            await run.wait()
        assert len(timers) <= 2 * FEW


class Tidies(RunnableTask):
    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await TIDY.wait()


TIDY = anyio.Event()


@pytest.mark.anyio
async def test_an_attempt_that_was_asked_to_end_waits_for_its_grace_and_no_more_for_its_timeout():
    global TIDY  # noqa: PLW0603 - one event a loop
    TIDY = anyio.Event()
    async with Server(grace=DAY) as server:
        server.register_tasks("app", [Tidies])
        server.define(JobDefinition.build("day").task("tidies", "Tidies", timeout=2 * DAY).done())
        timers, clock = server._executor.deadlines.timers, server._executor.clock
        run = await server.start("day")
        while not len(timers):
            await anyio.lowlevel.checkpoint()
        assert timers.next > clock() + DAY
        run.cancel()
        (attempt,) = run._execution.live.values()
        assert len(timers) == 1
        assert timers.next == attempt.grace_until <= clock() + DAY
        TIDY.set()
        await run.wait()
        assert timers.forget(attempt, DAY) is None
        assert attempt.grace_left is None


class CleansUp(RunnableTask):
    """Take two seconds to end, which is within its grace."""

    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)


@virtually
async def test_an_attempt_keeps_its_grace_when_its_timeout_comes_in_the_same_look_as_that_of_its_run():
    async with Server(grace=30) as server:
        server.register_tasks("app", [CleansUp])
        server.define(JobDefinition.build("both", timeout=5.0).task("t", "CleansUp", timeout=5.0).done())
        run = await server.start("both")
        await run.wait()
        assert run.state is RunState.FAILED
        assert (run.ended_at - run.started_at).total_seconds() == pytest.approx(5 + 2, abs=0.001)
        assert not run.logs()


class Takes(RunnableTask):
    """Take so many seconds; the first try of a task fails after half of them."""

    seconds: float
    fails: bool = False

    async def run(self, context):
        SEEN.append(context)
        if self.fails and context.attempt == 1:
            await anyio.sleep(self.seconds / 2)
            raise OSError("the first try")
        await anyio.sleep(self.seconds)


SEEN: list = []


@virtually
async def test_the_time_of_an_attempt_that_has_ended_is_none_of_the_next_one():
    SEEN.clear()
    async with Server() as server:
        server.register_tasks("app", [Takes])
        retry = {"max_attempts": 2, "delay": 0}
        job = JobDefinition.build("tries").task(
            "t", "Takes", args={"seconds": 4, "fails": True}, timeout=9, retry=retry
        )
        server.define(job.done())
        run = await server.start("tries")
        await anyio.sleep(3)
        (second,) = run._execution.live.values()
        first, _ = SEEN
        assert first is not second
        server._executor.canceller.expired(first)
        await run.wait()
        assert run.succeeded

"""Which runs may run: slots, a job's own limit, overlap, the bounded queue."""

from types import SimpleNamespace

import pytest

from scattersphere import BusyError, JobDefinition, RunState
from scattersphere.engine.admission import Admission


def run(number, job):
    return SimpleNamespace(
        id=number, plan=SimpleNamespace(job=job.name, definition=job), state=RunState.QUEUED
    )


def taken(admission):
    got = []
    while (execution := admission.next()) is not None:
        got.append(execution.id)
    return got


FREE = JobDefinition(name="free")
SINGLE = JobDefinition(name="single", max_runs=1)


def test_slots_are_given_in_the_order_of_arrival():
    admission = Admission(2, 10)
    runs = [run(n, FREE) for n in range(4)]
    for each in runs:
        admission.enter(each)
    assert taken(admission) == [0, 1]
    admission.leave(runs[1])
    assert taken(admission) == [2]


def test_a_job_at_its_limit_lets_others_pass():
    admission = Admission(2, 10)
    first, second, other = run(1, SINGLE), run(2, SINGLE), run(3, FREE)
    for each in (first, second, other):
        admission.enter(each)
    assert taken(admission) == [1, 3]
    admission.leave(first)
    assert taken(admission) == [2]


def test_a_full_queue_is_refused_before_the_run_exists():
    admission = Admission(1, 1)
    admission.enter(run(1, FREE))
    assert taken(admission) == [1]
    admission.check(FREE)
    admission.enter(run(2, FREE))
    with pytest.raises(BusyError):
        admission.check(FREE)


def test_a_run_has_its_slot_at_once_where_there_is_one_and_nobody_waits():
    admission = Admission(2, 10)
    first, second, third = run(1, SINGLE), run(2, SINGLE), run(3, FREE)
    assert admission.pass_by(first)
    assert not admission.pass_by(second)  # its job is at its limit
    admission.enter(second)
    assert not admission.pass_by(third)  # somebody came before
    admission.enter(third)
    assert taken(admission) == [3]
    admission.leave(first)
    assert taken(admission) == [2]


def test_overlap_refuse_says_so():
    admission = Admission(None, 10)
    job = JobDefinition(name="j", max_runs=1, overlap="refuse")
    admission.enter(run(1, job))
    taken(admission)
    with pytest.raises(BusyError, match="max_runs"):
        admission.check(job)


def test_overlap_replace_names_the_runs_that_must_go():
    admission = Admission(None, 10)
    job = JobDefinition(name="j", max_runs=1, overlap="replace")
    first = run(1, job)
    assert admission.enter(first) == []
    taken(admission)
    assert admission.enter(run(2, job)) == [first]


def test_a_paused_run_in_the_queue_is_passed_over_and_keeps_its_turn():
    admission = Admission(1, 10)
    first, second = run(1, FREE), run(2, FREE)
    first.state = RunState.PAUSED
    admission.enter(first)
    admission.enter(second)
    assert taken(admission) == [2]
    admission.leave(second)
    first.state = RunState.QUEUED
    assert taken(admission) == [1]


def test_leaving_while_queued_frees_the_place_in_the_queue():
    admission = Admission(0, 1)
    waiting = run(1, FREE)
    admission.enter(waiting)
    admission.leave(waiting)
    assert admission.queued == 0


def test_ten_thousand_runs_of_a_job_at_its_limit_cost_the_others_nothing():
    """Else each start looks at all that wait: 10,000 of them took half a minute."""
    looks = []

    class Waiting(SimpleNamespace):
        @property
        def state(self):
            looks.append(self.id)
            return RunState.QUEUED

    admission = Admission(None, 10_000)
    for number in range(1, 1_001):
        admission.enter(Waiting(id=number, plan=SimpleNamespace(job="single", definition=SINGLE)))
        assert taken(admission) == ([1] if number == 1 else [])
    admission.enter(run(2_000, FREE))
    assert taken(admission) == [2_000]
    assert len(looks) < 10
    assert admission.queued == 999

"""Promises 2 to 5 of the design, section 6, over random jobs and random interleavings."""

from budgets import budget
from hypothesis import given
from hypothesis import strategies as st
from machine_world import Player, World, jobs

from scattersphere.engine.machine import RunMachine, facts_of
from scattersphere.engine.machine.codes import SUCCEEDED


def play(data, world, steps, *, control=True, cuts=False):
    player = Player(world, data, control=control, cuts=cuts)
    for machine in world.machines:
        if data.draw(st.booleans()):
            machine.slot()
    world.pump()
    for _ in range(steps):
        if not player.step():
            break
    player.finish()


def any_world(data):
    return World(
        data.draw(st.lists(jobs(), min_size=1, max_size=3)),
        limit=data.draw(st.sampled_from([None, None, 1, 2, 3])),
        pools={"a": data.draw(st.integers(3, 4)), "b": data.draw(st.integers(3, 4))},
        take=data.draw(st.sampled_from([1, 2, 32])),
        at_once=data.draw(st.sampled_from([1, 2, 256])),
        late=data.draw(st.booleans()),
    )


@budget(600)
@given(st.data())
def test_every_promise_holds_in_every_interleaving(data):
    play(data, any_world(data), data.draw(st.integers(0, 40)))


@budget(200)
@given(st.data())
def test_terminal_states_do_not_depend_on_order_limits_or_priorities(data):
    """`finish` compares them with an oracle that knows no order."""
    world = World(
        data.draw(st.lists(jobs(), min_size=1, max_size=2)),
        limit=data.draw(st.sampled_from([None, 1, 2])),
        pools={"a": 3, "b": 3},
        take=data.draw(st.sampled_from([1, 32])),
    )
    play(data, world, 30, control=False)


class GeneralMachine(RunMachine):
    """A machine without its hot path: the general path does everything, with each move asserted."""

    __slots__ = ()

    def ok(self, unit, value):
        return self.ended(unit, SUCCEEDED, value)

    def begin(self, unit):
        return self._begin_or_refuse(unit)


class Recorded:
    """Draws that are remembered, so that a second world is dealt the same hand."""

    def __init__(self, data=None, answers=()):
        self.data, self.answers, self.given = data, list(answers), []

    def draw(self, strategy):
        value = self.answers.pop(0) if self.data is None else self.data.draw(strategy)
        self.given.append(value)
        return value


@budget(300)
@given(st.data())
def test_the_hot_path_writes_the_same_journal_as_the_general_path(data):
    jobs_ = data.draw(st.lists(st.one_of(jobs(12, plain=True), jobs(12)), min_size=1, max_size=3))
    limit = data.draw(st.sampled_from([None, None, 2]))
    take, control = data.draw(st.sampled_from([1, 3, 32])), data.draw(st.booleans())
    hand = Recorded(data)
    worlds = []
    for machine in (RunMachine, GeneralMachine):
        world = World(jobs_, limit=limit, pools={"a": 3, "b": 3}, take=take, machine=machine)
        play(hand, world, 30, control=control)
        hand = Recorded(answers=hand.given)
        worlds.append(world)
    fast, general = worlds
    for one, other in zip(fast.machines, general.machines, strict=True):
        assert one.record.journal == other.record.journal
        assert one.record.results == other.record.results
        assert one.record.attempts == other.record.attempts
        assert one.record.causes == other.record.causes
    assert fast.commands == general.commands


@budget(400)
@given(st.data())
def test_cut_any_interleaving_anywhere_restore_and_go_on_every_promise_holds(data):
    play(data, any_world(data), data.draw(st.integers(0, 40)), cuts=True)


@budget(200)
@given(st.data())
def test_a_run_that_was_cut_and_restored_comes_to_the_same_end(data):
    """`finish` compares the terminal states with an oracle that knows no order, and no cut."""
    world = World(
        data.draw(st.lists(jobs(), min_size=1, max_size=2)),
        limit=data.draw(st.sampled_from([None, 1, 2])),
        pools={"a": 3, "b": 3},
        take=data.draw(st.sampled_from([1, 32])),
        late=data.draw(st.booleans()),
    )
    play(data, world, 30, control=False, cuts=True)


@budget(100)
@given(st.data())
def test_facts_are_whole_a_run_restored_without_anything_to_interrupt_has_the_same(data):
    world = World(data.draw(st.lists(jobs(), min_size=1, max_size=2)), pools={"a": 3, "b": 3})
    play(data, world, data.draw(st.integers(0, 20)))
    before = [facts_of(machine) for machine in world.machines]
    world.cut()
    assert [facts_of(machine) for machine in world.machines] == before

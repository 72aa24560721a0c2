"""Promises 2 to 5 of the design, section 6, over random jobs and random interleavings."""

from hypothesis import given
from hypothesis import strategies as st
from machine_world import Player, World, budget, jobs

from scattersphere.execution.machine import RunMachine
from scattersphere.execution.machine.codes import SUCCEEDED


@budget(200)
@given(st.data())
def test_every_promise_holds_in_every_interleaving(data):
    world = World(
        data.draw(st.lists(jobs(), min_size=1, max_size=3)),
        limit=data.draw(st.sampled_from([None, None, 1, 2, 3])),
        pools={"a": data.draw(st.integers(1, 2)), "b": data.draw(st.integers(1, 2))},
        take=data.draw(st.sampled_from([1, 2, 32])),
        at_once=data.draw(st.sampled_from([1, 2, 256])),
    )
    player = Player(world, data)
    for machine in world.machines:
        if data.draw(st.booleans()):
            machine.slot()
    world.pump()
    for _ in range(data.draw(st.integers(0, 40))):
        if not player.step():
            break
    player.finish()

"""Reading pauses the collector for a while, and leaves it as the host had it."""

from __future__ import annotations

import contextlib
import gc
from contextvars import copy_context

import pytest

from scattersphere import DefinitionError, JobDefinition, _turns
from scattersphere._gc import PROMOTIONS, free, gc_paused, promote_young


@pytest.mark.parametrize("text", ["[" * 200_000, '{"name": "x", "tasks": {}}' + " " * 200_000])
def test_the_collector_is_on_again_after_a_large_reading_right_or_wrong(text):
    assert gc.isenabled()
    with contextlib.suppress(DefinitionError):
        JobDefinition.loads(text)
    assert gc.isenabled()


def test_a_collector_that_the_host_has_turned_off_stays_off():
    gc.disable()
    try:
        with gc_paused(tasks=10**6):
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with gc_paused(tasks=10**6):
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.usefixtures("thawed")
def test_what_was_read_is_taken_for_old_and_the_host_s_garbage_is_never_put_off_for_ever():
    gc.collect()
    with gc_paused(tasks=10**6):
        made = [[] for _ in range(1_000)]
    assert not {id(one) for at in (0, 1) for one in gc.get_objects(at)} & set(map(id, made))
    for _ in range(2 * PROMOTIONS):
        promote_young()
    latest = [[]]
    promote_young()  # as if nothing had been asked: a full collection comes first
    assert any(one is latest for one in gc.get_objects(0))
    gc.collect()
    promote_young()
    assert not any(one is latest for one in gc.get_objects(0))


def test_what_the_host_has_frozen_stays_frozen():
    host = ["its own"]
    gc.collect()
    gc.freeze()  # it stays so: what the suite consists of is frozen anyway
    promote_young()
    assert not any(one is host for one in gc.get_objects())


class Leaf:
    """Notes its end."""

    def __init__(self, ended):
        self.ended = ended

    def __del__(self):
        self.ended.append(1)


@pytest.mark.parametrize(
    "grow",
    [
        lambda leaves: {"deep": [{"inside": leaves}, "x"]},
        lambda leaves: {str(number): (leaf,) for number, leaf in enumerate(leaves)},
    ],
)
def test_what_is_freed_beside_a_loop_is_freed_object_by_object_and_what_others_hold_stays(grow):
    ended, most, before = [], [0], [0]

    def turn():
        most[0] = max(most[0], len(ended) - before[0])
        before[0] = len(ended)

    leaves = [Leaf(ended) for _ in range(2_000)]
    kept = leaves[7]
    things = [grow(leaves)]
    del leaves
    giving = copy_context()
    giving.run(_turns.let_others_wait, turn)
    giving.run(free, things)
    assert things == []
    assert len(ended) == 1_999
    assert most[0] == 1
    assert kept.ended is ended


def test_where_nobody_waits_for_turns_all_is_freed_at_once():
    ended = []
    things = [[Leaf(ended)], Leaf(ended)]
    free(things)
    assert (things, len(ended)) == ([], 2)

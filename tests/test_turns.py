"""Work in threads beside the loop: it waits for turns of the loop, and leaves nothing for the collector of garbage."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref

import anyio
import pytest
from patience import PATIENCE
from programs import run_program

from scattersphere import _graphs, _threads, _turns

pytestmark = pytest.mark.anyio


class Held:
    """Something large that the work holds."""


async def test_the_loop_has_a_turn_wherever_work_in_a_thread_gives_way(monkeypatch):
    monkeypatch.setattr(_threads, "SLICE", -1.0)  # each time it is asked
    turns, seen = [], []

    async def neighbour():
        while True:
            turns.append(1)
            await anyio.lowlevel.checkpoint()

    def work():
        assert _turns.WAY.get() is not None
        for _ in range(20):
            seen.append(len(turns))
            _turns.give_way()
        return "done"

    async with anyio.create_task_group() as group:
        group.start_soon(neighbour)
        with anyio.fail_after(PATIENCE):
            assert await _threads.in_thread(work) == "done"
        group.cancel_scope.cancel()
    assert len(set(seen)) > 10  # a turn of the loop has the neighbour's, or comes just before it


async def test_short_work_asks_for_no_turn_and_work_elsewhere_never_does(monkeypatch):
    monkeypatch.setattr(_threads, "SLICE", PATIENCE)
    monkeypatch.setattr(_threads._Slices, "_have_turn", None)

    def work():
        _turns.give_way()
        return threading.get_ident()

    assert await _threads.in_thread(work) != threading.get_ident()
    assert _turns.WAY.get() is None
    _turns.give_way()


async def test_an_error_of_a_thread_frees_what_its_work_held_when_it_has_been_dealt_with():
    held, freed = [], threading.Event()

    def work():
        large = Held()
        held.append(weakref.ref(large, lambda _: freed.set()))
        raise LookupError("no")

    gc.collect()
    gc.disable()
    try:
        try:
            await _threads.in_thread(work)
        except LookupError as error:  # not `pytest.raises`, which keeps it
            held.append(str(error))
        assert held[1:] == ["no"]
        assert await anyio.to_thread.run_sync(freed.wait, PATIENCE)
    finally:
        gc.enable()


async def test_work_goes_on_where_its_caller_is_cancelled_and_the_loop_still_has_turns(monkeypatch):
    monkeypatch.setattr(_threads, "SLICE", -1.0)
    begun, rounds = anyio.Event(), []

    def work():
        anyio.from_thread.run_sync(begun.set)
        for _ in range(10):
            _turns.give_way()
            rounds.append(1)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(_threads.in_thread, work)
            await begun.wait()
            group.cancel_scope.cancel()
    assert len(rounds) == 10


LEFT_ALONE = """
import asyncio, threading
from scattersphere import _graphs, _threads, _turns

_threads.SLICE = -1.0  # each time it is asked
begun, end, asked = asyncio.Event(), threading.Event(), threading.Event()

class Loop(asyncio.SelectorEventLoop):
    def call_soon_threadsafe(self, *args, **kwargs):
        handle = super().call_soon_threadsafe(*args, **kwargs)
        if end.is_set():
            asked.set()
        return handle

    def close(self):
        end.set()
        asked.wait({patience})  # for a turn that it will not have
        super().close()

def work():
    loop.call_soon_threadsafe(begun.set)
    assert end.wait({patience})
    _turns.give_way()
    _turns.give_way()  # nobody is there any more
    print("done")

async def main():
    global loop, waiting
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(_threads.in_thread(work))
    await begun.wait()

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
    waiting.cancel()  # as `asyncio.run` does
"""


def test_a_program_ends_though_its_loop_ended_while_work_in_a_thread_waited_for_a_turn():
    ended = run_program([sys.executable, "-c", LEFT_ALONE.format(patience=PATIENCE)])
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


def test_work_goes_on_where_its_loop_stops_before_the_turn_for_which_it_waits(monkeypatch):
    monkeypatch.setattr(_threads, "SLICE", -1.0)
    monkeypatch.setattr(_threads, "LOOK", 0.001)
    loop, asked = asyncio.new_event_loop(), threading.Event()
    slices = _threads._Slices(loop)
    thread = threading.Thread(target=slices.give_way, daemon=True)
    ask = loop.call_soon_threadsafe

    def call_soon_threadsafe(*args):
        ask(*args)
        asked.set()

    def last_turn():
        thread.start()
        assert asked.wait(PATIENCE)
        loop.stop()

    monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
    loop.call_soon(last_turn)
    loop.run_forever()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    loop.close()


def test_items_give_way_one_by_one_where_somebody_waits_and_are_themselves_elsewhere():
    items, turns = [1, 2, 3], []
    assert _turns.EACH.get() is iter
    giving = contextvars.copy_context()
    giving.run(_turns.let_others_wait, lambda: turns.append(1))
    assert list(giving[_turns.EACH](items)) == items
    assert len(turns) == 3


@pytest.mark.parametrize("back", [False, True])
def test_a_graph_of_many_nodes_is_looked_at_node_by_node(back):
    waits, turns = [(), *((number,) for number in range(999))], []
    if back:
        waits[0] = (999,)
    giving = contextvars.copy_context()
    giving.run(_turns.let_others_wait, lambda: turns.append(1))
    assert len(giving.run(_graphs.find_cycle, waits)) == 1_000 * back
    assert len(turns) >= (2_000 if back else 1_000)

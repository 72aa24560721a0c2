"""Which attempt starts next: priorities, turns, pools, limits, and places that are offered on."""

from machine_stage import begun
from machine_world import Job, Machine, World

from scattersphere.engine.machine import CompiledGraph, Dispatcher, TaskSpec
from scattersphere.engine.machine.codes import SUCCEEDED


def run(dispatcher, *tasks, number=1, **job):
    machine = Machine(CompiledGraph(tasks, **job), number, dispatcher, lambda _: 5)
    machine.slot()
    return machine


def taken(dispatcher, limit=32):
    """Take once; return (number of the run, units)."""
    result = begun(dispatcher, limit)
    return None if result is None else (result[0].record.run_id, result[1])


def test_the_higher_priority_goes_first_over_all_runs():
    dispatcher = Dispatcher()
    run(dispatcher, TaskSpec(), TaskSpec(priority=5), number=1)
    run(dispatcher, TaskSpec(priority=9), TaskSpec(priority=-1), number=2)
    order = [taken(dispatcher) for _ in range(5)]
    assert order == [(2, [0]), (1, [1]), (1, [0]), (2, [1]), None]


def test_runs_of_equal_priority_take_turns():
    dispatcher = Dispatcher()
    for number in (1, 2, 3):
        run(dispatcher, *[TaskSpec()] * 4, number=number)
    assert [taken(dispatcher, 2)[0] for _ in range(6)] == [1, 2, 3, 1, 2, 3]


def test_a_run_with_many_pools_gets_no_more_turns_than_another():
    dispatcher = Dispatcher()
    run(dispatcher, *(TaskSpec(pools=(name,)) for name in "abc"), number=1)
    run(dispatcher, *[TaskSpec()] * 3, number=2)
    assert [taken(dispatcher, 1)[0] for _ in range(6)] == [1, 2, 1, 2, 1, 2]


def test_a_server_limit_is_never_exceeded_and_a_freed_place_is_ready():
    dispatcher = Dispatcher(2)
    machine = run(dispatcher, *[TaskSpec()] * 3)
    assert taken(dispatcher) == (1, [0, 1])
    assert not dispatcher.ready
    machine.ok(0, None)
    assert dispatcher.ready
    assert taken(dispatcher) == (1, [2])


def test_a_pool_is_shared_by_runs_which_take_turns_at_its_places():
    dispatcher = Dispatcher(pools={"db": 1})
    machines = [run(dispatcher, *[TaskSpec(pools=("db",))] * 3, number=number) for number in (0, 1)]
    order = []
    while (got := taken(dispatcher)) is not None:
        order.append(got[0])
        assert begun(dispatcher) is None
        machines[got[0]].ok(got[1][0], None)
    assert order == [0, 1, 0, 1, 0, 1]


def test_the_highest_priority_waits_first_at_a_full_pool():
    dispatcher = Dispatcher(pools={"db": 1})
    first = run(dispatcher, TaskSpec(pools=("db",)), number=0)
    assert taken(dispatcher) == (0, [0])
    run(dispatcher, TaskSpec(pools=("db",)), number=1)
    assert taken(dispatcher) is None
    run(dispatcher, TaskSpec(pools=("db",), priority=1), number=2)
    assert taken(dispatcher) is None
    first.ok(0, None)
    assert taken(dispatcher) == (2, [0])


def test_who_was_offered_a_place_that_others_took_is_offered_the_next_one():
    dispatcher = Dispatcher(pools={"db": 1})
    holder = run(dispatcher, TaskSpec(pools=("db",)), number=0)
    taken(dispatcher)
    for number in (1, 2):
        run(dispatcher, TaskSpec(pools=("db",)), number=number)
        assert taken(dispatcher) is None
    holder.ok(0, None)  # offered to run 1, but run 3 has the priority
    urgent = run(dispatcher, TaskSpec(pools=("db",), priority=1), number=3)
    assert taken(dispatcher) == (3, [0])
    assert taken(dispatcher) is None
    urgent.ok(0, None)
    assert taken(dispatcher) == (1, [0])


def test_a_place_is_offered_on_when_the_run_that_waits_is_paused_cancelled_or_over():
    for act in ("pause", "cancel", "kill", "crash"):
        dispatcher = Dispatcher(pools={"db": 1})
        holder = run(dispatcher, TaskSpec(pools=("db",)), number=0)
        taken(dispatcher)
        waiter = run(dispatcher, TaskSpec(pools=("db",)), number=1)
        assert taken(dispatcher) is None
        run(dispatcher, TaskSpec(pools=("db",)), number=2)
        assert taken(dispatcher) is None
        holder.ok(0, None)  # offered to run 1
        getattr(waiter, act)()
        assert taken(dispatcher) == (2, [0]), act


def test_a_place_is_offered_on_when_the_woken_task_lacks_another_place():
    dispatcher = Dispatcher(pools={"a": 1, "b": 1})
    machine = run(
        dispatcher,
        TaskSpec(pools=("a",)),
        TaskSpec(pools=("b",)),
        TaskSpec(pools=("a", "b")),
        TaskSpec(pools=("a",), priority=-1),
    )
    while begun(dispatcher) is not None:
        pass
    machine.ok(0, None)  # offered to task 2, which lacks a place in b
    assert taken(dispatcher) == (1, [3])


def test_who_gives_back_several_places_lets_as_many_go_on_before_whoever_comes_now():
    dispatcher = Dispatcher(pools={"gpu": 2})
    holder = run(dispatcher, TaskSpec(needs=(("gpu", 2),)), number=0)
    taken(dispatcher)
    for number in (1, 2, 3):
        run(dispatcher, TaskSpec(pools=("gpu",)), number=number)
        assert taken(dispatcher) is None
    holder.ok(0, None)
    run(dispatcher, TaskSpec(pools=("gpu",)), number=4)
    assert [taken(dispatcher) for _ in range(3)] == [(1, [0]), (2, [0]), None]


def test_those_behind_one_that_needed_more_go_on_before_whoever_comes_when_it_is_withdrawn():
    dispatcher = Dispatcher(pools={"gpu": 3})
    run(dispatcher, TaskSpec(pools=("gpu",)), number=0)
    taken(dispatcher)
    large = run(dispatcher, TaskSpec(needs=(("gpu", 3),)), number=1)
    assert taken(dispatcher) is None
    for number in (2, 3):
        run(dispatcher, TaskSpec(pools=("gpu",)), number=number)
        assert taken(dispatcher) is None
    large.cancel("not wanted")
    run(dispatcher, TaskSpec(pools=("gpu",)), number=4)
    assert [taken(dispatcher) for _ in range(3)] == [(2, [0]), (3, [0]), None]


def test_a_pool_can_grow_and_shrink():
    dispatcher = Dispatcher(pools={"db": 1})
    machine = run(dispatcher, *[TaskSpec(pools=("db",))] * 4)
    assert taken(dispatcher) == (1, [0])
    dispatcher.set_pool("db", 3)
    assert taken(dispatcher) == (1, [1, 2])
    dispatcher.set_pool("db", 1)
    machine.ok(0, None)
    machine.ok(1, None)
    assert taken(dispatcher) is None
    machine.ok(2, None)
    assert taken(dispatcher) == (1, [3])


def test_places_that_come_together_are_shared_by_the_runs_that_wait():
    dispatcher = Dispatcher(pools={"db": 1})
    run(dispatcher, TaskSpec(pools=("db",)), number=0)
    taken(dispatcher)
    for number in (1, 2, 3):
        run(dispatcher, *[TaskSpec(pools=("db",))] * 6, number=number)
        assert taken(dispatcher) is None
    dispatcher.set_pool("db", 8)
    order = []
    while (got := taken(dispatcher)) is not None:
        order += [got[0]] * len(got[1])
    assert order == [1, 2, 3, 1, 2, 3, 1]


def test_who_lacked_another_place_goes_first_again_when_that_comes():
    """Two runs that have waited for nothing are ahead in the queue, but not in the order of turns."""
    dispatcher = Dispatcher(pools={"a": 1, "b": 1})
    holder = run(dispatcher, TaskSpec(pools=("a",)), TaskSpec(pools=("b",)), number=0)
    while taken(dispatcher) is not None:
        pass
    run(dispatcher, TaskSpec(pools=("a", "b")), number=1)
    assert taken(dispatcher) is None
    holder.ok(0, None)
    assert taken(dispatcher) is None  # run 1 was offered a place in a, and lacks one in b
    for number in (2, 3):
        run(dispatcher, TaskSpec(), number=number)
    holder.ok(1, None)
    assert [taken(dispatcher) for _ in range(4)] == [(1, [0]), (2, [0]), (3, [0]), None]


def test_a_run_takes_one_place_at_a_time_while_another_waits_for_the_next():
    """Run 1 is offered both places, for two kinds of tasks; one kind lacks a place elsewhere, so one place is left."""
    dispatcher = Dispatcher(pools={"a": 2, "b": 1})
    holder = run(dispatcher, *[TaskSpec(pools=("a",))] * 2, TaskSpec(pools=("b",)), number=0)
    while taken(dispatcher) is not None:
        pass
    run(dispatcher, TaskSpec(pools=("a", "b")), *[TaskSpec(pools=("a",))] * 3, number=1)
    assert taken(dispatcher) is None
    run(dispatcher, TaskSpec(pools=("a",)), number=2)
    assert taken(dispatcher) is None
    holder.ok(0, None)
    holder.ok(1, None)
    assert {taken(dispatcher)[0], taken(dispatcher)[0]} == {1, 2}
    assert taken(dispatcher) is None


def test_a_pool_that_was_given_no_size_has_no_limit_until_it_gets_one():
    dispatcher = Dispatcher()
    run(dispatcher, *[TaskSpec(pools=("db",))] * 3)
    assert taken(dispatcher, 1) == (1, [0])
    dispatcher.set_pool("db", 2)
    assert taken(dispatcher) == (1, [1])
    dispatcher.set_pool("db", None)
    assert taken(dispatcher) == (1, [2])


def test_max_parallel_of_a_run_and_of_a_map_hold_at_the_same_time():
    dispatcher = Dispatcher()
    run(dispatcher, TaskSpec(mapped=True, max_parallel=2), *[TaskSpec()] * 4, max_parallel=3)
    units = [begun(dispatcher), begun(dispatcher), begun(dispatcher)]
    assert units[2] is None
    assert [len(got[1]) for got in units[:2]] == [2, 1]


def test_a_task_of_a_chain_costs_the_dispatcher_no_queue_of_its_own():
    world = World([Job(tuple(TaskSpec(upstreams=(index - 1,) if index else ()) for index in range(50)), {})])
    world.machines[0].slot()
    for _ in range(50):
        world.pump()
        world.end(next(iter(world.live)), SUCCEEDED)
    assert world.machines[0].record.is_over


def test_a_queue_that_is_empty_is_not_all_where_another_one_of_its_run_has_units():
    dispatcher = Dispatcher()
    machine = run(dispatcher, TaskSpec(), TaskSpec(pools=("a",), upstreams=(0,)))
    assert taken(dispatcher) == (1, [0])
    assert dispatcher.is_drained()
    machine.ok(0, None)
    assert not dispatcher.is_drained()
    assert taken(dispatcher) == (1, [1])


def test_many_priorities_do_not_pile_up():
    dispatcher = Dispatcher()
    for priority in range(100):
        machine = run(dispatcher, TaskSpec(priority=priority), number=priority)
        assert taken(dispatcher) == (priority, [0])
        machine.ok(0, None)
        assert taken(dispatcher) is None
    assert len(dispatcher._order) < 12


def test_ended_and_paused_runs_are_forgotten_even_if_ten_thousand_of_them_were_ready():
    dispatcher = Dispatcher()
    machines = [run(dispatcher, TaskSpec(), number=number) for number in range(10_000)]
    for machine in machines[:-1]:
        machine.cancel()
    assert taken(dispatcher) == (9_999, [0])
    assert taken(dispatcher) is None
    assert not dispatcher.ready


def test_reprs_say_what_is_there():
    dispatcher = Dispatcher(4, {"db": 2})
    machine = run(dispatcher, TaskSpec(pools=("db",)))
    assert repr(dispatcher) == "<Dispatcher: 1 runs ready, 4 places free>"
    assert repr(Dispatcher()) == "<Dispatcher: 0 runs ready, unlimited places free>"
    assert repr(machine) == "<RunMachine 1: running, 1 of 1 tasks left, 0 attempts>"
    assert repr(dispatcher.pools["db"]) == "<Limit: 2 of 2 free, 0 queues waiting>"

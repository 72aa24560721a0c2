"""A world in which machines live: it plays the driver, at random, and checks every promise after each step.

It states the rules of the design anew, in the plainest way that there is, so that a fault in the
machine and the same fault in the check are unlikely.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
from hypothesis import strategies as st

from scattersphere.engine.machine import (
    CompiledGraph,
    Dispatcher,
    RunMachine,
    StartDecision,
    TaskSpec,
    facts_of,
    take_up,
)
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CRASHED,
    FAILED,
    FAILURE_CODES,
    PENDING,
    RUN_ALLOWED,
    RUN_CANCELLED,
    RUN_CANCELLING,
    RUN_CRASHED,
    RUN_ENDED_FROM,
    RUN_FAILED,
    RUN_PAUSED,
    RUN_PAUSING,
    RUN_QUEUED,
    RUN_RUNNING,
    RUN_STOPPED,
    RUN_STOPPING,
    RUN_SUCCEEDED,
    RUNNING,
    SKIPPED,
    STATE_BITS,
    SUCCEEDED,
    TASK_ALLOWED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
    UPSTREAM_FAILED,
)
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.model.states import TriggerRule


@attrs.frozen(eq=False)
class Job:
    """A shape, and what the driver would find in the values that it asks for."""

    tasks: tuple[TaskSpec, ...]
    answers: dict[int, StartDecision | int]
    max_parallel: int | None = None
    fail_fast: bool = False

    def graph(self) -> CompiledGraph:
        return CompiledGraph(self.tasks, max_parallel=self.max_parallel, fail_fast=self.fail_fast)


@st.composite
def jobs(draw, max_tasks=7, *, plain=False):
    """Random jobs; `plain` ones have nothing but dependencies, retries and priorities of zero."""
    tasks: list[TaskSpec] = []
    answers: dict[int, StartDecision | int] = {}
    for index in range(draw(st.integers(0, max_tasks))):
        final = not plain and index > 0 and draw(st.integers(0, 5)) == 0
        above = [other for other in range(index) if final or not tasks[other].finally_]
        upstreams = draw(st.lists(st.sampled_from(above), unique=True, max_size=3)) if above else []
        if plain:
            tasks.append(
                TaskSpec(
                    upstreams=tuple(upstreams),
                    max_attempts=draw(st.sampled_from([1, 1, 2])),
                    keeps_result=draw(st.integers(0, 9)) > 0,
                )
            )
            continue
        rules = [*[TriggerRule.ALL_SUCCESS] * 3, *TriggerRule] if upstreams else [TriggerRule.ALL_SUCCESS]
        answer = draw(
            st.sampled_from([None] * 4 + [0, 1, 3, StartDecision.GO, StartDecision.SKIP, StartDecision.FAIL])
        )
        mapped = isinstance(answer, int) or (answer is StartDecision.FAIL and draw(st.booleans()))
        if answer is not None:
            answers[index] = answer
        tasks.append(
            TaskSpec(
                upstreams=tuple(upstreams),
                rule=draw(st.sampled_from(rules)),
                finally_=final,
                max_attempts=draw(st.sampled_from([1, 1, 2, 3])),
                mapped=mapped,
                conditional=answer is not None and (not mapped or draw(st.booleans())),
                pools=draw(st.sampled_from([(), (), (), ("a",), ("b",), ("a", "b"), ("unheard of",)])),
                needs=draw(st.sampled_from([(), (), (), (("a", 2),), (("b", 1), ("a", 1)), (("b", 2),)])),
                max_parallel=draw(st.sampled_from([None, None, 1, 2])),
                priority=draw(st.sampled_from([0, 0, 0, 5, -1])),
                allow_failure=draw(st.integers(0, 4)) == 0,
                keeps_result=draw(st.integers(0, 4)) > 0,
            )
        )
    limit = None if plain else draw(st.sampled_from([None, None, 1, 2]))
    return Job(tuple(tasks), answers, limit, not plain and draw(st.integers(0, 5)) == 0)


def needs_of(task):
    """How many places of which pools a task takes."""
    needs = Counter(dict.fromkeys(task.pools, 1))
    needs.update(dict(task.needs))
    return needs


def lacks(limit, amount):
    """Whether there are too few places, or somebody waits for more than there are and is not overtaken."""
    first = next(iter(limit.waiting[max(limit.waiting)])) if limit.waiting else None
    return limit.free < amount or (first is not None and first.amounts[limit] > limit.free)


@attrs.define(eq=False)
class Chronicle:
    """What the world remembers of one run, apart from the machine."""

    states: dict[int, int] = attrs.field(factory=dict)
    run_state: int = RUN_QUEUED
    run_moves: list[int] = attrs.field(factory=list)
    read: int = 0
    controlled: bool = False
    requested: list[str] = attrs.field(factory=list)
    denied_retry: bool = False
    final: tuple[int, bytes] | None = None


SIGNALS = (
    "slot", "pause", "resume", "stop", "cancel", "kill", "timeout", "crash", "ok", "ended", "attempt_timeout",
    "finally_timeout", "grace_over", "checkpoint", "interrupted", "work",
)  # fmt: skip
"""What returns commands."""


def recording(machine):
    """Return a class of machines that keep in `out` what their signals have asked for, until it is cleared."""

    def recorded(name):
        signal = getattr(machine, name)

        def wrapper(self, *args, **kwargs):
            commands = signal(self, *args, **kwargs)
            if commands and commands is not self.last:  # `ok` may hand on what `ended` has returned
                self.out.extend(commands)
                self.last = commands
            return commands

        return wrapper

    def init(self, graph, run_id, dispatcher, ask, **options):
        machine.__init__(self, graph, run_id, dispatcher, ask, **options)
        self.out, self.last = [], None
        vars(dispatcher).setdefault("machines", {})[run_id] = self

    body = {"__slots__": ("last", "out"), "__init__": init, **{name: recorded(name) for name in SIGNALS}}
    return type("RunMachine", (machine,), body)


Machine = recording(RunMachine)


class World:
    """Several runs, one dispatcher, and the attempts that execute at this moment."""

    def __init__(self, jobs_, *, limit=None, pools=None, take=4, at_once=256, machine=RunMachine, late=False):
        kind = recording(machine)
        self.make = lambda *args: kind(*args, at_once=at_once)
        self.dispatcher = Dispatcher(limit, pools)
        self.limit, self.pools, self.width = limit, dict(pools or {}), take
        self.jobs = list(jobs_)
        self.machines = [
            self.make(job.graph(), number, self.dispatcher, job.answers.__getitem__)
            for number, job in enumerate(self.jobs)
        ]
        self.notes = [Chronicle() for _ in self.machines]
        self.late = late
        """Whether units that were taken begin when the player wants, and not at once."""
        self.taken: list[tuple[int, int]] = []
        self.live: set[tuple[int, int]] = set()
        self.seized = False
        """Whether somebody took a place without waiting for it, so that there may be more taken than there are."""
        self.asked: set[tuple[int, int]] = set()
        self.killed: set[tuple[int, int]] = set()
        self.due: set[tuple[int, int]] = set()
        self.moves: set[tuple[str, int]] = set()
        self.commands: list[tuple[int, Any]] = []

    # ---- the driver's part

    def obey(self):
        for machine in self.machines:
            number, note = machine.record.run_id, self.notes[machine.record.run_id]
            for name, *rest in machine.out:
                self.commands.append((number, (name, *rest)))
                match name:
                    case "retry":
                        self.due.add((number, rest[0]))
                    case "cancel":
                        assert (number, rest[0]) not in self.asked, "cancelled twice"
                        assert (number, rest[0]) in self.live
                        self.asked.add((number, rest[0]))
                    case "kill":
                        assert (number, rest[0]) not in self.killed, "killed twice"
                        assert (number, rest[0]) in self.live
                        self.asked.add((number, rest[0]))
                        self.killed.add((number, rest[0]))
                    case "release":
                        assert (number, rest[0]) in self.live
                    case "mapped":
                        assert machine.record.task_states[rest[0]] >= TASK_ENDED_FROM
                    case "run":
                        note.run_moves.append(rest[0])
                    case "work":
                        assert rest == [0]
                    case _:
                        raise AssertionError(name)
            machine.out.clear()

    def pump(self):
        """Take until nothing starts; then check all promises."""
        self.obey()
        while (taken := self.dispatcher.take(self.width)) is not None:
            machine, units = self.machines[taken[0]], taken[1]
            assert 0 < len(units) <= self.width
            for unit in units:
                if unit in machine.record.lent:
                    machine.ready.take_back(unit)
                else:
                    self.taken.append((machine.record.run_id, unit))
            if not self.late:
                self.begin_all()
            self.obey()
        self.check()

    def begin_all(self):
        while self.taken:
            self.begin(self.taken[0])

    def begin(self, key):
        self.taken.remove(key)
        machine, unit = self.machines[key[0]], key[1]
        before = machine.record.attempts[unit]
        if machine.begin(unit):
            self.check_start(machine, unit)
            self.live.add(key)
        else:
            assert machine.record.attempts[unit] == before, "what never began was counted"

    def end(self, key, kind, *, retryable=True):
        number, unit = key
        machine = self.machines[number]
        self.seized = self.seized or bool(machine.record.lent)
        self.live.remove(key)
        self.asked.discard(key)
        self.killed.discard(key)
        graph = self.jobs[number].tasks[machine.record.task_of(unit)]
        if (
            kind != SUCCEEDED
            and retryable
            and unit not in machine.record.stuck
            and not graph.finally_
            and "stop" in self.notes[number].requested
            and machine.record.counted(unit) < graph.max_attempts
        ):
            self.notes[number].denied_retry = True
        if kind == SUCCEEDED:
            machine.ok(unit, ("value", unit))
        else:
            machine.ended(unit, kind, None, retryable)

    def lose(self, key):
        """The place of an attempt is gone."""
        self.live.remove(key)
        self.asked.discard(key)
        self.killed.discard(key)
        self.seized = self.seized or bool(self.machines[key[0]].record.lent)
        self.machines[key[0]].interrupted(key[1])

    def suspend(self, ends):
        """Close with a journal: nothing begins, some attempts end, the others are interrupted; then it is taken up."""
        for machine in self.machines:
            machine.suspend()
        for key in sorted(self.live):
            if key in self.live and ends():
                self.end(key, SUCCEEDED)
            elif key in self.live:
                self.lose(key)
            for machine in self.machines:
                while machine.busy:
                    machine.work(3)
            self.obey()
            assert self.dispatcher.take(8) is None, "something begins after a suspend"
        self.cut()

    def cut(self):
        """The process dies: nothing is left but the facts, and new machines go on from there."""
        facts = [facts_of(machine) for machine in self.machines]
        self.dispatcher = Dispatcher(self.limit, self.pools)
        self.machines = [
            self.make(job.graph(), number, self.dispatcher, job.answers.__getitem__)
            for number, job in enumerate(self.jobs)
        ]
        for machine, each in zip(self.machines, facts, strict=True):
            machine.out.extend(take_up(machine, each))
        for things in (self.live, self.asked, self.killed, self.due, self.taken):
            things.clear()
        self.seized = False
        for machine, each, note in zip(self.machines, facts, self.notes, strict=True):
            note.read, note.run_state = 0, each.state
            size, instances = len(self.jobs[machine.record.run_id].tasks), 0
            note.states = {}
            for unit in each.units:
                number = unit.task if unit.index is None else size + instances
                instances += unit.index is not None
                note.states[number] = unit.state

    # ---- the promises

    def check_start(self, machine, unit):
        job, task = self.jobs[machine.record.run_id], machine.record.task_of(unit)
        graph, states = job.tasks[task], machine.record.task_states
        assert (machine.record.run_id, unit) not in self.live, "two live attempts"
        assert machine.record.state in (RUN_RUNNING, RUN_STOPPING, RUN_CANCELLING)
        assert states[unit] == RUNNING
        assert 1 <= machine.record.counted(unit) <= graph.max_attempts
        requested = self.notes[machine.record.run_id].requested
        if graph.finally_:
            assert "kill" not in requested
            assert all(states[other] >= TASK_ENDED_FROM for other in self.normal(job))
        else:
            assert not {"stop", "cancel", "kill", "timeout"} & set(requested), "started after a stop"
        assert self.rule_is_met(job, task, states), "started against its rule"
        answer = job.answers.get(task, StartDecision.GO)
        assert answer is StartDecision.GO or isinstance(answer, int)

    @staticmethod
    def normal(job):
        return [index for index, task in enumerate(job.tasks) if not task.finally_]

    def above(self, job, task):
        graph = job.tasks[task]
        return self.normal(job) if graph.finally_ and not graph.upstreams else graph.upstreams

    def rule_of(self, job, task):
        graph = job.tasks[task]
        return TriggerRule.ALL_DONE if graph.finally_ and not graph.upstreams else graph.rule

    def rule_is_met(self, job, task, states):
        above = [states[other] for other in self.above(job, task)]
        done = all(state >= TASK_ENDED_FROM for state in above)
        good = [state == SUCCEEDED for state in above]
        bad = [state in FAILURE_CODES for state in above]
        return {
            TriggerRule.ALL_SUCCESS: all(good),
            TriggerRule.NONE_FAILED: done and not any(bad),
            TriggerRule.ALL_DONE: done,
            TriggerRule.ALL_FAILED: done and all(bad),
            TriggerRule.ONE_FAILED: any(bad),
            TriggerRule.ONE_SUCCESS: any(good),
        }[self.rule_of(job, task)]

    def check(self):
        self.check_places()
        for machine, note in zip(self.machines, self.notes, strict=True):
            self.check_journal(machine, note)
            self.check_run(machine, note)
            self.check_nothing_idle(machine)

    def check_places(self):
        use = Counter()
        for number, unit in [*self.live, *self.taken]:
            machine = self.machines[number]
            if unit in machine.record.lent:
                continue
            task = machine.record.task_of(unit)
            use["server"] += 1
            for pool, amount in needs_of(self.jobs[number].tasks[task]).items():
                use[pool] += amount
            if unit not in machine.record.stuck:
                use[number] += 1
                use[number, task] += 1
        if self.limit is not None:
            assert use["server"] <= self.limit or self.seized
            assert self.dispatcher.free == self.limit - use["server"]
        for pool, size in self.pools.items():
            assert self.dispatcher.pools[pool].free == size - use[pool]
        for machine, job in zip(self.machines, self.jobs, strict=True):
            number = machine.record.run_id
            assert job.max_parallel is None or use[number] <= job.max_parallel or self.seized
            waiting = sum(number == run for run, _ in self.taken)
            executing = use[number] - waiting + len(machine.record.lent)
            assert machine.record.live == (executing if not machine.record.is_over else 0)
            for task, graph in enumerate(job.tasks):
                assert graph.max_parallel is None or use[number, task] <= graph.max_parallel or self.seized
                assert graph.mapped or use[number, task] <= 1

    def check_journal(self, machine, note):
        for entry in machine.record.journal[note.read :]:
            assert note.run_state < RUN_ENDED_FROM, "something follows the end of the run"
            if entry < 0:
                move = note.run_state << STATE_BITS | ~entry
                assert move in RUN_ALLOWED
                self.moves.add(("run", move))
                note.run_state = ~entry
            else:
                unit, new = entry >> STATE_BITS, entry & 15
                move = note.states.get(unit, PENDING) << STATE_BITS | new
                assert move in TASK_ALLOWED
                self.moves.add(("task", move))
                note.states[unit] = new
        note.read = len(machine.record.journal)
        assert note.run_state == machine.record.state
        derived = bytearray(note.states.get(unit, PENDING) for unit in range(len(machine.record.task_states)))
        assert derived == machine.record.task_states

    def check_run(self, machine, note):
        for task, graph in enumerate(self.jobs[machine.record.run_id].tasks):
            if graph.mapped and machine.record.task_states[task] >= TASK_ENDED_FROM:
                self.check_mapped(machine, task)
            if machine.record.task_states[task] == SUCCEEDED:
                dropped = not graph.keeps_result and self.all_readers_ended(machine, task)
                assert (machine.record.results[task] is DROPPED) == dropped
        mine = {unit for number, unit in self.live if number == machine.record.run_id}
        assert machine.record.stuck <= mine
        assert machine.record.held <= mine - machine.record.stuck
        executing = mine - machine.record.stuck
        if machine.record.state >= RUN_ENDED_FROM:
            now = (machine.record.state, bytes(machine.record.task_states))
            note.final = note.final or now
            assert note.final == now, "a terminal state has changed"
            assert all(state >= TASK_ENDED_FROM for state in machine.record.task_states)
            assert not executing, "an attempt runs on that is not named as stuck"
            assert not machine.busy
            assert sum(state >= RUN_ENDED_FROM for state in note.run_moves) == 1
            self.check_final_state(machine, note)
        elif machine.record.state == RUN_PAUSED:
            assert executing == machine.record.held
        elif machine.record.state == RUN_PAUSING:
            assert executing != machine.record.held, "paused, but does not say so"
        else:
            assert not machine.record.held

    def all_readers_ended(self, machine, task):
        tasks = enumerate(self.jobs[machine.record.run_id].tasks)
        readers = [index for index, graph in tasks if task in graph.upstreams]
        return all(machine.record.task_states[reader] >= TASK_ENDED_FROM for reader in readers)

    def check_mapped(self, machine, task):
        """A mapped task ends after its instances, and as they did."""
        units = range(machine.record.graph.size, len(machine.record.task_states))
        states = [machine.record.task_states[unit] for unit in units if machine.record.task_of(unit) == task]
        assert all(state >= TASK_ENDED_FROM for state in states)
        if not states or machine.record.state == RUN_CRASHED:
            return
        if FAILED in states or CRASHED in states:
            expected = FAILED
        elif CANCELLED in states or len(states) < machine.record.width_of(task):
            expected = CANCELLED
        else:
            expected = SUCCEEDED
        assert machine.record.task_states[task] == expected

    def check_final_state(self, machine, note):
        job = self.jobs[machine.record.run_id]
        failed = any(
            machine.record.task_states[task] in (FAILED, CRASHED) and not graph.allow_failure
            for task, graph in enumerate(job.tasks)
        )
        asked = note.requested
        if machine.record.state == RUN_CRASHED:
            assert asked[-1:] == ["crash"]
        elif {"cancel", "kill", "timeout"} & set(asked):
            first = next(word for word in asked if word != "stop")
            assert machine.record.state == (RUN_FAILED if first == "timeout" else RUN_CANCELLED)
        elif RUN_RUNNING not in note.run_moves:
            assert machine.record.state == RUN_STOPPED
        elif "stop" in asked and (job.fail_fast or self.was_withheld(machine, note)):
            assert machine.record.state == RUN_STOPPED or job.fail_fast
        else:
            assert machine.record.state == (RUN_FAILED if failed else RUN_SUCCEEDED)

    def was_withheld(self, machine, note):
        """Whether the stop kept a task, an instance or a retry from starting."""
        cut = any(
            machine.record.width_of(task) not in (None, self.begun(machine, task))
            for task in range(machine.record.graph.size)
        )
        return cut or note.denied_retry or CANCELLED in machine.record.task_states

    @staticmethod
    def begun(machine, task):
        """Return how many instances of a mapped task have begun."""
        units = range(machine.record.graph.size, len(machine.record.task_states))
        return sum(machine.record.task_of(unit) == task for unit in units)

    def check_nothing_idle(self, machine):
        """What may start and finds places everywhere has started (work conservation)."""
        job, states = self.jobs[machine.record.run_id], machine.record.task_states
        if (
            machine.record.state != RUN_RUNNING
            or machine.busy
            or (self.limit is not None and self.dispatcher.free <= 0)
        ):
            return
        if job.fail_fast and "fail_fast" in machine.record.causes:
            return
        used = Counter(
            machine.record.task_of(unit)
            for number, unit in [*self.live, *self.taken]
            if number == machine.record.run_id
            and unit not in machine.record.stuck
            and unit not in machine.record.lent
        )
        full = job.max_parallel is not None and used.total() >= job.max_parallel
        for unit in range(len(states)):
            task = machine.record.task_of(unit)
            graph = job.tasks[task]
            limits = [
                (self.dispatcher.pools[pool], n) for pool, n in needs_of(graph).items() if pool in self.pools
            ]
            bound = graph.mapped and graph.max_parallel is not None and used[task] >= graph.max_parallel
            if (
                full
                or bound
                or any(lacks(limit, n) for limit, n in limits)
                or (machine.record.run_id, unit) in self.taken
            ):
                continue
            assert not self.could_start(machine, job, unit), (
                f"idle: unit {unit} of run {machine.record.run_id}"
            )

    def could_start(self, machine, job, unit):
        states = machine.record.task_states
        graph = job.tasks[machine.record.task_of(unit)]
        if states[unit] == UP_FOR_RETRY:
            return (machine.record.run_id, unit) not in self.due
        if unit >= len(job.tasks):
            return states[unit] == PENDING  # it was put back
        if graph.mapped and self.begun(machine, unit):
            return self.begun(machine, unit) < job.answers[unit]
        if states[unit] != PENDING or (graph.finally_ and self.left_of(job, states)):
            return False
        return self.rule_is_met(job, unit, states)

    def left_of(self, job, states):
        return any(states[other] < TASK_ENDED_FROM for other in self.normal(job))

    def expected_states(self, number):
        """Terminal states as a function of what the executed tasks came to: no order enters it."""
        job, machine = self.jobs[number], self.machines[number]
        finals = [index for index in range(len(job.tasks)) if job.tasks[index].finally_]
        expected: dict[int, int] = {}
        for task in [*self.normal(job), *finals]:
            if self.rule_is_met(job, task, expected):
                answer = job.answers.get(task, StartDecision.GO)
                if answer is StartDecision.SKIP:
                    expected[task] = SKIPPED
                elif answer is StartDecision.FAIL:
                    expected[task] = FAILED
                elif answer == 0:
                    expected[task] = SUCCEEDED
                else:
                    expected[task] = machine.record.task_states[task]
                    assert expected[task] in (SUCCEEDED, FAILED, CRASHED)
                continue
            above = [expected[other] for other in self.above(job, task)]
            bad = any(state in FAILURE_CODES for state in above)
            by_failure = self.rule_of(job, task) not in (TriggerRule.ONE_FAILED, TriggerRule.ALL_FAILED)
            expected[task] = UPSTREAM_FAILED if bad and by_failure else SKIPPED
        return bytes(expected[task] for task in range(len(job.tasks)))


class Player:
    """Plays a world at random: `data` decides what happens next."""

    def __init__(self, world, data, *, control=True, cuts=False):
        self.world, self.data, self.control, self.cuts = world, data, control, cuts

    def choose(self, options):
        return self.data.draw(st.sampled_from(options))

    def choose_machine(self, machines):
        """Choose by number, so that the same choices can be made in another world."""
        return self.world.machines[self.choose([machine.record.run_id for machine in machines])]

    def step(self):
        world = self.world
        live = sorted(world.live)
        busy = [machine for machine in world.machines if machine.busy]
        acts = ["request"] if self.control else []
        acts += ["start"] * any(machine.record.state == RUN_QUEUED for machine in world.machines)
        acts += ["end"] * 6 + ["timeout", "checkpoint", "grace"] * self.control if live else []
        acts += ["lend", "lend", "reclaim", "reclaim", "seize"] if live and self.control else []
        acts += ["due"] * bool(world.due) + ["work"] * 3 * bool(busy) + ["begin"] * 4 * bool(world.taken)
        if not acts:
            return False
        acts += ["cut", "suspend", *["lose"] * bool(live)] if self.cuts else []
        act = self.choose(acts)
        if act in ("cut", "suspend", "lose"):
            self.strike(act, live)
        elif act == "end":
            kinds = [SUCCEEDED] * 4 + [FAILED, CRASHED, CANCELLED]
            world.end(self.choose(live), self.choose(kinds), retryable=self.choose([True, True, False]))
        elif act == "begin":
            world.begin(self.choose(world.taken))
        elif act == "work":
            self.choose_machine(busy).work(self.choose([1, 2, 5]))
        elif act == "due":
            self.fire(self.choose(sorted(world.due)))
        elif act == "start":
            self.choose_machine([m for m in world.machines if m.record.state == RUN_QUEUED]).slot()
        elif act == "request":
            self.request(self.choose_machine(world.machines))
        else:
            self.disturb(act, self.choose(live))
        world.pump()
        return True

    def strike(self, act, live):
        if act == "cut":
            self.world.cut()
        elif act == "suspend":
            self.world.suspend(lambda: self.choose([True, False]))
        else:
            self.world.lose(self.choose(live))

    def fire(self, key):
        self.world.due.discard(key)
        self.world.machines[key[0]].retry_due(key[1])

    def disturb(self, act, key):
        machine, unit = self.world.machines[key[0]], key[1]
        lent = unit in machine.record.lent
        if act == "checkpoint":
            before = machine.record.state
            held = machine.checkpoint(unit) is not None
            assert held == (
                before in (RUN_PAUSING, RUN_PAUSED) and machine.record.task_states[unit] == RUNNING
            )
        elif act == "lend":
            assert machine.lend(unit) == (
                machine.record.task_states[unit] == RUNNING and unit not in machine.record.stuck and not lent
            )
            if unit in machine.record.lent:  # all the runs that it waits for are paused
                machine.checkpoint(unit)
        elif act == "reclaim":
            machine.ready.reclaim(unit)
        elif act == "seize":
            self.world.seized = self.world.seized or lent
            machine.ready.seize(unit)
        elif act == "grace":
            self.world.seized = self.world.seized or lent
            if key in self.world.asked:
                machine.grace_over(unit)
        else:
            self.world.notes[key[0]].controlled = True
            machine.attempt_timeout(unit)

    def request(self, machine):
        words = ["pause"] * 5 + ["resume"] * 6 + ["stop"] * 2 + ["cancel"] * 2
        word = self.choose([*words, "timeout", "kill", "finally_timeout", "crash"])
        note = self.world.notes[machine.record.run_id]
        if word in ("timeout", "crash", "finally_timeout"):
            if machine.record.is_over or (word == "timeout" and machine.record.state == RUN_QUEUED):
                return
            if word == "timeout" and machine.record.state == RUN_PAUSED and RUN_RUNNING not in note.run_moves:
                return
        elif machine.record.is_over or (word in ("pause", "resume") and machine.record.state >= RUN_STOPPING):
            return
        if word not in ("pause", "resume", "finally_timeout"):
            note.controlled = True
            note.requested.append(word)
        getattr(machine, word)()

    def finish(self):
        """Let everything end that can: every run must then end, and every place be free."""
        world = self.world
        for _ in range(2000):
            for machine in world.machines:
                if machine.record.state in (RUN_PAUSED, RUN_PAUSING):
                    machine.resume()
                if machine.record.state == RUN_QUEUED:
                    machine.slot()
                while machine.busy:
                    machine.work(3)
            world.pump()
            for key in sorted(world.due):
                self.fire(key)
            world.pump()
            world.begin_all()
            world.pump()
            if not world.live:
                if all(machine.record.is_over for machine in world.machines):
                    break
                continue
            kinds = [SUCCEEDED, SUCCEEDED, FAILED, CANCELLED]
            world.end(self.choose(sorted(world.live)), self.choose(kinds))
            world.pump()
        self.check_finished()

    def check_finished(self):
        world = self.world
        assert all(machine.record.is_over for machine in world.machines), world.machines
        assert not world.live
        assert not any(machine.record.stuck for machine in world.machines)
        assert world.limit is None or world.dispatcher.free == world.limit
        for pool, limit in world.dispatcher.pools.items():
            assert not limit.waiting, pool
            assert limit.free == limit.size
        assert not world.dispatcher.ready
        for machine in world.machines:
            note = world.notes[machine.record.run_id]
            if not (note.controlled or world.jobs[machine.record.run_id].fail_fast):
                size = machine.record.graph.size
                assert bytes(machine.record.task_states[:size]) == world.expected_states(
                    machine.record.run_id
                )

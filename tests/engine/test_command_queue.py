"""What the machine asks for is carried out: each kind of command, once, in order, also where one leads to another."""

from collections import deque
from types import SimpleNamespace

import pytest

from scattersphere.engine.commands import CommandQueue
from scattersphere.engine.machine import Command, CommandKind
from scattersphere.engine.machine.codes import NO_REQUEST, RUN_RUNNING
from scattersphere.model.states import RunState

UNIT = 1
"""Also the number of the state "running"."""


class Run(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Stage:
    """A queue between an executor and parts that only note what they are asked for."""

    def __init__(self):
        self.done = []
        self.wakes = 0
        note = self.note
        record = SimpleNamespace(level=NO_REQUEST, finals_phase=False)
        self.machine = SimpleNamespace(record=record, busy=False, work=lambda _: ())
        self.execution = Run(
            machine=self.machine,
            finals_timer=None,
            watchers=None,
            recording=None,
            journal=SimpleNamespace(stamp=note("stamp")),
            commands=deque(),
            obeying=False,
            elements={UNIT: "elements"},
        )
        self.host = SimpleNamespace(
            clock=lambda: 7.0,
            news={},
            pumping=False,
            requests=None,
            run_moved=note("run_moved"),
            wake=self.wake,
            guard=None,
        )
        self.attempts = SimpleNamespace(schedule_retry=note("retry"))
        self.canceller = SimpleNamespace(release=note("release"), end_attempt=note("end"))
        self.queue = CommandQueue(self.host, self.attempts, self.canceller)

    def note(self, name):
        def noted(*args, **kwargs):
            rest = [arg for arg in args if arg is not self.execution]
            self.done.append((name, *rest, *kwargs.values()))

        return noted

    def wake(self):
        self.wakes += 1

    def apply(self, *kinds):
        self.queue.apply(self.execution, [Command(kind, UNIT) for kind in kinds])


@pytest.mark.parametrize("kind", CommandKind)
def test_every_kind_of_command_is_carried_out(kind):
    stage = Stage()
    stage.apply(kind)
    seen = {
        CommandKind.RUN: stage.done[1:] == [("run_moved", RunState.RUNNING)] and UNIT == RUN_RUNNING,
        CommandKind.WORK: stage.execution in stage.queue.waiting,
        CommandKind.MAPPED: not stage.execution.elements,
        CommandKind.RETRY: stage.done[1:] == [("retry", UNIT)],
        CommandKind.RELEASE: stage.done[1:] == [("release", UNIT)],
        CommandKind.CANCEL: stage.done[1:] == [("end", UNIT, False)],
        CommandKind.KILL: stage.done[1:] == [("end", UNIT, True)],
    }
    assert seen[kind]
    assert sum(seen.values()) == 1


def test_a_signal_is_one_stamp_and_one_wake_whatever_it_asks_for():
    stage = Stage()
    stage.apply(CommandKind.RUN, CommandKind.CANCEL, CommandKind.RETRY)
    assert stage.done.count(("stamp", 7.0)) == 1
    assert stage.wakes == 1


def test_what_a_command_leads_to_comes_after_what_was_asked_for_before():
    stage = Stage()

    def end_attempt(execution, unit, *, kill):
        stage.note("end")(execution, unit, kill=kill)
        if len(stage.done) < 4:
            stage.apply(CommandKind.RELEASE)

    stage.canceller.end_attempt = end_attempt
    stage.apply(CommandKind.CANCEL, CommandKind.RETRY)
    assert [name for name, *_ in stage.done if name != "stamp"] == ["end", "retry", "release"]

"""The dearest request of every command, at its largest: a neighbour is answered meanwhile, and the work has its bounds.

Not by the clock, which tells of the machine: the size of what is rendered, the steps of suggestions and the number of
objects that are looked at are counted. `python -m benchmarks.load` measures the times.
"""

import json
import threading
from collections import Counter

import anyio
import cronsim
import pytest
from wire import job, served

from scattersphere import _text
from scattersphere.commands import views
from scattersphere.commands.limits import Limits
from scattersphere.commands.table import COMMANDS
from scattersphere.definitions import load as codec_load
from scattersphere.engine import planning
from scattersphere.engine import run as runs
from scattersphere.remote import connection, render, requests, session
from scattersphere.schedules.backfill import SLICE

pytestmark = pytest.mark.anyio

TASKS = 3_000
LONG = "look_alike_" * 9
WIDE = [{f"{number:x}": ""} for number in range(3_000)]


def big(name, *, wrong=False):
    tasks = {f"{LONG}{number:05d}": {"task": "Say"} for number in range(TASKS)}
    if wrong:
        for name_, task in list(tasks.items())[:200]:
            task["depends_on"] = [name_[1:]]
    return {"format": 1, "name": name, "tasks": tasks}


def rare():
    """A job with as many schedules as it may have, each of which fires every eleven years."""
    rarest = ("0 0 * 2 1#5", "*/10 * * 2 1#5")
    schedules = {f"s{number}": {"cron": rarest[number % 2], "zone": "Europe/Berlin"} for number in range(100)}
    return job("rare") | {"format": 2, "schedules": schedules}


ODD = LONG[1:] + "x"
START = "0001-01-01T00:00:00Z"
DEAREST = {
    "hello": {"protocol": 2},
    "ping": {},
    "help": {"command": ODD},
    "whoami": {},
    "commands": {},
    "schema": {},
    "output": {"format": "json"},
    "bundles": {"name": ODD},
    "tasks": {"bundle": ODD},
    "task": {"path": ODD},
    "register": {"file": "absent.py"},
    "deregister": {"name": ODD},
    "reload": {"name": ODD},
    "jobs": {},
    "job": {"name": "big"},
    "define": {"definition": big("wrong", wrong=True)},
    "validate": {"definition": big("wrong", wrong=True)},
    "undefine": {"job": ODD},
    "save": {"job": ODD},
    "load": {"job": ODD},
    "start": {"job": ODD, "params": {"data": WIDE}},
    "run": {"job": ODD},
    "start-task": {"task": ODD},
    "run-task": {"task": ODD},
    "runs": {"limit": 1_000},
    "status": {"run": 1},
    "result": {"run": 1, "task": ODD},
    "explain": {"run": 1},
    "pause": {"run": 1},
    "resume": {"run": 1},
    "stop": {"run": 1, "reason": "x" * 4_000},
    "cancel": {"run": 1, "reason": "\n" * 4_000},
    "kill": {"run": 1},
    "rerun": {"run": 99},
    "wait": {"run": 1, "timeout": 3_600},
    "logs": {"run": 1, "tail": 10_000},
    "follow": {"run": 1, "since": 0, "kinds": ["log"]},
    "unfollow": {"subscription": 1},
    "schedules": {"job": "rare"},
    "next": {"job": "rare", "schedule": "s1", "count": 100},
    "pause-schedule": {"job": "rare", "schedule": "s1"},
    "resume-schedule": {"job": "rare", "schedule": "s1"},
    "run-schedule": {"job": ODD, "schedule": ODD},
    "backfill": {
        "job": "rare",
        "schedule": "s0",
        "since": START,
        "until": "2026-01-01T00:00:00Z",
        "dry_run": True,
    },
    "stats": {},
    "sessions": {},
    "drop": {"role": "viewer"},
}
ELSEWHERE = {"auth", "quit", "shutdown"}
"""They take a word or nothing, and end something."""


def test_every_command_is_in_the_catalogue():
    assert DEAREST.keys() | ELSEWHERE == COMMANDS.keys()


async def test_the_dearest_requests_leave_their_neighbour_its_turns(tmp_path, monkeypatch):
    steps, looked, rendered = [0], [0], [0]
    real = _text.Suggester.nearest

    def nearest(self, word):
        before = self._budget.left
        found = real(self, word)
        steps[0] += before - self._budget.left
        return found

    monkeypatch.setattr(_text.Suggester, "nearest", nearest)
    status = runs.Tasks.__getitem__
    monkeypatch.setattr(
        runs.Tasks,
        "__getitem__",
        lambda self, name: looked.__setitem__(0, looked[0] + 1) or status(self, name),
    )
    cell = render._cell
    monkeypatch.setattr(
        render, "_cell", lambda *args, **more: rendered.__setitem__(0, rendered[0] + 1) or cell(*args, **more)
    )
    (tmp_path / "jobs").mkdir(mode=0o755)
    served_ = served(tmp_path, job_folder=tmp_path / "jobs")
    async with served_ as front, front.client() as client, front.client() as neighbour:
        sent = 1  # `auth`
        for definition in (big("big"), job("hi"), rare()):
            sent += 1
            await client.ok(json.dumps({"cmd": "define", "args": {"definition": definition}}))
        await (await front.server.start("big")).wait()
        for output in ("json", "table"):
            for name, args in ({"output": {"format": output}} | DEAREST).items():
                if name == "drop" or (output == "table" and name in {"follow", "unfollow"}):
                    continue
                steps[0] = looked[0] = rendered[0] = 0
                sent += 1
                args_ = {"format": output} if name == "output" else args
                async with anyio.create_task_group() as group:
                    group.start_soon(client.send, json.dumps({"cmd": name, "args": args_}))
                    assert await neighbour.ok("ping") == {"pong": True}
                heads = (f"-- {sent}".encode(), f'{{"n":{sent},'.encode())
                while not (await client.line()).startswith(heads):
                    pass
                assert steps[0] <= 3 * (_text.STEPS + len(LONG)), name
                assert looked[0] <= views.SHOWN_TASKS, name
                assert rendered[0] <= render.CELLS + 50_000, name


async def test_a_definition_is_judged_off_the_loop_if_it_takes_long(tmp_path, monkeypatch):
    """Ten megabytes take seconds; fifty kilobytes in which each field is unknown held the loop for 200 ms."""
    loop, seen = threading.get_ident(), []
    for module, name in (
        (requests, "_find_definition"),
        (codec_load, "read"),
        (planning, "code_problems"),
    ):
        real = getattr(module, name)

        def watched(*args, name=name, real=real, **more):
            if len(args[0] if isinstance(args[0], str) else "x" * session.LONG * 2) > session.LONG:
                seen.append((name, threading.get_ident() == loop))
            return real(*args, **more)

        monkeypatch.setattr(module, name, watched)
    async with served(tmp_path) as front, front.client() as client, front.client() as neighbour:
        request = {"cmd": "define", "args": {"definition": big("big") | {"description": "x" * session.LONG}}}
        async with anyio.create_task_group() as group:
            group.start_soon(client.send, json.dumps(request))
            assert await neighbour.ok("ping") == {"pong": True}
        assert json.loads(await client.line())["result"]["job"] == "big"
        wrong = {"format": 1, "name": "wrong", "tasks": {f"t{n}": {"tsk": "Say"} for n in range(400)}}
        for command in ("define", "validate"):
            await client.ask(json.dumps({"cmd": command, "args": {"definition": wrong}}))
    assert {name for name, _ in seen} >= {"_find_definition", "read"}
    assert not any(on_loop for _, on_loop in seen)


async def test_the_times_of_rare_schedules_are_looked_for_in_slices_or_off_the_loop(tmp_path, monkeypatch):
    """Each takes a millisecond or two: `define` of a hundred held the loop for 400 ms, `next` for 120, `backfill` for 500.

    What counts is how often the calendar is gone through in one turn, for whatever reason.
    """
    loop, turn, sought = threading.get_ident(), [0], Counter()
    real = cronsim.CronSim.__next__

    def next_(self):
        if threading.get_ident() == loop:
            sought[turn[0]] += 1
        return real(self)

    monkeypatch.setattr(cronsim.CronSim, "__next__", next_)

    async def count_turns():
        while True:
            turn[0] += 1
            await anyio.lowlevel.checkpoint()

    async with served(tmp_path) as front, front.client() as client, anyio.create_task_group() as group:
        group.start_soon(count_turns)
        requests_ = [("define", {"definition": rare()}), ("validate", {"definition": rare()})]
        requests_ += [(name, DEAREST[name]) for name in COMMANDS if COMMANDS[name].group == "schedules"]
        for name, args in requests_:
            sought.clear()
            reply = await client.ask(json.dumps({"cmd": name, "args": args}))
            assert "result" in reply or name == "run-schedule", reply
            assert max(sought.values(), default=0) <= 2 * SLICE, name
        group.cancel_scope.cancel()
    assert len(reply["result"]["times"]) > 50


@pytest.mark.parametrize("asked", ["result 1", "schema", "no-such-command", "auth again"])
async def test_many_requests_that_come_at_once_let_others_have_their_turns(tmp_path, monkeypatch, asked):
    """A hundred dear ones in one piece of input held the loop for 300 ms: the sum of what each may take."""
    turn, made = [0], Counter()
    monkeypatch.setattr(connection, "TURN_TIME", 0.0)
    real = session.Session._reply

    def reply(self, *args):
        made[turn[0]] += 1
        return real(self, *args)

    async def count_turns():
        while True:
            turn[0] += 1
            await anyio.lowlevel.checkpoint()

    limits = Limits(rate=1_000, burst=1_000)
    async with served(tmp_path, limits=limits) as front, front.client() as client:
        await client.ok(json.dumps({"cmd": "define", "args": {"definition": job("hi")}}))
        await (await front.server.start("hi")).wait()
        monkeypatch.setattr(session.Session, "_reply", reply)
        async with anyio.create_task_group() as group:
            group.start_soon(count_turns)
            await client.send("\n".join([asked] * 100))
            for _ in range(100):
                await client.line()
            group.cancel_scope.cancel()
    assert made.total() == 100
    assert max(made.values()) <= 2 * connection.ANSWERS
    if asked == "result 1":
        assert max(made.values()) <= 2  # on trio the counter may stand still for one step

"""Who may begin a call: the judge in the Dask scheduler, without a cluster. And what is said where something lacks."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from patience import PATIENCE

pytest.importorskip("distributed")

import dask.config

from scattersphere.abc import Outcome, OutcomeKind
from scattersphere.errors import MissingExtraError
from scattersphere.ext.dask import DaskBackend, lease, messages
from scattersphere.ext.dask import scheduler as scheduler_module
from scattersphere.ext.dask.messages import HEAR, WIRE, Signal, Terms, client_of, key_of
from scattersphere.ext.dask.scheduler import SchedulerSide
from scattersphere.ext.dask.site import Site
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Echo

CLIENT = "Client-engine-1"
KEY = key_of("etl/load", CLIENT, 7)


class Scheduler:
    """As much of Dask's as the judge asks for."""

    def __init__(self):
        self.handlers, self.stream_handlers = {}, {}
        self.tasks, self.clients, self.workers = {}, {CLIENT: object()}, {}
        self.total_nthreads = 2
        self.heard, self.told, self.released = [], [], []

    def worker_send(self, worker, message):
        assert message["op"] == HEAR
        self.heard += [(worker, key, Signal(word)) for key, word, _ in message["frames"]]

    def client_send(self, client, message):
        self.told += [(key, Signal(word)) for key, word, _ in message["event"][1]]

    def client_releases_keys(self, keys, client):
        self.released += keys
        for key in keys:
            del self.tasks[key]


@pytest.fixture
async def side():
    made = SchedulerSide()
    made.dask = Scheduler()
    await made.start(made.dask)
    return made


pytestmark = pytest.mark.anyio


def place(side, worker, start="waiting"):
    """Dask gives the call to a worker."""
    side.dask.tasks[KEY] = SimpleNamespace(
        key=KEY, state="processing", processing_on=SimpleNamespace(address=worker), who_wants={CLIENT}
    )
    side.dask.workers.setdefault(worker, SimpleNamespace(processing=[])).processing.append(
        side.dask.tasks[KEY]
    )
    side.transition(KEY, start, "processing")


def welcome(side, worker):
    side.say(worker, [("", int(Signal.HELLO), b"")])


async def test_a_call_that_nobody_has_is_withdrawn(side):
    side.dask.tasks[KEY] = SimpleNamespace(state="queued", who_wants={CLIENT})
    side.ask(CLIENT, KEY, Signal.CANCEL)
    assert side.dask.released == [KEY]
    assert side.dask.told == [(KEY, Signal.WITHDRAWN)]


async def test_a_worker_is_asked_whether_a_call_has_begun(side):
    welcome(side, "w1")
    place(side, "w1")
    side.ask(CLIENT, KEY, Signal.KILL)
    assert side.dask.heard[-1] == ("w1", KEY, Signal.KILL)
    assert not side.dask.told
    side.say("w1", [(KEY, int(Signal.UNBEGUN), b"")])
    assert side.dask.told == [(KEY, Signal.WITHDRAWN)]


async def test_a_call_that_was_stolen_meanwhile_is_ended_where_it_is_now(side):
    for worker in ("w1", "w2"):
        welcome(side, worker)
    place(side, "w1")
    side.ask(CLIENT, KEY, Signal.CANCEL)
    side.dask.tasks[KEY].processing_on.address = "w2"
    side.say("w1", [(KEY, int(Signal.UNBEGUN), b"")])
    assert side.dask.heard[-1] == ("w2", KEY, Signal.CANCEL)
    assert not side.dask.told


async def test_a_call_is_given_to_one_worker_only(side):
    for worker in ("w1", "w2"):
        welcome(side, worker)
    place(side, "w1")
    side.transition(KEY, "processing", "released")
    assert side.dask.told == [(KEY, Signal.LOST)]
    place(side, "w2")
    assert side.dask.heard[-1] == ("w2", KEY, Signal.BAN)


async def test_what_the_engine_lets_go_of_is_not_lost(side):
    place(side, "w1")
    side.dask.tasks[KEY].who_wants = set()
    side.transition(KEY, "processing", "released")
    assert not side.dask.told


async def test_a_worker_that_comes_later_hears_what_was_said_before(side):
    side.dask.tasks[KEY] = SimpleNamespace(state="queued", who_wants={CLIENT})
    side.ask(CLIENT, KEY, Signal.HOLD)
    place(side, "w1")
    assert not side.dask.heard
    sent = []
    side.dask.worker_send = lambda worker, message: sent.extend(message["frames"])
    welcome(side, "w1")
    ((_, word, payload),) = sent
    assert word == Signal.WELCOME
    assert pickle.loads(payload) == {KEY: Signal.HOLD}


async def test_an_engine_that_leaves_takes_all_that_it_has_with_it(side):
    await side.greet(CLIENT)
    side.dask.workers["w1"] = SimpleNamespace(processing=[])
    welcome(side, "w1")
    side.remove_client(side.dask, CLIENT)
    assert side.dask.heard[-1] == ("w1", CLIENT, Signal.LEAVE)
    assert CLIENT not in side._watching


OTHER = "Client-engine-2"


@pytest.fixture
async def taken(side):
    """An engine has a call in a worker, another one in Dask's queue, and vanishes; another engine takes its journal."""
    await side.greet(CLIENT)
    assert await side.take_over(CLIENT, "journal", "first")
    side.dask.clients[OTHER] = object()
    await side.greet(OTHER)
    side.dask.workers["w1"] = SimpleNamespace(processing=[])
    welcome(side, "w1")
    place(side, "w1")
    side.queued = key_of("etl/load", CLIENT, 8)
    side.dask.tasks[side.queued] = SimpleNamespace(key=side.queued, state="queued", who_wants={CLIENT})
    side.taking = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_over, side)
        with anyio.fail_after(PATIENCE):
            while ("w1", CLIENT, Signal.LEAVE) not in side.dask.heard:
                await anyio.lowlevel.checkpoint()
        yield side
        tasks.cancel_scope.cancel()


async def take_over(side):
    side.taking.append(await side.take_over(OTHER, "journal", "second"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_journal_is_taken_over_when_what_was_begun_with_it_has_ended(taken):
    assert ("w1", CLIENT, Signal.LEAVE) in taken.dask.heard
    assert not taken.taking
    taken.say("w1", [(CLIENT, int(Signal.LEFT), b"")])
    with anyio.fail_after(PATIENCE):
        while not taken.taking:
            await anyio.lowlevel.checkpoint()
    assert taken.taking == [True]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_an_engine_that_was_superseded_has_sent_begins_nowhere(taken):
    new = key_of("etl/load", CLIENT, 9)  # it comes only now: the line was cut, and is no more
    for key in (taken.queued, new):
        taken.dask.tasks[key] = SimpleNamespace(
            key=key, state="processing", processing_on=SimpleNamespace(address="w1"), who_wants={CLIENT}
        )
        taken.transition(key, "waiting", "processing")
        assert taken.dask.heard[-1] == ("w1", key, Signal.BAN)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_engine_that_was_superseded_is_refused(taken):
    assert not await taken.take_over(CLIENT, "journal", "first")
    taken.say("w1", [(CLIENT, int(Signal.LEFT), b"")])
    assert await taken.take_over(CLIENT, "another journal", "third")


async def test_an_engine_comes_again_with_another_client_and_beside_one_of_its_own(side):
    for client in (CLIENT, OTHER):
        await side.greet(client)
        assert await side.take_over(client, "journal", "first")
    assert not side._leaving
    assert not side._expelled


async def test_one_that_has_left_in_order_is_not_waited_for(side):
    await side.greet(CLIENT)
    assert await side.take_over(CLIENT, "journal", "first")
    side.ask(CLIENT, "", Signal.LEAVE)
    assert await side.take_over(CLIENT, "journal", "second")
    assert not side._expelled


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_clients_of_engines_that_were_superseded_are_known_while_they_are_there(taken):
    assert taken._expelled == {CLIENT}
    del taken.dask.clients[CLIENT]
    taken.remove_client(taken.dask, CLIENT)
    assert not taken._expelled


async def test_one_that_dask_has_let_go_of_is_not_expelled_when_its_journal_is_taken_over(side):
    await side.greet(CLIENT)
    assert await side.take_over(CLIENT, "journal", "first")
    del side.dask.clients[CLIENT]
    side.remove_client(side.dask, CLIENT)
    assert await side.take_over(OTHER, "journal", "second")
    assert not side._expelled
    assert not await side.take_over(CLIENT, "journal", "first")


async def test_only_so_many_journals_and_engines_are_remembered(side, monkeypatch):
    monkeypatch.setattr(scheduler_module, "REMEMBERED", 3)
    for number in range(8):
        assert await side.take_over(CLIENT, f"journal {number}", f"first {number}")
        assert await side.take_over(CLIENT, f"journal {number}", f"second {number}")
    assert list(side._superseded) == ["first 5", "first 6", "first 7"]
    assert list(side._owners) == ["journal 5", "journal 6", "journal 7"]


async def test_the_scheduler_knows_how_long_a_value_is_that_stays(side):
    welcome(side, "w1")
    place(side, "w1")
    sizes = []
    side.dask.tasks[KEY].set_nbytes = sizes.append
    side.say("w1", [(KEY, int(Signal.STAYS), pickle.dumps(("builtins.bytes", 7_000_000)))])
    side.transition(KEY, "processing", "memory")
    side.transition(KEY, "memory", "memory")
    assert sizes == [7_000_000]


class Alone(DaskBackend):
    """A backend that has no scheduler."""

    async def open(self, host):
        self._host, self._io = host, asyncio.get_running_loop()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("end", ["cancel", "kill"])
async def test_what_waits_for_a_scheduler_ends_when_it_is_asked_to(end):
    async with Stage(lambda: Alone("tcp://nowhere:1")) as stage:
        call = stage.start(Echo)
        getattr(call.handle, end)()
        assert (await call.outcome()).kind is OutcomeKind.CANCELLED


class AtOnce(Alone):
    """A backend whose Dask thread is faster than that of the host's loop; it notes what Dask is given."""

    def __init__(self):
        super().__init__("tcp://nowhere:1")
        self._client, self._owns, self.given = SimpleNamespace(id="c"), True, []

    async def open(self, host):
        self._host, self._io = host, SimpleNamespace(call_soon_threadsafe=lambda call, *args: call(*args))

    async def aclose(self):
        pass

    def _give(self, client, handles, ahead=None):
        self.given.append(len(handles))
        for handle in handles:
            handle.end(Outcome(OutcomeKind.VALUE, None))


async def test_calls_that_start_in_one_turn_of_the_loop_are_handed_to_dask_at_once():
    backend = AtOnce()
    async with Stage(lambda: backend) as stage:
        for call in [stage.start(Echo, value=number) for number in range(5)]:
            await call.outcome()
    assert backend.given == [5]


class Forgetful(Alone):
    """A backend whose scheduler fails when it is asked whose the journal is, and then says that it is another's."""

    def __init__(self):
        super().__init__("tcp://nowhere:1")
        self._client = SimpleNamespace(id="c", scheduler=self)
        self.asked = 0

    async def scattersphere_take_over(self, **_):
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError("an odd scheduler")
        return False


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_scheduler_that_does_not_say_whose_the_journal_is_is_named_and_asked_again(caplog):
    backend = Forgetful()
    async with Stage(lambda: backend) as stage:
        backend._host = SimpleNamespace(
            journal="j", instance="i", soon=stage.soon, limit_changed=lambda *_: None
        )
        call = stage.start(Echo)
        with anyio.fail_after(PATIENCE):
            while backend.asked < 2:
                await anyio.lowlevel.checkpoint()
        call.handle.cancel()
        assert (await call.outcome()).kind is OutcomeKind.CANCELLED
    assert "tcp://nowhere:1 did not say whether the runs" in caplog.text
    assert "an odd scheduler" in caplog.text
    assert "another Server has taken over the journal" in caplog.text


def test_the_key_of_a_call_names_its_client() -> None:
    assert client_of(KEY) == CLIENT
    assert KEY.startswith("etl/load")
    for other in ("sum-0f1b", ("x", 1), 7, "a--b"):
        assert not client_of(other)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ((WIRE, (3, 9), "1.0"), "runs Python 3.9 and the engine Python 3.11"),
        ((WIRE, (3, 11), "0.9"), "has scattersphere 0.9 and the engine 1.0,"),
        ((WIRE + 1, (3, 11), "1.0"), "install the same there"),
        ((WIRE, [3, 11], "1.0"), ""),
    ],
)
def test_what_differs_is_said_in_words(there, words) -> None:
    said = Terms(WIRE, (3, 11), "1.0").unlike(there, "the Dask worker w1")
    assert words in said
    assert bool(said) == bool(words)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("scattersphere.ext.dask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install distributed \(the extra dask\)"):
        from scattersphere.ext.dask import DaskBackend  # noqa: F401


@pytest.fixture
def worker_of_a_lease(monkeypatch):
    """A worker that is only cut off, and a clock; both are the test's."""
    looked = anyio.Event()

    async def until_looked_at():
        with anyio.fail_after(PATIENCE):
            await looked.wait()

    made = SimpleNamespace(now=100.0, ended=False, until_looked_at=until_looked_at)

    async def refuses(address):
        assert address == "w1"
        await anyio.lowlevel.checkpoint()
        looked.set()
        return made.ended

    monkeypatch.setattr(lease, "LOOK", 0.0)
    monkeypatch.setattr(lease, "clock", lambda: made.now)
    monkeypatch.setattr(lease, "refuses", refuses)
    return made


async def told(side, what):
    with anyio.fail_after(PATIENCE):
        while what not in side.dask.told:
            await anyio.lowlevel.checkpoint()


def cut_off(side):
    """Dask lets go of a worker that executes a call and has a lease of ten seconds."""
    welcome(side, "w1")
    place(side, "w1")
    side.say("w1", [("", int(Signal.PULSE), pickle.dumps((10.0, 0.0)))])
    del side.dask.workers["w1"]
    side.transition(KEY, "processing", "released")
    side.remove_worker(side.dask, "w1")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("end", ["its lease is up", "its port is closed"])
async def test_a_call_is_lost_when_it_has_certainly_ended_and_not_before(side, worker_of_a_lease, end):
    cut_off(side)
    await worker_of_a_lease.until_looked_at()
    side.ask(CLIENT, KEY, Signal.KILL)  # who asks meanwhile is told the same, and nothing else
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert not side.dask.told
    if end == "its lease is up":
        worker_of_a_lease.now += 10.0 + lease.MARGIN
    else:
        worker_of_a_lease.ended = True
    await told(side, (KEY, Signal.LOST))
    assert side.dask.told == [(KEY, Signal.LOST)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_dask_has_moved_is_lost_no_sooner(side, worker_of_a_lease):
    welcome(side, "w2")
    place(side, "w2")
    welcome(side, "w1")
    side.dask.workers["w1"] = SimpleNamespace(processing=[])
    side.say("w1", [("", int(Signal.PULSE), pickle.dumps((10.0, 0.0)))])
    side.dask.tasks[KEY].processing_on.address = "w1"  # without a transition
    del side.dask.workers["w1"]
    side.transition(KEY, "processing", "released")
    await worker_of_a_lease.until_looked_at()
    assert not side.dask.told
    worker_of_a_lease.ended = True
    await told(side, (KEY, Signal.LOST))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_says_nothing_keeps_an_engine_out_no_longer_than_its_lease(
    side, worker_of_a_lease, monkeypatch
):
    monkeypatch.setattr(lease, "LOOK", 0.001)
    await side.greet(CLIENT)
    side.dask.workers["w2"] = SimpleNamespace(processing=[])
    welcome(side, "w2")
    side.say("w2", [("", int(Signal.PULSE), pickle.dumps((10.0, 0.0)))])
    side.remove_client(side.dask, CLIENT)
    worker_of_a_lease.now += 10.0 + lease.MARGIN
    with anyio.fail_after(PATIENCE):
        await side.greet("another")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_engine_is_greeted_when_nothing_executes_of_those_that_have_gone(side, worker_of_a_lease):
    await side.greet(CLIENT)
    side.dask.workers["w2"] = SimpleNamespace(processing=[])
    welcome(side, "w2")
    cut_off(side)
    greeted = []

    async def greet():
        greeted.append(await side.greet("another", formerly=CLIENT))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(greet)
        await worker_of_a_lease.until_looked_at()
        assert not greeted
        side.say("w2", [(CLIENT, int(Signal.LEFT), b"")])
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert not greeted
        worker_of_a_lease.ended = True
    assert greeted


@pytest.mark.parametrize(("written", "seconds"), [("20s", 20.0), ("500ms", 0.5), (7, 7.0), ("7", 7.0)])
def test_a_lease_is_written_as_the_other_times_of_dask(written, seconds) -> None:
    with dask.config.set({"scattersphere.lease": written}):
        assert lease.seconds() == seconds


def site_of(call_soon):
    """Return what is ours in a Dask worker whose loop is woken by that, and what it has told the scheduler."""
    told = []

    def send(message):
        told.extend((key, Signal(word)) for key, word, _ in message["frames"])

    loop = SimpleNamespace(asyncio_loop=SimpleNamespace(call_soon_threadsafe=call_soon))
    return Site(SimpleNamespace(address="w1", loop=loop, batched_send=send)), told


def test_what_a_call_says_at_its_end_goes_with_what_dask_says_of_it() -> None:
    """The loop of the Dask worker is woken once for both, and the engine hears ours first."""
    woken = []
    site, told = site_of(woken.append)
    site.say(KEY, Signal.VALUE, b"", at_once=False)
    assert not told
    site.transition(KEY, "executing", "memory")
    assert told == [(KEY, Signal.VALUE)]
    assert not woken
    site.transition(KEY, "memory", "released")
    assert len(told) == 1


def test_the_release_is_read_once_and_not_for_each_call(monkeypatch) -> None:
    Terms.here.cache_clear()
    read = []
    monkeypatch.setattr(messages, "version", lambda name: read.append(name) or "7")
    try:
        assert {Terms.here().library for _ in range(3)} == {"7"}
    finally:
        Terms.here.cache_clear()
    assert read == ["scattersphere"]


def test_an_engine_that_leaves_a_worker_has_lost_its_calls_and_no_attempt() -> None:
    """A client that finds its scheduler again keeps its id, and hears how its calls have ended."""
    said = threading.Event()
    site, told = site_of(lambda send: (send(), said.set()))
    lost = []
    site._calls[KEY] = SimpleNamespace(lose=lost.append)
    site.hear([(CLIENT, int(Signal.LEAVE), b"")])
    assert lost == ["was left by its engine"]
    assert not told  # not before the call has ended
    with site._changed:
        del site._calls[KEY]
        site._changed.notify_all()
    assert said.wait(PATIENCE)
    assert told == [(CLIENT, Signal.LEFT)]

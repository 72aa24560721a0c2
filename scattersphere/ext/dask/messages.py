"""What the three parties say to each other about a call: the engine, the Dask scheduler, and a Dask worker.

All of it travels on the streams that Dask holds open anyhow, engine to scheduler to worker and back. So it arrives in
order, and in order with what Dask says about its tasks; nobody needs an address that only another one can reach.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

WIRE = 4
"""Changes with the meaning of anything here."""

NAME = f"scattersphere-{WIRE}"
"""Of our plugins."""
NEWS = "scattersphere"
"""The topic of events under which the scheduler tells an engine."""
ASK = "scattersphere-ask"
"""The operation by which an engine tells the scheduler."""
SAY = "scattersphere-say"
"""The operation by which a worker tells the scheduler."""
HEAR = "scattersphere-hear"
"""The operation by which the scheduler tells a worker."""

SHORT = 64 * 1024
"""Bytes of a result that travels with the news; a longer one stays with Dask until the engine fetches it."""


WINDOW = 1000
"""Lines and reports of one call that may be on their way; then its body waits until the engine has taken half."""


class Signal(IntEnum):
    """What is said about a call. The comment tells what comes with it."""

    # engine -> worker
    CANCEL = 1
    """Nothing. Also a call that has not begun ends by it."""
    KILL = 2
    """Nothing. The same."""
    HOLD = 3
    """Nothing. Its run is being paused: it may not begin, and its checkpoints are to be asked about."""
    GO = 4
    """Nothing. They need not be asked about any more."""
    WHERE = 5
    """Nothing."""
    ANSWER = 6
    """A pickle: the answer to MAY_BEGIN, CHECK, RESULTS, LACKS."""
    TAKEN = 8
    """Nothing: half a `WINDOW` of lines and reports."""
    LEAVE = 7
    """Nothing, and no call: the engine will send no more."""
    # worker -> engine
    BEGUN = 20
    """Words: the process, and where it is."""
    MAY_BEGIN = 21
    """The same. It is held; the answer comes when it may begin, or must end."""
    LOG = 22
    """A pickle: call number, level, message, logger, seconds ago."""
    PROGRESS = 23
    """A pickle: call number, done, total, message."""
    HERE = 24
    """Words: the line that is being executed."""
    CHECK = 25
    """Nothing. It is held; the answer comes when it may go on, or must end."""
    RESULTS = 26
    """Nothing. Please send the results of the upstream tasks."""
    LACKS = 27
    """A pickle: the names of versions. Please send them."""
    STAYS = 34
    """A pickle: name of its class, and size. The value is the result of the Dask task, and stays there."""
    HELD = 33
    """A pickle: call number. All of the body is held, by what it has registered with `on_pause`."""
    VALUE = 28
    """A pickle: what the body returned."""
    STORED = 29
    """Nothing: such a pickle, which is the result of the Dask task."""
    FAILURE = 30
    """A pickled `RemoteFailure`."""
    CANCELLED = 31
    """Nothing."""
    DIED = 32
    """Words: how its process ended."""
    # between scheduler and worker, or scheduler and engine
    HELLO = 38
    """From a worker: nothing. From now on it understands what is said to it."""
    WELCOME = 39
    """To a worker, in answer: a pickle, the notes on the calls that it was given before."""
    PULSE = 46
    """From a worker: a pickle, the seconds of its lease and its own clock. In answer, to a worker: the same pickle."""
    LEFT = 47
    """From a worker, with a client in the place of a call: nothing that this engine had there executes any more."""
    BAN = 40
    """To a worker: nothing. That call may not begin there, ever."""
    UNBEGUN = 41
    """From a worker: nothing. A call that is to end has not begun there, and will not."""
    WITHDRAWN = 42
    """To an engine: nothing. The call did not begin anywhere, and will not."""
    LOST = 43
    """To an engine: words. Its worker is gone."""
    ERRED = 44
    """To an engine: nothing. Dask could not execute its task; the future says why."""
    THREADS = 45
    """To an engine: their number, in all workers of the cluster."""


Frame = tuple[str, int, bytes]
"""The key of a call, a word, and what comes with it."""

_MARK = "--scattersphere--"


def key_of(label: str, client: str, number: int) -> str:
    """Make the key of a call's Dask task; its beginning is what Dask's dashboard shows."""
    return f"{label}{_MARK}{client}-{number}"


def client_of(key: object) -> str:
    """Return the id of the client whose call has that key; "" if it is no call of ours."""
    if not isinstance(key, str):
        return ""
    _, mark, rest = key.rpartition(_MARK)
    return rest.rpartition("-")[0] if mark else ""


class Terms(NamedTuple):
    """What both sides must have in common."""

    wire: int
    python: tuple[int, int]
    library: str

    @staticmethod
    @cache
    def here() -> Terms:
        """Return those of this process; read once, for that takes as long as half of a call."""
        try:
            library = version("scattersphere")
        except PackageNotFoundError:  # not installed, but on the path
            library = "?"
        return Terms(WIRE, sys.version_info[:2], library)

    def unlike(self, there: tuple[int, tuple[int, int], str], who: str) -> str:
        """Return in words how the versions of `who` differ from these, and what to install; "" where they are alike."""
        wire, python, library = there
        if tuple(python) != self.python:
            shown, here = (".".join(map(str, each)) for each in (python, self.python))
            return (
                f"{who} runs Python {shown} and the engine Python {here}: code and values can be exchanged only "
                f"between equal ones; start it with Python {here}"
            )
        if library != self.library or wire != self.wire:
            return (
                f"{who} has scattersphere {library} and the engine {self.library}, "
                f"of protocols {wire} and {self.wire}: install the same there (scattersphere[dask]=={self.library})"
            )
        return ""


class Fence(NamedTuple):
    """What an engine must know before it takes calls for ended that it cannot ask about any more."""

    scheduler: str
    """The one that it has met: if it meets the same again, that one knows."""
    seconds: float
    """After which they have certainly ended, if it meets another one, or none."""
    lease: float
    """The same where it is known that the scheduler has ended: the longest lease of a worker."""


class CallOrder(NamedTuple):
    """A call, as it comes to a Dask worker."""

    terms: Terms
    key: str
    number: int
    name: str
    code: tuple[tuple[str, str], ...]
    """The versions whose code it may need: private name and digest."""
    keep: int
    """Bytes from which on its result stays on the cluster; 0: it does not."""
    held: bool
    """Whether its run is being paused: the engine is to be asked before it begins."""
    message: bytes
    """A packed `CallMessage`; empty where it comes beside, because it is large."""

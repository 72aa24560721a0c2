"""Testing tools for what is built on Scattersphere: rehearsals, fakes, clocks, checks of contracts.

`Rehearsal` is a real Server for one test, with fakes and injected failures; the pytest fixture `scattersphere` is
one. `VirtualTimeLoop` is an asyncio loop on which waiting takes no time. `scattersphere.testing.backends` holds
the contract of a backend as checks that any backend can be put through, `scattersphere.testing.journals` that of a
journal. `MemoryJournal` is a journal whose commits, failures and crashes are the test's own.
"""

from scattersphere.testing.clocks import VirtualTimeLoop
from scattersphere.testing.fakes import Fake, FakeError
from scattersphere.testing.injections import InjectedError
from scattersphere.testing.memory_journal import MemoryJournal
from scattersphere.testing.rehearsal import Rehearsal, RehearsalError

__all__ = [
    "Fake",
    "FakeError",
    "InjectedError",
    "MemoryJournal",
    "Rehearsal",
    "RehearsalError",
    "VirtualTimeLoop",
]

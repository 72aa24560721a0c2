"""What plugs in: protocols for backends, triggers, journals and contexts, and the values that they exchange.

An implementation needs nothing else of Scattersphere; `scattersphere.testing` holds the checks that it must pass.
"""

from scattersphere.abc.around import Around, AttemptInfo, Carried, CarryingAround
from scattersphere.abc.backend import (
    Backend,
    BackendHost,
    BackendTraits,
    Call,
    Handle,
    Outcome,
    OutcomeKind,
)
from scattersphere.abc.journal import Journal, JournalHost, JournalState
from scattersphere.abc.ports import BundleAdopter, BundleContent, RemoteValue, Trigger

__all__ = [
    "Around",
    "AttemptInfo",
    "Backend",
    "BackendHost",
    "BackendTraits",
    "BundleAdopter",
    "BundleContent",
    "Call",
    "Carried",
    "CarryingAround",
    "Handle",
    "Journal",
    "JournalHost",
    "JournalState",
    "Outcome",
    "OutcomeKind",
    "RemoteValue",
    "Trigger",
]

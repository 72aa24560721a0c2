"""What plugs in: protocols for backends, triggers, journals and contexts, and the values that they exchange.

An implementation needs nothing else of Scattersphere; `scattersphere.testing` holds the checks that it must pass.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
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

_HOMES = {
    "scattersphere.abc.around": ["Around", "AttemptInfo", "Carried", "CarryingAround"],
    "scattersphere.abc.backend": [
        "Backend",
        "BackendHost",
        "BackendTraits",
        "Call",
        "Handle",
        "Outcome",
        "OutcomeKind",
    ],
    "scattersphere.abc.journal": ["Journal", "JournalHost", "JournalState"],
    "scattersphere.abc.ports": ["BundleAdopter", "BundleContent", "RemoteValue", "Trigger"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a name when it is asked for first (PEP 562): a worker process needs no journal."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Where attempts run: in threads, in processes, or in a place of the host's own, which keeps the same contract."""

from scattersphere.execution.backends.protocol import (
    Backend,
    BackendTraits,
    Call,
    Ending,
    Handle,
    Host,
    Outcome,
)

__all__ = ["Backend", "BackendTraits", "Call", "Ending", "Handle", "Host", "Outcome"]

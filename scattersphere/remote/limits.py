"""The limits of a front-end. Each is there because a comparable server fell over the lack of it."""

from __future__ import annotations

import attrs

KIB, MIB = 1 << 10, 1 << 20


@attrs.frozen(kw_only=True)
class Limits:
    """How much a session, a source and a listener may take. Times are seconds, sizes are bytes.

    Vary them with `attrs.evolve(Limits(), idle=60)`.
    """

    line_before_auth: int = 4 * KIB
    """Nothing that a stranger sends is kept beyond this: `auth` fits, little else has to."""
    line: int = 64 * KIB
    definition: int = 10 * MIB
    """Lines of those who may define jobs; only `define` and `validate` may be longer than `line`."""
    depth: int = 32
    """Nesting of a request. The definition inside one has the limit of definitions."""
    sessions: int = 100
    sessions_of_source: int = 10
    auth_time: float = 10.0
    auth_tries: int = 3
    line_time: float = 10.0
    """From the first byte of a line to its end: a slow sender holds a session, not for ever."""
    idle: float = 300.0
    rate: float = 50.0
    """Lines a second, after a burst. Blank lines and comments count: they cost time too."""
    burst: int = 200
    overruns: int = 1_000
    """Lines above the rate in a row, each answered `rate-limited`, until the session is closed."""
    follows: int = 32
    output: int = MIB
    """Bytes that wait to be sent. Above it events wait in their run, and no request is read."""
    write_time: float = 30.0
    """A write that makes no progress for so long closes the session."""
    read_ahead: int = 32
    """Requests that are read while an earlier one is under way."""
    linger: float = 1.0
    """After the last byte sent, what still comes is read and dropped for so long: a close with
    unread input would reset the connection, and the peer could lose the last lines (RFC 9112, 9.6)."""
    close_time: float = 3.0
    """All sessions together get so long to take their `bye` when a listener closes."""

"""The limits of a front-end, and what counts against them. Each is there because a comparable server lacked it."""

from __future__ import annotations

from collections import OrderedDict

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
    late: int = 32
    """Requests of a session whose replies may come late (`run`, `wait`) that are under way at once."""
    sessions_of_user: int = 50
    """Sessions that one user has proved to be his; the next one is `busy`."""
    linger: float = 1.0
    """After the last byte sent, what still comes is read and dropped for so long: a close with
    unread input would reset the connection, and the peer could lose the last lines (RFC 9112, 9.6)."""
    close_time: float = 3.0
    """All sessions together get so long to take their `bye` when a listener closes."""


class Bucket:
    """Lets `burst` through at once and `rate` a second after that."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one token and return 0.0, or return the seconds until there is one again."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


FREE_FAILURES = 3
FIRST_WAIT, LONGEST_WAIT = 1.0, 900.0
FORGET_AFTER = 3_600.0
SOURCES = 10_000
"""Sources that are remembered; beyond that the one that failed longest ago is forgotten, so that an
attacker with many addresses costs no memory."""


class AuthBackoff:
    """Authentication back-off: failures for each source (an address, or a local user), and the waits that they cost.

    After three failures each further one doubles the wait, up to 15 minutes. A success clears them.
    """

    def __init__(self) -> None:
        self._sources: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def blocked(self, source: str, now: float) -> float:
        """Return the seconds until the source may try again; 0.0 when it may now."""
        count, at = self._sources.get(source, (0, 0.0))
        if count < FREE_FAILURES:
            return 0.0
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(count - FREE_FAILURES, 20))
        return max(0.0, at + wait - now)

    def failed(self, source: str, now: float) -> None:
        """Note a failed authentication; nothing else counts."""
        count, at = self._sources.pop(source, (0, now))
        self._sources[source] = (1 if now - at > FORGET_AFTER else count + 1, now)
        if len(self._sources) > SOURCES:
            self._sources.popitem(last=False)

    def succeeded(self, source: str) -> None:
        """Forget the source's failures."""
        self._sources.pop(source, None)

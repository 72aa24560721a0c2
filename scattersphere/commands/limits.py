"""Limits of a front-end, and what counts against them: rates, sizes, numbers."""

from __future__ import annotations

from collections import OrderedDict

import attrs

from scattersphere._options import option

KIB, MIB = 1 << 10, 1 << 20


@attrs.frozen(kw_only=True)
class Limits:
    """How much a session, a source and a listener may take. Times are seconds, sizes are bytes.

    Vary them with `attrs.evolve(Limits(), idle=60)`.
    """

    line_before_auth: int = option(
        4 * KIB,
        "A line before `auth`: nothing that a stranger sends is kept beyond it.",
        unit="bytes",
    )
    line: int = option(64 * KIB, "A line of a session.", unit="bytes")
    definition: int = option(
        10 * MIB,
        "A line of those who may define jobs: only `define` and `validate` may be longer than `line`.",
        unit="bytes",
    )
    depth: int = option(
        32, "Nesting of a request; a definition inside one has the limit of definitions.", unit="levels"
    )
    sessions: int = option(100, "Sessions of a listener.", unit="sessions")
    sessions_of_source: int = option(10, "Sessions from one address, or of one local user.", unit="sessions")
    sessions_of_user: int = option(
        50, "Sessions that one user has proved to be his; the next one is `busy`.", unit="sessions"
    )
    streams: int = option(
        2_000, "Streams of events over HTTP, those of pages too; the next one is `busy`.", unit="streams"
    )
    streams_of_user: int = option(200, "The same, of one user.", unit="streams")
    auth_time: float = option(10.0, "From the connection to `auth`.", unit="seconds")
    auth_tries: int = option(3, "Wrong tokens until the session is closed.", unit="tries")
    line_time: float = option(
        10.0,
        "From the first byte of a line to its end: a slow sender holds a session, not for ever. Over HTTP so long may "
        "the head of a request take, from the connection on.",
        unit="seconds",
    )
    idle: float = option(300.0, "Without a request, and without something followed.", unit="seconds")
    rate: float = option(
        50.0, "After a burst; blank lines and comments count: they cost time too.", unit="lines a second"
    )
    burst: int = option(200, "Lines that may come at once.", unit="lines")
    overruns: int = option(
        1_000,
        "Lines above the rate in a row, each answered `rate-limited`, until the session is closed.",
        unit="lines",
    )
    follows: int = option(32, "What a session follows at once.", unit="subscriptions")
    output: int = option(
        MIB,
        "What waits to be sent; above it events wait in their run, and no request is read.",
        unit="bytes",
    )
    write_time: float = option(30.0, "A write without progress closes the session.", unit="seconds")
    read_ahead: int = option(32, "Requests that are read while an earlier one is under way.", unit="requests")
    late: int = option(
        32, "Requests of a session whose replies may come late (`run`, `wait`), at once.", unit="requests"
    )
    linger: float = option(
        1.0,
        "What still comes after the last byte sent is read and dropped for so long: a close with unread input "
        "would reset the connection, and the peer could lose the last lines (RFC 9112, 9.6).",
        unit="seconds",
    )
    close_time: float = option(
        3.0, "All sessions together get so long to take their `bye` when a listener closes.", unit="seconds"
    )


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

"""Access tokens, kept in a file as digests, from which nobody can make a token again.

A token is 256 random bits, shown once. The file holds its SHA-256: of a random secret of that size a
plain digest is enough, a slow hash protects only guessable ones (OWASP, Password Storage; NIST SP
800-63B, 5.1.2). Two tokens of one name may be live at once, so that a rotation needs no downtime.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.commands.access import PATTERN, Principal, Role
from scattersphere.commands.errors import ListenError
from scattersphere.errors import ConflictError, ExistsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere._json_words import JsonObject

PREFIX = "ss1_"
"""Begins every token, so that scanners for leaked secrets can find it."""
LIVE_TOKENS = 2
LARGEST = 4 << 20
"""Bytes of a token file: it is read whole, on the event loop, whenever it was changed."""
PATIENCE = 10.0
"""Seconds to wait for another program that is changing the file."""
NAME_CHARACTERS = 64
_MODE = 0o600


@attrs.frozen(kw_only=True)
class Token:
    """What the file knows of a token. `digest` is the SHA-256 of it, in hexadecimal."""

    name: str
    role: Role
    digest: str = attrs.field(repr=False)
    patterns: tuple[str, ...] = ()
    created: dt.datetime
    expires: dt.datetime | None = None

    @property
    def id(self) -> str:
        """The first digits of the digest: enough to tell tokens of one name apart."""
        return self.digest[:8]

    def live(self, now: dt.datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


def digest_of(token: str) -> str:
    """Return what the file keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class TokenFile:
    """The tokens of a file. A change of the file is noticed at the next `refresh`.

    A file that others could read or write is refused with `ListenError`: what they may read they can
    only try, but what they may write lets them in. A link to it is followed where whoever owns the link may
    also own the file: Kubernetes mounts secrets as links.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self._seen: tuple[int, ...] | None = None
        self._tokens: dict[str, Token] = {}

    def __repr__(self) -> str:
        return f"<TokenFile {self.path}: {len(self._tokens)} tokens>"

    @property
    def tokens(self) -> list[Token]:
        """The tokens, oldest first."""
        return list(self._tokens.values())

    def refresh(self) -> None:
        """Read the file again if it was changed. Raises `ListenError`: unsafe, missing, not readable."""
        try:
            if _version(_check_link(self.path)) == self._seen:
                return
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            self._tokens, self._seen = {}, None
            words = f"the token file {self.path} cannot be read: {exc.strerror}"
            if isinstance(exc, FileNotFoundError):
                words += f"; make one with: scattersphere token create NAME --role admin --tokens {self.path}"
            raise ListenError(words) from None
        try:
            status = os.fstat(descriptor)
            seen = _version(status)
            if seen == self._seen:
                return
            self._tokens, self._seen = {}, None  # while it is wrong, nobody comes in
            _check_mode(self.path, status)
            with open(descriptor, "rb", closefd=False) as file:
                self._tokens = _read(self.path, file.read(LARGEST + 1))
            self._seen = seen
        finally:
            os.close(descriptor)

    def find(self, presented: str) -> Principal | None:
        """Return who a token stands for, or None. All are compared, each in constant time."""
        digest, now = digest_of(presented), _now()
        found: Token | None = None
        for token in self._tokens.values():
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None or not found.live(now):
            return None
        return Principal(user=found.name, role=found.role, patterns=found.patterns, credential=found.digest)

    def current(self, principal: Principal) -> bool:
        """Return whether the token behind a principal is still in the file, unchanged, and not expired."""
        token = self._tokens.get(principal.credential)
        return (
            token is not None
            and token.live(_now())
            and token.role.covers(principal.role)
            and token.patterns == principal.patterns
        )

    # ---- changing the file

    def create(
        self,
        name: str,
        role: Role,
        *,
        patterns: tuple[str, ...] = (),
        expires: dt.datetime | None = None,
    ) -> str:
        """Add a token and return it: this is the only time that it is seen.

        Raises `ExistsError` where two tokens of this name are live, `ConflictError` for a bad name.
        """
        _check_name(name)
        for pattern in patterns:
            if not PATTERN.fullmatch(pattern):
                raise ConflictError(f"pattern {pattern!r} must be GLOB, job:GLOB or bundle:GLOB")
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(
            name=name,
            role=role,
            digest=digest_of(secret),
            patterns=patterns,
            created=_now().replace(microsecond=0),
            expires=expires,
        )
        with self._changing():
            live = [token for token in self._tokens.values() if token.name == name and token.live(_now())]
            if len(live) >= LIVE_TOKENS:
                raise ExistsError(f"{LIVE_TOKENS} tokens of {name!r} are live; revoke one first")
            self._write([*self._tokens.values(), token])
        return secret

    def make(self) -> None:
        """Write a file without tokens where there is none. Raises `ConflictError`, `ListenError`."""
        with self._changing():
            if not self.path.exists():
                self._write([])

    def revoke(self, name_or_id: str) -> list[Token]:
        """Remove the tokens of a name, or the one of an id, and return them. Raises `NotFoundError`."""
        with self._changing():
            gone = [token for token in self._tokens.values() if name_or_id in {token.name, token.id}]
            if not gone:
                raise NotFoundError(f"no token {name_or_id!r} in {self.path}")
            self._write([token for token in self._tokens.values() if token not in gone])
        return gone

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock of the file's folder from reading to writing, and read what is there now.

        Two programs that change the file at once would else undo each other: a revoked token lived again.
        Raises `ConflictError` where somebody else keeps the lock.
        """
        if self.path.is_symlink():
            raise ConflictError(
                f"{self.path} is a link; change the file that it leads to: {self.path.resolve()}"
            )
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(folder, self.path)
            self._tokens, self._seen = {}, None
            if self.path.exists():
                self.refresh()
            yield
        finally:
            os.close(folder)

    def _write(self, tokens: list[Token]) -> None:
        """Replace the file in one step; it never has another mode than 0600."""
        text = json.dumps({"format": 1, "tokens": [_record(token) for token in tokens]}, indent=2) + "\n"
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self._seen = None
        self.refresh()


def _check_name(name: str) -> None:
    if not (
        0 < len(name) <= NAME_CHARACTERS
        and name.isascii()
        and name.isprintable()
        and not set(name) & set(' ="\\')
    ):
        raise ConflictError(f"a token's name has 1 to 64 ASCII characters without spaces: {name[:64]!r}")


def _lock(folder: int, path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise ConflictError(f"another program is changing {path}; try again") from None
            time.sleep(0.02)
        else:
            return


def _version(status: os.stat_result) -> tuple[int, ...]:
    """Return what is another after each change of a file, or where another file is in its place."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _check_link(path: Path) -> os.stat_result:
    """Judge a link in place of the file: who may replace it decides what is read. Raises `OSError`, `ListenError`."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in {os.geteuid(), 0}:
        raise ListenError(f"the token file {path} is a link of user {status.st_uid}, not of this one")
    return status


def _check_mode(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ListenError(f"the token file {path} is no regular file")
    if status.st_uid not in {os.geteuid(), 0}:
        raise ListenError(f"the token file {path} belongs to user {status.st_uid}, not to this one")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ListenError(f"the token file {path} has mode {mode:04o}; run: chmod 600 {path}")


def _record(token: Token) -> dict[str, object]:
    return {
        "name": token.name,
        "role": str(token.role),
        "sha256": token.digest,
        "patterns": list(token.patterns),
        "created": token.created.isoformat(),
        "expires": token.expires.isoformat() if token.expires is not None else None,
    }


def _read(path: Path, content: bytes) -> dict[str, Token]:
    try:
        tokens = [_token(record) for record in _records(json.loads(content[:LARGEST]))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as exc:
        # Never the content: a person may have written a token itself into it.
        raise ListenError(
            f"the token file {path} is damaged ({type(exc).__name__}); nobody can log in"
        ) from None
    return {token.digest: token for token in tokens}


def _records(document: Any) -> list[dict[str, object]]:
    if document["format"] != 1:
        raise ValueError("it is not of format 1")
    records: list[dict[str, object]] = document["tokens"]
    return records


def _token(record: JsonObject) -> Token:
    digest, patterns = record["sha256"], tuple(record["patterns"])
    if len(bytes.fromhex(digest)) != hashlib.sha256().digest_size:
        raise ValueError("a digest has the wrong length")
    if not all(PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ValueError("a pattern is wrong")
    return Token(
        name=str(record["name"]),
        role=Role(record["role"]),
        digest=digest.lower(),
        patterns=patterns,
        created=_time(record["created"]),
        expires=_time(record["expires"]) if record["expires"] is not None else None,
    )


def _time(text: str) -> dt.datetime:
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time has no zone")
    return time

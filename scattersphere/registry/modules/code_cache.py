"""Compiled code, kept by the digest of its source, so that a reload compiles only what changed.

This does what `.pyc` files do, without their weakness: they compare a time in whole seconds and a
size, and so load stale code after a quick edit of the same length.
"""

from __future__ import annotations

import marshal
import subprocess
import sys
import threading
from types import CodeType


class CodeCache:
    """Code objects by the digest of their source. An entry lives while a live version uses it."""

    def __init__(self) -> None:
        self._code: dict[bytes, CodeType] = {}
        self._users: dict[bytes, set[str]] = {}
        self._used_by: dict[str, set[bytes]] = {}
        self._lock = threading.Lock()  # a lazy import may come from any thread
        self.hits: int = 0
        self.misses: int = 0

    def __len__(self) -> int:
        return len(self._code)

    def get(self, digest: bytes, filename: str, user: str) -> CodeType | None:
        """Return code whose tracebacks name `filename`, or None; `user` is the version's own name."""
        with self._lock:
            code = self._code.get(digest)
            if code is None:
                self.misses += 1
                return None
            self.hits += 1
            self._note(digest, user)
        return relocate(code, filename)

    def put(self, digest: bytes, code: CodeType, user: str) -> None:
        """Keep `code` for the version `user` and for those that come after it."""
        with self._lock:
            self._code.setdefault(digest, code)
            self._note(digest, user)

    def drop(self, user: str) -> None:
        """Forget what only the version `user` used."""
        with self._lock:
            for digest in self._used_by.pop(user, ()):
                users = self._users[digest]
                users.discard(user)
                if not users:
                    del self._users[digest], self._code[digest]

    def _note(self, digest: bytes, user: str) -> None:
        self._users.setdefault(digest, set()).add(user)
        self._used_by.setdefault(user, set()).add(digest)


def relocate(code: CodeType, filename: str) -> CodeType:
    """Return a copy of `code`, functions inside it included, that says it comes from `filename`."""
    constants = code.co_consts
    if not any(type(constant) is CodeType for constant in constants):  # most functions hold no other
        return code.replace(co_filename=filename)
    inner = [relocate(c, filename) if type(c) is CodeType else c for c in constants]
    return code.replace(co_filename=filename, co_consts=tuple(inner))


LARGE = 40 * 1024
"""Bytes of a source that is worth a process."""

PATIENCE = 30.0
"""Seconds after which the child is given up, and the source compiled here."""

PROGRAM = (
    "import marshal, sys; "
    "code = compile(sys.stdin.buffer.read(), sys.argv[1], 'exec', dont_inherit=True); "
    "sys.stdout.buffer.write(marshal.dumps(code))"
)


def compiled_apart(source: bytes, filename: str) -> CodeType | None:
    """Return the code of a large source, compiled in a process of its own; None if it is to be compiled here.

    `compile` never lets go of the interpreter lock: a source of 64 KB holds every other thread, the event
    loop's too, for some 20 ms. A child process holds nobody, and its code object comes back in 1 ms.

    So it is if it is small, if no child can be started (an interpreter that is embedded has no program of its
    own), or if the child had something to say: an error or a warning shall come from here.
    """
    if len(source) < LARGE or not sys.executable:
        return None
    optimize = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-W", "always", *optimize, "-c", PROGRAM, filename]
    try:
        child = subprocess.run(command, input=source, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603 - ours
        if child.returncode or child.stderr:
            return None
        code = marshal.loads(child.stdout)  # noqa: S302 - from our own child
    except (OSError, ValueError, EOFError, TypeError, subprocess.SubprocessError):
        return None
    return code if isinstance(code, CodeType) else None

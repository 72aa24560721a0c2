"""Compiled code, kept by the digest of its source, so that a reload compiles only what changed.

This does what `.pyc` files do, without their weakness: they compare a time in whole seconds and a
size, and so load stale code after a quick edit of the same length.
"""

from __future__ import annotations

import _imp
import marshal
import subprocess
import sys
import threading
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_set_filename: Callable[[CodeType, str], None] = vars(_imp)["_fix_co_filename"]
"""What the import system uses for the code that it reads from a `.pyc`; nothing public does it."""


class CodeCache:
    """Marshalled code by the digest of its source. An entry lives while a live version uses it."""

    def __init__(self) -> None:
        self._code: dict[bytes, bytes] = {}
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
        return _loaded(code, filename)

    def put(self, digest: bytes, code: CodeType, user: str) -> None:
        """Keep `code` for the version `user` and for those that come after it."""
        with self._lock:
            if digest not in self._code:
                self._code[digest] = marshal.dumps(code)
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


def _loaded(marshalled: bytes, filename: str) -> CodeType:
    """Return code, functions inside it included, that says it comes from `filename`.

    As the import system does with what a `.pyc` holds; a copy made by `replace`, function by function, takes five times
    as long, a tenth of a reload.
    """
    code: CodeType = marshal.loads(marshalled)  # noqa: S302 - our own
    _set_filename(code, filename)
    return code


def compiled(source: bytes, filename: str, *, apart: bool) -> CodeType:
    """Compile the source of a module; `apart`: a large one in a process of its own, if that can be had."""
    code = compiled_apart(source, filename) if apart else None
    if code is not None:
        return code
    try:
        return compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        if getattr(error, "filename", None):
            raise
        # NUL bytes, for instance: Python does not say in which file.
        raise SyntaxError(str(error), (filename, 1, None, None)) from None
    except (MemoryError, RecursionError) as error:  # thousands of operators or parentheses in each other
        what = f"too deeply nested to be compiled ({type(error).__name__})"
        raise SyntaxError(what, (filename, 1, None, None)) from None


LARGE = 40 * 1024
"""Bytes of a source that is worth a process."""

CRASHED = 11
"""SIGSEGV: what ended the child would end this process."""

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
        if child.returncode == -CRASHED:
            raise SyntaxError("the compiler crashes on this source", (filename, 1, None, None))
        if child.returncode or child.stderr:
            return None
        code = marshal.loads(child.stdout)  # noqa: S302 - from our own child
    except (OSError, ValueError, EOFError, TypeError, subprocess.SubprocessError):
        return None
    return code if isinstance(code, CodeType) else None

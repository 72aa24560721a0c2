"""Compiling large sources in a process of its own.

`compile` never lets go of the interpreter lock: a source of 64 KB holds every other thread, the event loop's
too, for some 20 ms. A child process holds nobody, and its code object comes back in 1 ms.
"""

from __future__ import annotations

import marshal
import subprocess
import sys
from types import CodeType

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
    """Return the code of a large source; None if it is to be compiled here.

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

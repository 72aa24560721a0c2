"""The command line (extra `cli`). Nothing in the library imports it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; say what to install where the extra is missing."""
    try:
        from scattersphere.cli.commands import cli  # noqa: PLC0415 - the extra may be absent
    except ModuleNotFoundError as exc:
        if exc.name not in {"click", "rich"}:
            raise
        sys.stderr.write(f"The command line needs {exc.name}: pip install 'scattersphere[cli]'\n")
        sys.exit(2)
    if sys.argv[1:2] == ["-c"]:
        from scattersphere.cli.asking import at  # noqa: PLC0415 - it loads the client

        at(sys.argv[2:])
    cli()

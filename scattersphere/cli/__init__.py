"""The command line (extra `cli`). Nothing in the library imports it."""

from __future__ import annotations

import sys

from scattersphere._version import installing


def main() -> None:
    """Run the command line; say what to install where the extra is missing."""
    try:
        from scattersphere.cli.commands import cli  # noqa: PLC0415 - the extra may be absent

        if sys.argv[1:2] == ["-c"]:
            from scattersphere.cli.asking import at  # noqa: PLC0415 - it loads the client

            at(sys.argv[2:])
        cli()
    except ModuleNotFoundError as exc:  # click at once, rich when a command is called
        missing = (exc.name or "").partition(".")[0]
        if missing not in {"click", "rich"}:
            raise
        sys.stderr.write(f"The command line needs {missing}: {installing('cli')}\n")
        sys.exit(2)

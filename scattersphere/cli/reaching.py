"""The address of a server, and the proof of who asks: `--at`, `--state`, `--token-file`, `--cafile`, and defaults."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs
import click

F = TypeVar("F", bound=Callable[..., object])
ADDRESS_VARIABLE = "SCATTERSPHERE_ADDRESS"
STATE = Path(".scattersphere")
"""The folder of a server's state where nobody says another, below the current one."""
SOCKET, TOKENS, AUDIT, LOGS, JOURNAL = "socket", "tokens.json", "audit.jsonl", "logs", "journal.db"
"""What is in it."""


@attrs.frozen
class Reached:
    """How a server is reached: its address, the file of the token, the authority that is trusted."""

    address: str
    token_file: str | None
    cafile: str | None


STATE_OPTION = click.option(
    "--state",
    "state_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"The folder of the server's state. Defaults to {STATE}, if it is there.",
)
_OPTIONS = (
    click.option(
        "--at",
        "address",
        metavar="ADDRESS",
        help=f"Ask the server at HOST:PORT or unix:PATH. Defaults to ${ADDRESS_VARIABLE}, else the socket in --state.",
    ),
    STATE_OPTION,
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False),
        help="The file of the token. Defaults to $SCATTERSPHERE_TOKEN.",
    ),
    click.option("--cafile", type=click.Path(dir_okay=False), help="Use TLS, and trust this authority."),
)


NAMES = ("address", "state_folder", "token_file", "cafile")
"""The parameters that these options become, and that `reached` takes."""


def reaching(function: F) -> F:
    """Give a command the options that say where a server is."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def options() -> list[click.Option]:
    """Return the same options, for a command that is made from a table."""

    @reaching
    def bare() -> None:
        """Carry the options."""

    made: list[click.Option] = list(reversed(bare.__click_params__))  # type: ignore[attr-defined]
    return made


def reached(
    address: str | None, state_folder: Path | None, token_file: str | None, cafile: str | None
) -> Reached:
    """Return how to reach the server that options, environment or the state folder name. Raises `click.UsageError`."""
    found = address or (None if state_folder is not None else os.environ.get(ADDRESS_VARIABLE))
    if not found:
        socket = (state_folder or STATE) / SOCKET
        if not socket.exists():
            where = f"no server has its socket in {state_folder or STATE}"
            other = f"give --at HOST:PORT or --state DIR, or set {ADDRESS_VARIABLE}"
            raise click.UsageError(f"{where}: start one with `scattersphere serve`, or {other}")
        found = f"unix:{socket.absolute()}"
    return Reached(found, token_file, cafile)

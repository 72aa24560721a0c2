"""Whoever reads our output may go before we are done: `scattersphere run job.json | head -1`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.model.events import Event


def shown_while_read(
    show: Callable[[Event], None], when_gone: Callable[[], object]
) -> Callable[[Event], None]:
    """Return a function that shows events until nobody reads them, which is told to `when_gone` once."""
    gone = False

    def show_event(event: Event) -> None:
        nonlocal gone
        if gone:
            return
        try:
            show(event)
        except (BrokenPipeError, SystemExit):  # rich makes an exit of it
            gone = True
            write_to_nowhere()
            when_gone()

    return show_event


def write_to_nowhere() -> None:
    """Drop all further output, as Python's documentation of SIGPIPE has it: no flush at exit may complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_unread() -> None:
    """End this program cleanly: nobody reads what it prints."""
    write_to_nowhere()
    signal.raise_signal(signal.SIGTERM)

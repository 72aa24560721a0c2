"""Broken pipes: a quiet end where the reader of our output is gone, as in `scattersphere run job.json | head -1`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scattersphere.model.events import Event


def shown_while_read(
    show: Callable[[Sequence[Event]], None], when_gone: Callable[[], object], out: TextIO | None = None
) -> Callable[[Sequence[Event]], None]:
    """Return a function that shows events until nobody reads them, which is told to `when_gone` once.

    `out` is what they read: the standard output, unless something else is given.
    """
    gone = False

    def show_events(events: Sequence[Event]) -> None:
        nonlocal gone
        if gone:
            return
        try:
            show(events)
        except (BrokenPipeError, SystemExit):  # rich makes an exit of it
            gone = True
            write_to_nowhere(out)
            when_gone()

    return show_events


def write_to_nowhere(out: TextIO | None = None) -> None:
    """Drop all further output, as Python's documentation of SIGPIPE has it: no flush at exit may complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (out or sys.stdout).fileno())
    os.close(nowhere)


def end_unread() -> None:
    """End this program cleanly: nobody reads what it prints."""
    write_to_nowhere()
    signal.raise_signal(signal.SIGTERM)

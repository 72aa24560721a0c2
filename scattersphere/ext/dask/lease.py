"""Leases: how it is known that calls have ended in a Dask worker which cannot be asked any more.

A worker that is cut off goes on with its calls while Dask takes it for gone. So that they never execute twice at once,
each worker holds a lease, which the scheduler renews, and ends its calls when that is up; the scheduler says that they
are lost when the worker has certainly ended, or the lease with it. A lease counts from when its holder asked for it, by
the holder's own clock (Gray and Cheriton, Leases, 1989).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import dask.config
from dask.utils import parse_timedelta
from distributed.comm.addressing import get_address_host_port

PULSES = 5
"""How often in the time of a lease it is renewed."""
LOOK = 0.5
"""Seconds between looks whether a worker that Dask has let go of is really gone."""
MARGIN = 2.0
"""Seconds beyond a lease: clocks run at different speeds, and a process that is killed takes a moment to end."""


def seconds() -> float:
    """Return how long a worker may go on without a word from the scheduler: `scattersphere.lease` of Dask, as "15s"."""
    return float(parse_timedelta(dask.config.get("scattersphere.lease", "15s")))


def clock() -> float:
    """Return the seconds of a clock that nobody sets; it goes on while the machine is suspended, where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def refuses(address: str) -> bool:
    """Whether nobody listens at an address, as the machine there says; False where that does not answer."""
    with suppress(OSError, ValueError, NotImplementedError):
        async with asyncio.timeout(LOOK):
            try:
                _, writer = await asyncio.open_connection(*get_address_host_port(address))
            except ConnectionRefusedError:
                return True
            writer.close()
    return False

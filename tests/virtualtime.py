"""Both loops with clocks that jump: what a test waits for costs no time, and comes to the second."""

import functools
import inspect

import anyio
import pytest

from scattersphere.testing import VirtualTimeLoop

both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def jumping(backend):
    """What `anyio.run` needs for a loop whose time jumps."""
    if backend == "asyncio":
        return {"backend": "asyncio", "backend_options": {"loop_factory": VirtualTimeLoop}}
    testing = pytest.importorskip("trio.testing")
    return {"backend": "trio", "backend_options": {"clock": testing.MockClock(autojump_threshold=0)}}


def run_virtually(backend, main, *args):
    """Run `main` in virtual time."""
    return anyio.run(main, *args, **jumping(backend))


def virtually(test):
    """Make a test of an async function: it runs in virtual time, on each of both loops."""
    asked = inspect.signature(test).parameters.values()
    backend = inspect.Parameter("backend", inspect.Parameter.POSITIONAL_OR_KEYWORD)

    @functools.wraps(test)
    def run(backend, **known):
        run_virtually(backend, functools.partial(test, **known))

    run.__signature__ = inspect.Signature([backend, *asked])
    return both_loops(run)

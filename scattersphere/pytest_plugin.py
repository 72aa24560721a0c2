"""The fixture `scattersphere`: a `Rehearsal` that lives in the loop of its test, under any async plugin.

Which loop that is only the plugin knows, be it anyio's, pytest-asyncio or pytest-trio, and each runs fixtures in a way
of its own. So the fixture is a plain one, the Server starts when the test first awaits something of it, and the test
function is wrapped, before any plugin calls it, in a coroutine function that closes the Server in the same loop.

`pytest_scattersphere` is the module that pytest loads.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from scattersphere.testing import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

SECTION = "scattersphere"


def rehearse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rehearsal]:
    """Yield the rehearsal of one test."""
    config = request.config
    rehearsal = Rehearsal(config.rootpath, scratch=tmp_path / "scattersphere", seed=_seed(config))
    item: Any = request.node
    item.scattersphere_rehearsal = rehearsal
    wrapped = _wrap(item, rehearsal)
    yield rehearsal
    if not wrapped and rehearsal.is_open:
        pytest.fail(
            "a plain test must close the rehearsal itself, in its own loop: `async with scattersphere:`",
            pytrace=False,
        )


def _seed(config: pytest.Config) -> int | None:
    """Our own option, or the seed of pytest-randomly: one seed is enough for a person to keep in mind."""
    own = config.getoption("--scattersphere-seed", None)
    return own if own is not None else _number(config.getoption("randomly_seed", None))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _wrap(item: Any, rehearsal: Rehearsal) -> bool:
    """Have the async test function of `item` close the rehearsal. Return whether it is one."""
    function = item.obj
    handle = getattr(function, "hypothesis", None)
    if handle is None:
        if not inspect.iscoroutinefunction(function):
            return False
        item.obj = _closing(function, [rehearsal])
        return True
    # Hypothesis calls the inner function, which all items made from this function share: it is wrapped once, and
    # the cell says whose turn it is.
    owner = getattr(function, "__func__", function)
    cell = getattr(owner, "scattersphere_cell", None)
    if cell is not None:
        cell[:] = [rehearsal]
        return True
    if not inspect.iscoroutinefunction(handle.inner_test):
        return False
    owner.scattersphere_cell = cell = [rehearsal]
    handle.inner_test = _closing(handle.inner_test, cell)
    return True


def _closing(
    function: Callable[..., Awaitable[object]], cell: list[Rehearsal]
) -> Callable[..., Awaitable[object]]:
    @functools.wraps(function)
    async def rehearsed(*args: object, **kwargs: object) -> object:
        __tracebackhide__ = True
        async with cell[0]:
            return await function(*args, **kwargs)

    return rehearsed


def add_story(item: pytest.Item, report: pytest.TestReport, rehearsal: Rehearsal) -> None:
    """Add to the report of a failed test what its runs did, and the seeds with which that can be had again."""
    if not report.failed:
        return
    seeds = [f"again with: --scattersphere-seed={rehearsal.seed}"]
    given = item.config.getoption("hypothesis_seed", None)
    made = getattr(getattr(item, "obj", None), "_hypothesis_internal_use_generated_seed", None)
    hypothesis = given if given is not None else made
    if hypothesis is not None:
        seeds.append(f"--hypothesis-seed={hypothesis}")
    report.sections.append((SECTION, f"{' '.join(seeds)}\n\n{rehearsal.story()}"))

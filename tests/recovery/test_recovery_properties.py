"""Cut any run anywhere, crash or close, open again, go on: the same end. Whole Servers in virtual time."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import pytest
import recoverycases
from budgets import budget
from hypothesis import given
from hypothesis import strategies as st
from virtualtime import both_loops, run_virtually

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

SOME, MANY = 40, 1_700
"""Seeds on each loop in `make test`, and in CI as well: 40 x 2 x 6 = 480 cuts, and 20,400."""
SHARDS = 10
"""Parts of the many, so that several processes of the suite have some each."""


@contextlib.contextmanager
def nothing_logged() -> Iterator[None]:
    """Write no line of ten thousand failures into the report of a test."""
    logger = logging.getLogger("scattersphere")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def one_order(backend: str) -> Iterator[Callable[[int], None]]:
    """Let a seed decide in which order trio runs what is ready, too: else a seed is another case each time."""
    if backend != "trio":
        yield lambda _: None
        return
    from trio._core import _run

    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True
    try:
        yield _run._r.seed
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before
        _run._r.seed()


def check_seeds(backend: str, seeds: range) -> None:
    """Check some seeds, all on one loop."""

    async def main() -> None:
        for seed in seeds:
            order(seed)
            try:
                await recoverycases.check_seed(seed)
            except BaseException as error:
                error.add_note(f"seed {seed} on {backend}")
                raise

    with nothing_logged(), one_order(backend) as order:
        run_virtually(backend, main)


@both_loops
@pytest.mark.parametrize("shard", range(8))
def test_some_seeds_cut_anywhere_and_gone_on_come_to_their_end(backend: str, shard: int) -> None:
    check_seeds(backend, range(shard, SOME, 8))


@both_loops
@pytest.mark.parametrize("shard", range(SHARDS))
def test_thousands_of_seeds_cut_anywhere_and_gone_on_come_to_their_end(backend: str, shard: int) -> None:
    begin = SOME if backend == "asyncio" else MANY  # others on each loop
    check_seeds(backend, range(begin + shard, begin + MANY, SHARDS))


@both_loops
@given(choose=st.randoms(use_true_random=False))
@budget(200)
def test_cut_anywhere_restored_and_gone_on_a_run_comes_to_the_same_end(
    backend: str, choose: random.Random
) -> None:
    async def main() -> None:
        world = recoverycases.draw_world(choose, timely=False)
        whole = await recoverycases.Lives(world).play(())
        await recoverycases.check_same_end(world, whole, recoverycases.draw_ends(choose, 2))

    with nothing_logged():
        run_virtually(backend, main)


@both_loops
@given(choose=st.randoms(use_true_random=False))
@budget(200)
def test_whatever_is_asked_and_however_often_it_is_cut_each_run_ends_and_nothing_is_done_twice(
    backend: str, choose: random.Random
) -> None:
    async def main() -> None:
        world = recoverycases.draw_world(choose, timely=True)
        await recoverycases.check_ends(world, recoverycases.draw_ends(choose, 4))

    with nothing_logged():
        run_virtually(backend, main)


def test_children_of_instances_of_maps_keep_their_places_though_these_have_no_row_yet() -> None:
    """Another one got its number in the next life, and its child the place of that child: no journal takes two there."""
    for backend, seed in (("trio", 3193), ("asyncio", 191), ("trio", 1873), ("trio", 1910)):
        check_seeds(backend, range(seed, seed + 1))

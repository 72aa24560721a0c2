"""What the tests of the registry share."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scattersphere.registry.registry import TaskRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _frozen_again_at_once() -> Iterator[None]:
    """To name who holds a version, `leaks` thaws the heap, and many of these tests ask it."""
    yield
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@pytest.fixture
async def registry() -> AsyncIterator[TaskRegistry]:
    registry = TaskRegistry(collect_garbage=False)
    yield registry
    await registry.aclose()

"""What the tests of the registry share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scattersphere.registry.registry import TaskRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def registry() -> AsyncIterator[TaskRegistry]:
    registry = TaskRegistry(collect_garbage=False)
    yield registry
    await registry.aclose()

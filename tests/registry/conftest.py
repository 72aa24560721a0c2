"""What the tests of the registry share."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from scattersphere.registry.modules import leaks
from scattersphere.registry.registry import TaskRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def thaws() -> None:
    """Let `leaks` thaw the heap: what holds a version here was frozen."""


@pytest.fixture(autouse=True)
def _stays_frozen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """To name who holds a version, `leaks` thaws the heap; what the suite consists of seldom holds one."""
    if "thaws" not in request.fixturenames:
        monkeypatch.setattr(leaks, "gc", SimpleNamespace(**{**vars(gc), "get_freeze_count": lambda: 0}))


@pytest.fixture
async def registry() -> AsyncIterator[TaskRegistry]:
    registry = TaskRegistry(collect_garbage=False)
    yield registry
    await registry.aclose()

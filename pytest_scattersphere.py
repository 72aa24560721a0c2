"""The door through which pytest finds the fixture `scattersphere`: it loads nothing until a test asks for it.

It stands outside of the package, because importing anything in a package imports the package: every start of pytest,
in every project of the environment, would pay for it. Nothing here is autouse, and nothing needs a new pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from scattersphere.testing import Rehearsal


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the seed, so that a failure can be had again."""
    parser.getgroup("scattersphere").addoption(
        "--scattersphere-seed",
        type=int,
        default=None,
        metavar="N",
        help="what seeds the jitter of retries in tests with the fixture `scattersphere`; a failure shows it",
    )


@pytest.fixture
def scattersphere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rehearsal]:
    """A real job engine for one async test: see `scattersphere.testing.Rehearsal`."""
    from scattersphere.pytest_plugin import rehearse  # noqa: PLC0415 - only tests that ask for it pay for it

    yield from rehearse(request, tmp_path)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Let the report of a failed test tell what its runs did."""
    outcome = yield
    rehearsal: Rehearsal | None = getattr(item, "scattersphere_rehearsal", None)
    if rehearsal is not None:
        from scattersphere.pytest_plugin import add_story  # noqa: PLC0415 - as above

        add_story(item, outcome.get_result(), rehearsal)

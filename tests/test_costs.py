"""The table of dear tests cannot rot: what is dear and not in it is named after a run, and what it names is there."""

from __future__ import annotations

from fnmatch import translate
from re import compile as pattern
from typing import TYPE_CHECKING

import pytest
from costs import SLOW, everything

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_each_row_of_the_table_names_a_test(pytestconfig: pytest.Config) -> None:
    collected: Sequence[str] | None = pytestconfig.stash.get(everything, None)
    if not collected:
        pytest.skip("only a part of the suite was asked for")
    stale = [row for row in SLOW if not any(map(pattern(translate(row)).match, collected))]
    # A file may be skipped as a whole, for want of an extra.
    files = {name.partition("::")[0] for name in collected}
    here = pytestconfig.rootpath
    assert [
        row for row in stale if (file := row.partition("::")[0]) in files or not (here / file).exists()
    ] == []

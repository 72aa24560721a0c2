"""Task classes by path over all bundles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.errors import AmbiguousTaskError, NoSuchTaskError
from scattersphere.registry.index import TaskIndex

BUNDLES = st.sampled_from("abc")
TASKS = st.dictionaries(st.sampled_from(["x.A", "x.B", "y.C"]), st.integers())


@given(st.lists(st.tuples(BUNDLES, TASKS)))
def test_the_view_is_what_the_bundles_hold_after_any_replacements(steps):
    index, model = TaskIndex(), {}
    for bundle, tasks in steps:
        index.replace(bundle, tasks)
        model[bundle] = tasks
    expected = {}
    for path in {path for tasks in model.values() for path in tasks}:
        holders = [bundle for bundle, tasks in model.items() if path in tasks]
        for bundle in holders:
            assert index.find_in(bundle, path, bundle) == model[bundle][path]
            expected[path if len(holders) == 1 else f"{bundle}:{path}"] = model[bundle][path]
        if len(holders) == 1:
            assert index.find(path) == model[holders[0]][path]
        else:
            with pytest.raises(AmbiguousTaskError, match=f"{min(holders)}:{path}"):
                index.find(path)
    assert dict(index) == expected
    assert len(index) == len(expected)


def test_a_long_name_is_cut_in_the_message():
    with pytest.raises(NoSuchTaskError) as caught:
        TaskIndex().find("x" * 100_000)
    assert len(str(caught.value)) < 300

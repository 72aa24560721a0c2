"""Pickles that outlive the version whose classes they name."""

from __future__ import annotations

import pickle
import sys

import pytest
from bundlefiles import task_module, write

from scattersphere.errors import NoSuchBundleError
from scattersphere.registry.pickling import from_bundle

pytestmark = pytest.mark.anyio

FILES = {
    "etl/__init__.py": "",
    "etl/rows.py": """
        import attrs, dataclasses, enum, typing
        VERSION = {v}
        @dataclasses.dataclass
        class Row:
            number: int
            def value(self): return (VERSION, self.number)
            class Inner:
                pass
        @attrs.define
        class Box:
            row: Row
        class Colour(enum.Enum):
            RED = 1
        class Pair(typing.NamedTuple):
            a: int
            b: int
        def double(x): return 2 * x * VERSION
        def local():
            class Local: ...
            return Local
        """,
    "etl/main.py": task_module(1),
}


async def rows(registry, tmp_path, value):
    """Make the version with this value current; return it and its module `etl.rows`."""
    folder = write(tmp_path, FILES, v=value) / "etl"
    bundle = await (registry.reload("etl") if "etl" in registry.bundles else registry.register(folder))
    return bundle.current, bundle.current.namespace.module("etl.rows")


async def test_a_pickle_names_neither_version_nor_this_library_s_packages(registry, tmp_path):
    _, module = await rows(registry, tmp_path, 1)
    data = registry.dumps([module.Row(5), module.Row, module.double])
    assert b"scattersphere.bundles" not in data
    assert b"etl_g" not in data


async def test_it_is_read_by_a_later_version_when_the_first_is_gone(registry, tmp_path):
    _, module = await rows(registry, tmp_path, 1)
    red, pair = module.Colour.RED, module.Pair(1, 2)
    data = registry.dumps(
        [module.Row(5), module.Box(module.Row(6)), red, pair, module.double, module.Row.Inner]
    )
    _, later = await rows(registry, tmp_path, 2)
    assert module.__name__ not in sys.modules
    row, box, colour, found, double, inner = registry.loads(data)
    assert row.value() == (2, 5)
    assert type(row) is later.Row
    assert box == later.Box(later.Row(6))
    assert colour is later.Colour.RED
    assert found == (1, 2)
    assert type(found) is later.Pair
    assert double(1) == 4
    assert inner is later.Row.Inner


async def test_the_version_of_the_running_task_comes_before_the_current_one(registry, tmp_path):
    version, module = await rows(registry, tmp_path, 1)
    registry.pin(1, [version])
    await rows(registry, tmp_path, 2)
    data = registry.dumps(module.Row(5))
    assert registry.loads(data).value() == (2, 5)
    assert registry.loads(data, [version]).value() == (1, 5)
    assert type(registry.loads(data, [version])) is module.Row


async def test_an_equal_name_in_two_bundles_is_no_matter(registry, tmp_path):
    _, one = await rows(registry, tmp_path, 1)
    write(tmp_path / "other", FILES, v=7)
    await registry.register(tmp_path / "other" / "etl", name="other-etl")
    other = registry.bundles["other-etl"].current.namespace.module("etl.rows")
    first, second = registry.loads(registry.dumps([one.Row(1), other.Row(1)]))
    assert (first.value(), second.value()) == ((1, 1), (7, 1))


async def test_plain_values_and_classes_of_the_host_are_pickled_as_ever(registry):
    values = [1, "x", {"a": [None, 2.5]}, pytest.Item, task_module]
    assert registry.loads(registry.dumps(values)) == values


async def test_what_a_version_lacks_is_named(registry, tmp_path):
    _, module = await rows(registry, tmp_path, 1)
    data = registry.dumps(module.Row(5))
    write(tmp_path, {"etl/rows.py": "", "etl/main.py": FILES["etl/main.py"]})
    await registry.reload("etl")
    with pytest.raises(pickle.UnpicklingError, match=r"bundle 'etl' \(etl_g\d+\) has no etl\.rows\.Row"):
        registry.loads(data)
    await registry.deregister("etl")
    with pytest.raises(NoSuchBundleError, match="no bundle 'etl'"):
        registry.loads(data)


async def test_what_cannot_be_found_again_is_refused_by_pickle_itself(registry, tmp_path):
    _, module = await rows(registry, tmp_path, 1)
    with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
        registry.dumps(module.local()())


async def test_plain_loads_says_who_can_read_it(registry, tmp_path):
    _, module = await rows(registry, tmp_path, 1)
    with pytest.raises(pickle.UnpicklingError, match=r"read it with registry\.loads"):
        pickle.loads(registry.dumps(module.Row(5)))
    with pytest.raises(pickle.UnpicklingError, match="'etl'"):
        from_bundle("etl", "etl.rows", "Row")

"""The catalogue: never free what is needed, never keep what is not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scattersphere.errors import ConflictError
from scattersphere.registry.catalog import Catalog

BUNDLES = st.sampled_from(["etl", "mail", "report"])
RUNS = st.integers(1, 5)


class CatalogMachine(RuleBasedStateMachine):
    """Against a model that is as plain as can be: who is current, and a set of (run, version)."""

    def __init__(self):
        super().__init__()
        self.catalog = Catalog()
        self.numbers = itertools.count()
        self.current = {}
        self.pins = set()
        self.alive = set()

    def needed(self):
        return set(self.current.values()) | {version for _, version in self.pins}

    def freed(self, versions):
        assert len(versions) == len(set(versions)), "freed twice in one step"
        assert not set(versions) & self.needed(), "a needed version was freed"
        assert set(versions) <= self.alive, "freed twice"
        self.alive -= set(versions)

    @rule(bundle=BUNDLES)
    def publish(self, bundle):
        version = (bundle, next(self.numbers))
        self.alive.add(version)
        self.current[bundle] = version
        self.freed(self.catalog.publish(bundle, version))

    @rule(bundle=BUNDLES, data=st.data())
    def publish_an_older_one_again(self, bundle, data):
        kept = list(self.catalog.versions(bundle))
        if kept:
            version = data.draw(st.sampled_from(kept))
            self.current[bundle] = version
            self.freed(self.catalog.publish(bundle, version))

    @rule(bundle=BUNDLES)
    def withdraw(self, bundle):
        self.current.pop(bundle, None)
        self.freed(self.catalog.withdraw(bundle))

    @rule(run=RUNS, bundles=st.sets(BUNDLES))
    def pin(self, run, bundles):
        versions = [self.current[bundle] for bundle in bundles if bundle in self.current]
        self.pins |= {(run, version) for version in versions}
        self.catalog.pin(run, versions)

    @rule(run=RUNS, bundle=BUNDLES)
    def hold_one_that_is_not_current(self, run, bundle):
        version = (bundle, next(self.numbers))
        self.alive.add(version)
        self.pins.add((run, version))
        self.catalog.hold(bundle, version, run)

    @rule(run=RUNS)
    def unpin(self, run):
        was = {version for by, version in self.pins if by == run}
        self.pins = {pin for pin in self.pins if pin[0] != run}
        pinned, freed = self.catalog.unpin(run)
        assert set(pinned) == was
        self.freed(freed)

    @invariant()
    def exactly_what_is_needed_is_kept(self):
        assert self.catalog.kept() == self.needed() == self.alive

    @invariant()
    def each_bundle_shows_its_versions_and_runs(self):
        for bundle in ("etl", "mail", "report"):
            assert self.catalog.current(bundle) == self.current.get(bundle)
            shown = self.catalog.versions(bundle)
            assert set(shown) == {version for version in self.needed() if version[0] == bundle}
            for version, runs in shown.items():
                assert runs == {run for run, pinned in self.pins if pinned == version}
            assert self.catalog.runs(bundle) == {run for run, pinned in self.pins if pinned[0] == bundle}


TestCatalog = CatalogMachine.TestCase


def test_a_pin_of_several_versions_takes_all_or_none():
    catalog = Catalog()
    catalog.publish("a", "a1")
    with pytest.raises(ConflictError, match="a0 was released"):
        catalog.pin(1, ["a1", "a0"])
    assert catalog.runs("a") == frozenset()


@pytest.mark.parametrize("other", ["a", "c"])
def test_a_version_belongs_to_one_bundle(other):
    catalog = Catalog()
    catalog.publish("b", "v")
    with pytest.raises(ConflictError, match="belongs to the bundle 'b'"):
        catalog.publish(other, "v")
    with pytest.raises(ConflictError, match="belongs to the bundle 'b'"):
        catalog.hold(other, "v", 1)
    same = "".join("b")  # an equal name is the same bundle
    assert catalog.publish(same, "v") == []


def test_clearing_returns_pinned_versions_too():
    catalog = Catalog()
    catalog.publish("a", "a1")
    catalog.pin(1, ["a1"])
    catalog.publish("a", "a2")
    assert catalog.clear() == ["a1", "a2"]
    assert catalog.unpin(1) == (set(), [])
    assert catalog.kept() == frozenset()

"""Which files of released versions stay: exactly those that a kept run names, within the limit."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scattersphere.registry.catalog import Retention

LIMIT = 10
RUNS = st.integers(1, 4)


class RetentionMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.kept = Retention(LIMIT)
        self.numbers = itertools.count()
        self.live, self.names, self.files = [], set(), {}

    @rule()
    def load(self):
        self.live.append(next(self.numbers))

    @rule(run=RUNS, data=st.data())
    def keep(self, run, data):
        versions = data.draw(st.lists(st.sampled_from(self.live), unique=True)) if self.live else []
        self.kept.keep(run, versions)
        self.names |= {(run, version) for version in versions}

    @rule(run=RUNS)
    def forget(self, run):
        self.names = {name for name in self.names if name[0] != run}
        gone = self.kept.forget(run)
        assert len(gone) == len(set(gone))
        named = {version for _, version in self.names}
        assert set(gone) == self.files.keys() - named
        self.files = {version: size for version, size in self.files.items() if version in named}

    @rule(data=st.data(), size=st.integers(0, LIMIT + 2))
    def release(self, data, size):
        if not self.live:
            return
        version = data.draw(st.sampled_from(self.live))
        self.live.remove(version)
        gone = self.kept.released(version, size)
        if version not in {named for _, named in self.names}:
            assert gone == [version]
            return
        self.files[version] = size
        expected = []
        while sum(self.files.values()) > LIMIT:
            oldest = next(iter(self.files))
            expected.append(oldest)
            del self.files[oldest]
        assert gone == expected

    @invariant()
    def what_is_kept_is_known(self):
        everything = range(next(self.numbers))
        assert {version for version in everything if version in self.kept} == set(self.files)


TestRetentionMachine = RetentionMachine.TestCase

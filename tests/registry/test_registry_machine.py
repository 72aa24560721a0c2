"""The whole registry, with real loads, against a model: who sees which code, and what is still there."""

from __future__ import annotations

import itertools
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import anyio
import hypothesis
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from scattersphere.errors import BundleLoadError
from scattersphere.registry.registry import TaskRegistry

CODE = {
    "__init__.py": "",
    "main.py": """
from scattersphere.runnable import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        from etl.test_late import VALUE
        return VALUE
""",
    "test_late.py": "VALUE = {v}\n",
}
BROKEN = "broken"
NAMES = st.sampled_from(["a", "b"])
RUNS = st.integers(1, 3)
VALUES = st.sampled_from([0, 1, 2, BROKEN])


class RegistryMachine(RuleBasedStateMachine):
    """`needs` holds, for each live run, the versions that it pins; `keeps`, for each kept run, those it names."""

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.portal = self.stack.enter_context(start_blocking_portal())
        self.registry = TaskRegistry(collect_garbage=False)
        self.value_of = {}
        """What the tasks of each version return."""
        self.on_disk, self.current, self.needs, self.keeps = {}, {}, {}, {}
        self.edits = itertools.count()

    def teardown(self):
        self.portal.call(self.registry.aclose)
        assert not [name for name in sys.modules if name.startswith("scattersphere.bundles.")]
        self.stack.close()

    def load(self, name):
        if name in self.registry.bundles:
            return self.portal.call(self.registry.reload, name)
        return self.portal.call(lambda: self.registry.register(self.root / name / "etl", name=name))

    @rule(name=NAMES, value=VALUES)
    def edit_and_load(self, name, value):
        folder = self.root / name / "etl"
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in CODE.items():
            (folder / file).write_text(text.replace("{v}", str(value)))
        if value == BROKEN:
            (folder / "main.py").write_text(f"1 / 0  # {next(self.edits)}\n")
            with pytest.raises(BundleLoadError):
                self.load(name)
            return
        version = self.load(name).current
        self.current[name] = version
        assert self.value_of.setdefault(version, value) == value
        assert version.digest

    @rule(name=NAMES)
    def deregister(self, name):
        if name in self.current:
            self.portal.call(self.registry.deregister, name)
            del self.current[name]

    @rule(run=RUNS)
    def start(self, run):
        if run not in self.needs and run not in self.keeps:
            versions = frozenset(self.current.values())
            self.portal.call(self.registry.keep, run, versions)
            self.portal.call(self.registry.pin, run, versions)
            self.needs[run] = self.keeps[run] = versions

    @rule(run=RUNS)
    def end(self, run):
        self.needs.pop(run, None)
        self.portal.call(self.registry.unpin, run)

    @rule(run=RUNS)
    def evict(self, run):
        if run not in self.needs:
            self.keeps.pop(run, None)
            self.portal.call(self.registry.forget, run)

    @rule(run=RUNS)
    def run_again(self, run):
        """With the code that it had, while other code is current."""
        versions = self.keeps.get(run, frozenset())

        async def again():
            async with self.registry.revived(versions) as code:
                return {
                    version.bundle: code.find("etl.main.Job", version.bundle).cls().run(None)
                    for version in versions
                }

        assert self.portal.call(again) == {version.bundle: self.value_of[version] for version in versions}

    @invariant()
    def who_needs_code_has_it_and_nobody_else_does(self):
        needed = {*self.current.values(), *itertools.chain(*self.needs.values())}
        for version, value in self.value_of.items():
            if version in needed:
                assert version.tasks["etl.main.Job"].cls().run(None) == value
            else:
                assert not version.tasks
                assert version.namespace.name not in sys.modules

    @invariant()
    def files_stay_while_code_is_needed_or_a_kept_run_names_it(self):
        if not self.value_of:
            return
        self.portal.call(settled, self.registry)
        wanted = {*self.current.values(), *itertools.chain(*self.needs.values(), *self.keeps.values())}
        there = {path.name for path in self.registry._versions.store_folder.iterdir() if path.is_dir()}
        assert there == {version.slug for version in wanted}


async def settled(registry):
    """Wait until the loader has deleted what it shall."""
    loader = registry._versions._loader
    while loader._later:  # noqa: ASYNC110 - the loader's thread has nobody to tell
        await anyio.sleep(0.005)
    await loader.call("", lambda: None, discard=lambda: None, stuck=lambda *_: AssertionError("stuck"))


def test_each_run_sees_its_code_and_nothing_is_kept_for_nobody():
    budget = hypothesis.settings(max_examples=12, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(RegistryMachine, settings=budget)

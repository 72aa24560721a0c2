"""A watched job folder ends where a restart would, whatever happens to its files and in whatever order."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from budgets import budget
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scattersphere import JobDefinition, Server, WatchDelays
from scattersphere.jobs.files import _WatchedFolder

FILES = st.sampled_from(["a.json", "b.json", "c.json", "d.json"])
NAMES = st.sampled_from(["one", "two", "three"])
AT_ONCE = WatchDelays(settle=0.0, vanish=0.0)


def text(name, description):
    return json.dumps({"name": name, "description": description, "tasks": {}})


class Folder(RuleBasedStateMachine):
    """Files come, go, swap and break, by two programs and the host itself; a fresh Server says what is right."""

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.portal = self.stack.enter_context(start_blocking_portal("asyncio"))
        server = Server(job_folder=self.folder, watch=False)
        self.server = self.stack.enter_context(self.portal.wrap_async_context_manager(server))
        self.watched = _WatchedFolder(server._files, AT_ONCE, self.folder)
        self.count = 0
        self.good = {}  # what each file held when it was last right: name, description
        self.own = {}  # what the host has defined itself

    def teardown(self):
        self.stack.close()

    def fresh(self):
        """Another description each time, of another length: a file that changes looks different."""
        self.count += 1
        return "x" * self.count

    def put(self, file, content):
        """Write as editors do: a new file takes the place of the old one."""
        (self.folder / ".new").write_text(content)
        (self.folder / ".new").replace(self.folder / file)

    def some(self):
        return sorted(path.name for path in self.folder.glob("*.json"))

    @rule(file=FILES, name=NAMES)
    def write(self, file, name):
        self.put(file, text(name, self.fresh()))

    @rule(file=FILES, one=NAMES, two=NAMES)
    def two_programs_write(self, file, one, two):
        self.put(file, text(one, self.fresh()))
        (self.folder / file).write_text(text(two, self.fresh()))

    @rule(file=FILES)
    def spoil(self, file):
        self.put(file, "{" + self.fresh())

    @precondition(some)
    @rule(data=st.data())
    def delete(self, data):
        (self.folder / data.draw(st.sampled_from(self.some()))).unlink()

    @precondition(some)
    @rule(data=st.data(), to=FILES)
    def move(self, data, to):
        (self.folder / data.draw(st.sampled_from(self.some()))).rename(self.folder / to)

    @precondition(some)
    @rule(data=st.data(), to=FILES)
    def copy(self, data, to):
        self.put(to, (self.folder / data.draw(st.sampled_from(self.some()))).read_text())

    @precondition(lambda self: len(self.some()) > 1)
    @rule(data=st.data())
    def swap(self, data):
        one, two = data.draw(st.permutations(self.some()))[:2]
        (self.folder / one).rename(self.folder / ".t")
        (self.folder / two).rename(self.folder / one)
        (self.folder / ".t").rename(self.folder / two)

    @rule(name=NAMES)
    def define_in_python(self, name):
        self.own[name] = self.fresh()
        definition = JobDefinition(name=name, description=self.own[name])
        self.portal.call(lambda: self.server.define(definition, replace=True))

    @precondition(lambda self: self.own)
    @rule(data=st.data())
    def undefine_what_python_defined(self, data):
        name = data.draw(st.sampled_from(sorted(self.own)))
        del self.own[name]
        self.portal.call(self.server.undefine, name)

    @rule()
    def load_all(self):
        self.portal.call(self.server.load_all)

    async def follow(self):
        await self.watched.on_changed(await anyio.to_thread.run_sync(self.watched.poll))

    async def restarted(self):
        """What a new Server makes of the folder, and of what the host defines again."""
        async with Server(job_folder=self.folder, watch=False) as server:
            for name, description in self.own.items():
                server.define(JobDefinition(name=name, description=description), replace=True)
            jobs = {name: job.description for name, job in server.definitions.items()}
            return jobs, {file.name for file in server.problems}

    @invariant()
    def it_is_where_a_restart_would_be(self):
        self.portal.call(self.follow)
        jobs, problems = self.portal.call(self.restarted)
        there = {name: job.description for name, job in self.server.definitions.items()}
        for file in list(self.good):
            if not (self.folder / file).exists():
                del self.good[file]
        for file in self.some():
            try:
                held = json.loads((self.folder / file).read_text())
            except ValueError:
                # A file that breaks keeps what it held, unless another one speaks for that job.
                if (kept := self.good.get(file)) is not None and kept[0] not in jobs:
                    jobs.setdefault(*kept)
            else:
                self.good[file] = (held["name"], held["description"])
        assert there == jobs
        assert {file.name for file in self.server.problems} == problems


Folder.TestCase.settings = settings(budget(80), stateful_step_count=12)
test_a_folder_ends_where_a_restart_would = Folder.TestCase

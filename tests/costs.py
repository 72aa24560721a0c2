"""What tests cost, in seconds of processor: the dear ones are marked `slow`, and an unmarked one is named.

`make test` leaves out what is marked `slow`, `make test-all` and CI run everything. Which tests those are stands here,
in one table, and the marks cannot rot: after each run those are named that should be in it.
"""

from __future__ import annotations

import json
import os
import re
import time
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW: dict[str, str] = {
    # An interpreter, a shell or a pytest for each test.
    "tests/test_pytest_plugin.py::*": "a pytest for each plugin",
    "tests/test_house.py::*": "a pytest for each kind of culprit",
    "tests/test_crashes.py::*": "processes of a pytest die",
    "tests/test_examples.py::*": "each example is a program; `make examples` runs them too",
    "tests/test_example_hosts.py::*": "the same",
    "tests/test_readme.py::test_the_demo*": "the same",
    "tests/test_interrupt.py::*": "hosts that are interrupted",
    "tests/remote/test_cli.py::*": "a client for each verb",
    "tests/remote/test_tutorial.py::*": "types four pages of the documentation into programs",
    "tests/remote/test_shell.py::*": "a server and its clients as a shell starts them",
    "tests/cli/test_completion.py::*": "a shell for each case",
    "tests/cli/test_new.py::*": "a new project is tried in processes",
    "tests/cli/test_remote_verbs.py::test_serve_without*": "a server, and a client for each verb",
    "tests/cli/test_remote_verbs.py::test_next_and*": "the same",
    "tests/cli/test_remote_verbs.py::test_ctrl_c*": "the same",
    "tests/cli/test_remote_verbs.py::test_tokens_lie*": "a process for each verb",
    "tests/cli/test_dev.py::*": "a server and its watcher in a process",
    "tests/cli/test_pipes.py::*": "the same with pipes",
    "tests/cli/test_definitions_cli.py::*": "a command for each case",
    "tests/contributing/test_adding.py::*_added_*": "a program with a copy of the package for each example",
    "tests/ext/test_dask.py::*": "a Dask cluster in processes",
    "tests/ext/test_dask_contract.py::*": "the same",
    "tests/ext/test_dask_journal.py::*": "the same",
    "tests/ext/test_dask_far_away.py::*": "the same, in network namespaces",
    "tests/web/test_browser.py::*": "a browser for each window",
    "tests/web/test_serving.py::*sigterm*": "a server in a process",
    "tests/web/test_serving.py::*state_folder*": "the same, and a program that makes a token",
    "tests/web/test_schemathesis.py::*": "a thousand requests",
    "tests/web/test_typescript.py::*": "a compiler, and a server in a process",
    # Thousands of something.
    "*::*ten_thousand_tasks_are_a_page*": "a run and a page of ten thousand tasks",
    "tests/benchmarks/*": "benchmarks are run, in small",
    "tests/remote/test_load.py::*": "a thousand sessions",
    "tests/engine/machine/test_machine_mass.py::*": "100,000 tasks",
    "tests/engine/test_left_behind.py::*process*": "worker processes for each case",
    "tests/engine/test_every_place.py::*ends_the_run_that_is_served*": "four hundred places that break",
    "tests/engine/test_mass_moves.py::*": "thousands of tasks, in many turns",
    "tests/registry/test_real_wheels.py::*": "real wheels are loaded",
    "tests/registry/test_libraries_reloaded.py::*": "libraries are loaded a hundred times",
    "*::*thousand_reloads*": "a thousand reloads",
    "*::*twenty_failing_loads*": "twenty collections of all that there is",
    "*::*runs_beyond_the_history*": "memory of thousands of runs",
    "tests/registry/test_leaks.py::test_the_holder_of_a_released_version_is_named*": "the whole heap is searched",
    "*::*thousands_of_damaged_texts*": "thousands of definitions",
    "*::*a_long_chain_and_a_deep_fork*": "large pictures",
    "*::*memory_is_back*": "memory is measured before and after a crowd",
    "*::*a_kept_run_takes*": "memory of ten thousand runs",
    "*::*graphviz*": "Graphviz draws",
    "tests/journal/test_serve_journal.py::*": "servers and their clients as a shell starts them",
    "tests/journal/test_kills.py::*every_commit*": "hundreds of programs that are killed",
    "tests/journal/test_kills.py::*any_moment*many*": "the same, with all that there is",
    "tests/journal/test_kills.py::*does_not_wait_for_its_commits*": "the same",
    "tests/recovery/test_recovery_properties.py::*thousands_of_seeds*": "20,400 cuts of some thousand worlds",
    "*::*kill_9*": "processes that are killed at any moment",
    "*::*200_runs_side_by_side*": "200 runs in processes",
    "*::*wheel_holds*": "builds a wheel",
    "tests/test_defaults.py::*thousand*": "limits of ten thousands, as they are without configuration",
    "tests/test_defaults.py::*00_000_tasks*": "a definition of 200,000 tasks",
    "tests/test_defaults.py::*million_edges*": "a million edges",
    "tests/test_defaults.py::*20_000_entries*": "20,000 files",
    "tests/test_defaults.py::*mebibytes*": "texts of 64 MiB: it is also what takes most memory",
    "tests/remote/test_dearest.py::*": "the dearest requests",
    "tests/engine/machine/test_machine_dispatcher.py::*ten_thousand*": "ten thousand runs",
    "tests/engine/test_defects.py::*thousand_attempts*": "a thousand attempts",
    "tests/registry/test_layouts_of_projects.py::*metaclass*": "a heap that is searched",
    "tests/registry/test_leaks.py::*frozen_its_heap*": "the whole heap is searched",
    "tests/registry/test_leaks.py::*many_versions*": "the same",
    "tests/registry/test_leaks.py::*task_of_asyncio*": "the same",
    "tests/registry/test_leaks.py::*shows_the_leaks*": "the same",
    "tests/test_job_folder.py::*next_garbage_collection*": "the same",
    "tests/test_loopwatch.py::*really_computes*": "a second of computing; tests/test_house.py shows it to the fixture",
    "tests/test_loopwatch.py::*thread_that_ends*": "the same",
    # Cases of one kind, of which others are kept.
    "tests/registry/test_registrations.py::*pickle reducer*": "a finder and pointers of ctypes are kept",
    "tests/registry/test_registrations.py::*an override*": "the same",
    "tests/registry/test_registrations.py::*path hook*": "the same",
    "tests/registry/test_registrations.py::*typing caches*": "the same",
    "tests/remote/test_hostile.py::*over_real_sockets*tls*": "TCP is kept",
    "tests/remote/test_hostile.py::*over_real_sockets*unix*": "the same",
    "tests/remote/test_hostile.py::*over_real_sockets*True*": "a session without a token is kept",
    "tests/remote/test_hostile.py::*every_byte*long line-admin*": "the same",
    "tests/remote/test_hostile.py::*every_byte*deep arrays-admin*": "the same",
    "tests/remote/test_hostile.py::*every_byte*pings-admin*": "the same",
    "tests/test_history.py::*few_objects*trio*": "asyncio is kept",
    "tests/test_sync.py::*ExitStack*": "entering it by hand is kept",
    "tests/web/test_giving_way.py::*page_of_a_large_run*True*": "the same",
    "tests/engine/test_every_place.py::*while_a_run_is_suspended*trio*": "asyncio is kept",
    # Cases of one kind, of which others are kept: a process each.
    "tests/cli/test_run.py::*a_bad_file_ends_with_3*": "a missing file is kept",
    "tests/cli/test_run.py::*wrong_command_line_2*": "a parameter that is right is kept",
    "tests/engine/backends/test_direct.py::*what_could_keep_the_loop_waiting*": "a small call is kept",
    "tests/cli/test_display.py::*cannot_be_drawn*run.pdf*": "a name without an ending is kept",
    "tests/cli/test_display.py::*error_is_json_too*": "output as JSON is kept",
    "tests/engine/backends/test_contract.py::*processes-*": "the loop and threads are kept, test_processes.py has the rest",
    "tests/engine/backends/test_direct.py::*above_the_limit*": "a small call is kept",
    "tests/cli/test_journal_cli.py::*nobody_reads*[[]logs*": "that of `runs` is kept",
    "tests/cli/test_journal_cli.py::*nobody_reads*[[]show*": "the same",
    "tests/cli/test_journal_cli.py::*nobody_reads*[[]journal*": "the same",
    "tests/cli/test_journal_cli.py::*nobody_reads*--json*": "the same",
    "tests/test_register_and_deregister.py::*AtRegistry*": "that of a server is kept",
    "tests/engine/backends/test_processes.py::*abort*": "other deaths are kept",
    "tests/engine/backends/test_processes.py::*exit code 3*": "the same",
    "tests/engine/backends/test_processes.py::*bases_and_message*UnicodeDecode*": "other exceptions are kept",
    "tests/engine/backends/test_processes.py::*bases_and_message*KeyError*": "the same",
    "tests/engine/backends/test_processes.py::*bases_and_message*FileNotFound*": "the same",
    "tests/engine/test_control.py::*loop_of_a_worker_process*trio*": "asyncio is kept",
    "tests/test_function_tasks.py::*may_override*trio*": "the same",
    "tests/test_host_logging.py::*trio-process*": "the same",
    "tests/test_side_by_side.py::*processes*trio*": "asyncio is kept",
    "tests/tasks/test_delay_and_jobs.py::*worker_process*trio*": "the same",
    "tests/engine/backends/test_processes.py::*async_body*": "plain bodies are kept",
    "tests/engine/backends/test_processes.py::*breaks_its_pipes*": "deaths are kept",
    "tests/engine/backends/test_processes.py::*cancel_before*": "kills are kept",
    "tests/engine/backends/test_processes.py::*cannot_be_sent*": "exceptions that come back are kept",
    "tests/engine/backends/test_processes.py::*child_runs_are_refused*": "asks a process",
    "tests/engine/backends/test_processes.py::*environment_of_the_moment*": "asks a process",
    "tests/engine/backends/test_processes.py::*forked_child*": "deaths are kept",
    "tests/engine/backends/test_processes.py::*kill_reaches_what*": "kills are kept",
    "tests/engine/backends/test_processes.py::*large_values*": "large values",
    "tests/engine/backends/test_processes.py::*main_program*": "a program of its own",
    "tests/engine/backends/test_processes.py::*many_versions*": "many versions",
    "tests/engine/backends/test_processes.py::*prints_are*": "logged lines are kept",
    "tests/engine/backends/test_processes.py::*warm*": "a pool of processes",
    "tests/test_server_bad_tasks.py::*process*": "tests/test_server_processes.py has one of each kind",
    "tests/test_server_capture.py::*process*": "the same",
    "tests/registry/test_library_lookups.py::*-zip]": "folders are kept",
    "tests/packages/test_outside_backend.py::*it_keeps_the_contract*": "tests/testing has the same checks of small backends",
    "tests/engine/backends/test_processes_and_bundles.py::*kill_ends_a_body*": "tests/engine/backends/test_processes.py has it",
    "tests/engine/backends/test_processes_and_bundles.py::*crash_ends_only*": "the same",
    "tests/engine/backends/test_processes.py::*an_exception_comes_back*final*": "other exceptions are kept",
    "tests/engine/backends/test_processes.py::*an_exception_comes_back*group*": "the same",
    "tests/engine/backends/test_processes.py::*death*segfault*": "another death is kept",
    "tests/engine/backends/test_processes.py::*died_while_it_was_idle*": "tests/engine/backends/test_direct.py has it",
    "tests/engine/backends/test_processes.py::*before_it_began_never_begins*": "a kill is kept",
    "tests/engine/backends/test_processes.py::*held_at_its_check*": "tests/engine/backends/test_processes_and_bundles.py has it",
    "tests/test_callbacks.py::*asyncio*process-beside it*": "on the loop is kept",
    "tests/cli/test_run.py::*a_parameter_in_json*": "tests/cli/test_display.py runs the same command",
    "tests/cli/test_run.py::*loads_the_bundles_of_its_file*": "the same",
    "tests/cli/test_run.py::*a_missing_file*": "the same",
    "tests/cli/test_run.py::*help_and_version*": "tests/test_package.py asks for the help",
    "tests/test_closing_whole.py::*at_any_step*all tasks*": "two, and those of trio, are kept",
    "tests/test_closing_whole.py::*at_any_step*[[]once-*": "the same",
    "tests/test_closing_whole.py::*at_any_step*[[]scope-*": "the same",
    "tests/test_closing_whole.py::*at_any_step*-journal*": "the same, with a journal",
    "tests/journal/test_kills.py::*goes_on*pay-*": "that of schedules is kept",
    # The second loop, where the loop is not the subject.
    "tests/packages/test_outside_backend.py::*trio*": "one loop is enough",
    "tests/test_callbacks.py::*trio*process*": "threads, and bodies on the loop, are kept",
    "tests/recovery/*trio*": "the driver's properties have both loops",
    "tests/recovery/test_recovery_properties.py::*some_seeds*[[][1-7]-asyncio*": "one seed is kept",
    "tests/web/*trio*": "one loop is enough: the application is asked by a client in its own process",
    "tests/registry/*trio*": "one loop is enough",
    "tests/engine/backends/*trio*": "the same",
    "tests/engine/test_defects.py::*trio*": "the same",
    "tests/test_around.py::*trio*": "the same",
    "tests/test_large_definitions.py::*trio*": "the same",
    "tests/test_own_triggers.py::*trio*": "the same",
    "tests/test_register_and_deregister.py::*trio*": "the same",
    "tests/test_server_replacing.py::*trio*": "the same",
    "tests/test_server_versions.py::*trio*": "the same",
    "tests/test_watching.py::*trio*": "the same",
    "tests/test_bundle_roots.py::*trio*": "the same",
    "tests/test_job_folder.py::*trio*": "the same",
    "tests/test_server_bad_tasks.py::*trio*": "the same",
    "tests/test_server_processes.py::*trio*": "the same",
    "tests/test_server_capture.py::*trio*": "the same",
    "tests/tasks/test_shell_task.py::*trio*": "the same",
    "tests/engine/test_left_behind.py::*trio*": "the same",
    "tests/remote/test_[!l]*trio*": "the same; tests/remote/test_listener.py has both loops",
    "tests/test_server_process_versions.py::*trio*": "the same",
    "tests/testing/test_re*trio*": "the same",
}
"""Which tests `make test` leaves out, by a pattern of their names, and why they are dear."""

DEAR = 1.0
"""Seconds of processor, of this process and of the children that have ended, from which on a test is named."""

MUCH = 60.0
"""Seconds of processor from which on the sum is told: a newcomer is promised one for `make test`."""

_begun = pytest.StashKey[float]()
everything = pytest.StashKey[list[str]]()
"""The names of all tests, if all were asked for."""


def _spent() -> float:
    times = os.times()  # in hundredths of a second, which is too coarse for what most tests cost
    return time.process_time() + times.children_user + times.children_system


class Costs:
    """A plugin that marks tests, measures them, and names those which should be marked."""

    def __init__(self, config: pytest.Config) -> None:
        self._dear: list[tuple[float, str]] = []
        self._all = 0.0
        self._only_measures = hasattr(config, "workerinput")
        """One of several processes of the suite: the first one gets the reports of all."""
        self._file = os.environ.pop("TEST_COSTS", None)
        """Where one line of JSON for each test is to be written."""

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        """Import no file of which each test would be left out: some import a browser, or a cluster."""
        if config.option.markexpr != "not slow" or not collection_path.is_relative_to(config.rootpath):
            return None
        return True if f"{collection_path.relative_to(config.rootpath).as_posix()}::*" in SLOW else None

    @pytest.hookimpl(tryfirst=True)  # before the marks are asked who is to be left out
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Mark what the table names."""
        if config.args == config.getini("testpaths"):
            config.stash[everything] = [item.nodeid for item in items]
        named = re.compile("|".join(translate(pattern) for pattern in SLOW)).match  # 90 patterns, 7,000 tests
        for item in items:
            if named(item.nodeid):
                item.add_marker("slow")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Begin to measure."""
        item.stash[_begun] = _spent()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[pytest.TestReport]:
        """Write the cost into the last report, which also comes from the other processes of the suite."""
        report: pytest.TestReport = yield
        if call.when == "teardown":
            slow = item.get_closest_marker("slow") is not None
            report.user_properties.append(("cost", (_spent() - item.stash[_begun], slow)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a test that has ended, here or in another process."""
        if self._only_measures:
            return
        for name, cost in report.user_properties:
            if name == "cost":
                seconds, slow = cost
                self._all += seconds
                if seconds > DEAR and not slow:
                    self._dear.append((seconds, report.nodeid))
                if self._file is not None:
                    with Path(self._file).open("a") as file:
                        file.write(json.dumps([round(seconds, 3), slow, report.nodeid]) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what is dear and not marked, and tell the sum."""
        if self._dear:
            terminalreporter.section("dear tests that are not marked slow (tests/costs.py)")
            for seconds, name in sorted(self._dear, reverse=True):
                terminalreporter.write_line(f"{seconds:6.1f} s of processor  {name}")
        if self._all > MUCH:
            terminalreporter.write_line(f"All tests together took {self._all:.0f} s of processor.")

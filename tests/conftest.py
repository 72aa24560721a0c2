"""What every test gets: both event loops, and a bill for whatever it leaves behind."""

from __future__ import annotations

import functools
import gc
import importlib.util
import inspect
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from costs import Costs
from crashes import Crashes
from loopwatch import LoopWatch

from scattersphere.registry.loader import LoadAbandonedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

# A shell starts its background jobs with SIGINT ignored, and they and their children would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

BACKENDS = [name for name in ("asyncio", "trio") if name == "asyncio" or importlib.util.find_spec("trio")]
"""The suite must also pass where the extra `trio` is not installed."""

LEAVING = 30.0
"""Seconds that a thread or a task which was told to end may take to do so on a loaded machine; none where all is well."""

# Some hundred children import the library; without byte code each would compile it, for a third of a second. It is
# kept in the environment, if there is one, for the next time; the other processes of the suite inherit the folder.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", "") and "PYTHONPYCACHEPREFIX" not in os.environ:
    _byte_code = Path(sys.prefix, "byte-code")
    if sys.prefix == sys.base_prefix or not os.access(sys.prefix, os.W_OK):
        _temporary = tempfile.TemporaryDirectory(prefix="byte-code-")
        _byte_code = Path(_temporary.name)
    os.environ["PYTHONPYCACHEPREFIX"] = str(_byte_code)

hypothesis.settings.register_profile("default", deadline=None, max_examples=30)
# In CI the same cases are tried each time: red means that this change broke something.
hypothesis.settings.register_profile(
    "steady", deadline=None, max_examples=30, derandomize=True, print_blob=True
)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "steady" if os.environ.get("CI") else "default")
)


def pytest_configure(config: pytest.Config) -> None:
    """Measure what tests cost, and note how a process of the suite dies."""
    config.pluginmanager.register(Costs(config), "costs")
    config.pluginmanager.register(Crashes(config), "crashes")


gc.disable()  # until all is collected: it stays, so that there is no garbage to find


def pytest_collection_finish() -> None:
    """Take what the suite itself consists of out of the collector's sight: 170,000 objects, 0.13 s a collection."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _frozen_again() -> Iterator[None]:
    """Put away what a module leaves behind too, and the heap if `leaks` has thawed it: a collection then looks at little.

    It is not asked whether that has happened: gc counts what is frozen object by object, which takes longer.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def thawed() -> Iterator[None]:
    """Let a test see what the collector does in a program that has frozen nothing."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on every event loop that the library promises."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Send temporary files to a folder of this session, where a forgotten one is seen, and work there.

    In the folder where pytest was started others write too: an editor, a person, the other processes of the suite.
    """
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _abandoned_loads_are_no_news() -> Iterator[None]:
    """What is raised in the thread of a load that was given up may come while Python calls back: it can only be told."""
    tell = sys.unraisablehook

    def hook(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not LoadAbandonedError:
            tell(what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", hook)
        yield


@pytest.fixture(autouse=True)
def _nothing_left_behind(_own_temporary_folder: Path) -> Iterator[None]:
    """Fail a test after which there are more threads, open files, files or silent loggers than before."""
    scratch = str(_own_temporary_folder)
    before = _belongings(scratch)
    yield
    if not _belongings(scratch) - before:
        return
    gc.collect()  # what nobody holds any more may still be in a circle
    deadline = time.monotonic() + LEAVING
    while left := _belongings(scratch) - before:
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + ", ".join(sorted(left)), pytrace=False)
        time.sleep(0.01)


def _belongings(scratch: str) -> set[str]:
    return {*_threads(), *_open_files(), *_files(scratch), *_switched_off_loggers()}


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        # Trio keeps idle worker threads for ten seconds under this name; busy ones bear their task's name.
        if not thread.name.startswith("Trio thread "):
            yield f"thread {thread.name} ({thread.ident})"


def _switched_off_loggers() -> Iterator[str]:
    """Name what hears nothing any more: `dictConfig` switches off loggers that tests in another order need."""
    if logging.root.manager.disable:
        yield f"logging.disable({logging.root.manager.disable})"
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.disabled:
            yield f"disabled logger {name}"


def _open_files() -> Iterator[str]:
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a third of a path's time, twice for each of 6,500 tests
    except OSError:  # pragma: no cover - Windows has no such folder
        return
    for name in names:
        try:
            yield f"open file {name} ({os.readlink(f'{folder}/{name}')})"  # noqa: PTH115 - the same
        except OSError:
            continue  # the descriptor of the listing itself


def _files(folder: str) -> Iterator[str]:
    """Name the entries of `folder`, but those of tools, which begin with a dot or two underscores."""
    names = os.listdir(folder)  # noqa: PTH208 - the same
    return (f"file {folder}/{name}" for name in names if not name.startswith((".", "__")))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Watch the loop of each async test, and the tasks that it leaves there."""
    function = pyfuncitem.obj
    blocks_loop = pyfuncitem.get_closest_marker("blocks_loop") is not None
    if inspect.iscoroutinefunction(function):
        pyfuncitem.obj = _guarded(function, watch=not blocks_loop)
    elif hasattr(function, "hypothesis") and inspect.iscoroutinefunction(function.hypothesis.inner_test):
        function.hypothesis.inner_test = _guarded(function.hypothesis.inner_test, watch=not blocks_loop)
    return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is about an extra where that is not installed."""
    for marker in item.iter_markers("needs"):
        pytest.importorskip(marker.args[0])
    if "trio" not in BACKENDS and "trio" in getattr(item, "callspec", SimpleNamespace(id="")).id:
        pytest.skip("trio is not installed")


async def _tasks_since(before: set[int]) -> list[str]:
    """Name the tasks begun since that do not end by themselves, as a watcher's do in the server of a fixture.

    It turns the loop and does not sleep: the clock of the loop may be a virtual one.
    """
    deadline = time.monotonic() + LEAVING
    while left := [str(task.name) for task in anyio.get_running_tasks() if task.id not in before]:
        if time.monotonic() > deadline:
            break
        await anyio.lowlevel.checkpoint()
        time.sleep(0.001)  # noqa: ASYNC251 - a thread for which a task waits needs the processor
    return left


def _guarded(function: Callable[..., Awaitable[Any]], *, watch: bool) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        before = {task.id for task in anyio.get_running_tasks()}
        with LoopWatch() as loop_watch:
            outcome = await function(*args, **kwargs)
        left = await _tasks_since(before)
        if left:
            pytest.fail("tasks left running: " + ", ".join(left), pytrace=False)
        if watch and loop_watch.worst > 1:
            pytest.fail(f"held the loop: {loop_watch.verdict}", pytrace=False)
        return outcome

    return guarded

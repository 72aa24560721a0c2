"""Which line of a stack is the user's."""

from __future__ import annotations

import sys
import threading
import types
import weakref
from pathlib import Path

import pytest

from scattersphere.logs import frames
from scattersphere.logs.frames import is_engine_file, logical_names, user_place

PACKAGE = Path(sys.modules["scattersphere.logs"].__file__).parents[1]


def test_a_place_is_file_line_and_function():
    frame = sys._getframe()
    line = frame.f_code.co_firstlineno + 3
    assert user_place(frame) == f"{__file__}:{line} in {test_a_place_is_file_line_and_function.__name__}"


def test_a_body_that_waits_in_a_library_is_named_by_its_own_line():
    begun, go = threading.Event(), threading.Event()

    def body():
        begun.set()
        go.wait()  # the line that is wanted

    thread = threading.Thread(target=body)
    thread.start()
    begun.wait()
    try:
        place = user_place(sys._current_frames()[thread.ident])
    finally:
        go.set()
        thread.join()
    assert place.startswith(f"{__file__}:")
    assert place.endswith(" in body")


def test_without_code_of_the_user_the_library_is_named():
    timer = threading.Timer(3600, print)  # a thread that consists of the standard library
    timer.start()
    try:
        place = user_place(sys._current_frames()[timer.ident])
    finally:
        timer.cancel()
        timer.join()
    assert "threading.py:" in place


def test_no_frames_no_place():
    assert user_place(None) == ""


def test_a_file_of_a_bundle_is_named_inside_the_bundle():
    code = compile(
        "import sys\ndef f(): return sys._getframe()\n", "/private/store/etl_g7/etl/load.py", "exec"
    )
    module = types.ModuleType("scattersphere.bundles.etl_g7.etl.load")
    exec(code, module.__dict__)
    assert user_place(module.f()) == "etl/load.py:2 in f"


def test_the_init_file_of_a_package_is_named_with_its_folder():
    code = compile(
        "import sys\ndef f(): return sys._getframe()\n", "/private/store/etl_g7/etl/__init__.py", "exec"
    )
    module = types.ModuleType("scattersphere.bundles.etl_g7.etl")
    exec(code, module.__dict__)
    assert user_place(module.f()) == "etl/__init__.py:2 in f"


def test_stock_tasks_and_extras_count_as_a_users_code():
    assert is_engine_file(str(PACKAGE / "execution" / "logs.py"))
    assert not is_engine_file(str(PACKAGE / "tasks" / "shell.py"))
    assert not is_engine_file(str(PACKAGE / "ext" / "x.py"))
    assert not is_engine_file(__file__)


def test_stock_tasks_are_named_also_where_the_package_is_installed_among_libraries(monkeypatch):
    monkeypatch.setattr(frames, "_LIBRARIES", (f"{PACKAGE.parent}/",))
    path = str(PACKAGE / "tasks" / "shell.py")
    module = types.ModuleType("scattersphere.tasks.shell")
    exec(compile("import sys\ndef f(): return sys._getframe()\n", path, "exec"), module.__dict__)
    assert user_place(module.f()) == f"{path}:2 in f"


def test_logical_names_leave_other_names_alone():
    assert logical_names("a scattersphere.bundles.etl_g7.etl.X b") == "a etl.X b"
    assert logical_names("scattersphere.bundles") == "scattersphere.bundles"
    assert logical_names("xscattersphere.bundles.etl_g7.etl") == "xscattersphere.bundles.etl_g7.etl"


def test_the_locals_of_a_deep_recursion_are_let_go_of_with_one_look_at_each_frame():
    held = []

    class Held:
        """Something that a local holds."""

    def recurse(depth):
        thing = Held()
        held.append(weakref.ref(thing))
        if not depth:
            raise ValueError("deep")
        recurse(depth - 1)

    looked = []
    kept = None
    try:
        recurse(800)
    except ValueError as exc:
        kept = exc
    clear = frames._may_be_suspended
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_may_be_suspended", lambda frame: looked.append(1) or clear(frame))
        frames.clear_locals(kept, kept.__traceback__)
    assert not [one for one in held if one() is not None]
    assert len(looked) < 2 * len(held)

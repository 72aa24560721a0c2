"""Large sources are compiled in a child process, and nobody can tell by the result."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
from bundlefiles import task_module

from scattersphere.errors import BundleLoadError
from scattersphere.registry.modules import code_cache
from scattersphere.registry.modules.code_cache import LARGE, compiled_apart

PADDING = "".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(2_000))


def test_the_code_is_the_same_as_that_of_compile():
    source = PADDING.encode()
    assert len(source) > LARGE
    assert compiled_apart(source, "etl/x.py") == compile(source, "etl/x.py", "exec", dont_inherit=True)
    assert compiled_apart(source, "etl/x.py").co_filename == "etl/x.py"


def test_a_small_source_is_worth_no_process():
    assert compiled_apart(b"x = 1", "x.py") is None


@pytest.mark.parametrize("line", ["def (:", "'a' is 'a'", "x = '\\d'", "\0"])
def test_what_the_child_complains_of_is_compiled_here_so_that_it_is_said_here(line):
    assert compiled_apart(f"{PADDING}{line}\n".encode(), "x.py") is None


@pytest.mark.parametrize("executable", [None, "", "/no/such/program", "/bin/false", "/bin/true"])
def test_without_an_interpreter_to_start_it_is_compiled_here(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert compiled_apart(PADDING.encode(), "x.py") is None


def test_a_child_that_takes_too_long_is_given_up(monkeypatch):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    assert compiled_apart(PADDING.encode(), "x.py") is None


@pytest.mark.anyio
async def test_a_bundle_with_a_large_module_loads_and_shows_its_lines(registry, tmp_path, monkeypatch):
    calls = []

    def spy(source, filename):
        code = compiled_apart(source, filename)
        calls.append(code)
        return code

    monkeypatch.setattr(code_cache, "compiled_apart", spy)
    file = tmp_path / "large.py"
    file.write_text(f"{PADDING}{task_module(7)}")
    await registry.register(file)
    assert calls != [None]
    assert registry.find("large.Job").cls().run(None) == 7
    file.write_text(f"{PADDING}{task_module(8)}1 / 0\n")
    with pytest.raises(BundleLoadError, match=r"large\.py:400[0-9]: ZeroDivisionError"):
        await registry.reload("large")


@pytest.mark.anyio
async def test_a_syntax_error_and_a_warning_of_a_large_module_are_told(registry, tmp_path):
    file = tmp_path / "large.py"
    file.write_text(f"{PADDING}def (:\n")
    with pytest.raises(BundleLoadError, match=r"large.py:4001: SyntaxError: .*: def \(:"):
        await registry.register(file)
    file.write_text(f"{PADDING}{task_module(8)}'a' is 'a'\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await registry.register(file)
    assert [str(warning.category.__name__) for warning in caught] == ["SyntaxWarning"]


@pytest.mark.anyio
async def test_a_module_that_is_too_deep_for_the_compiler_is_named(registry, tmp_path):
    file = tmp_path / "deep.py"
    file.write_text(f"x = {'-' * 200_000}1\n")
    with pytest.raises(BundleLoadError, match=r"deep\.py:1: SyntaxError: too deeply nested to be compiled"):
        await registry.register(file)


def test_a_source_on_which_the_compiler_crashes_is_not_compiled_here(monkeypatch):
    crashed = subprocess.CompletedProcess([], -11, b"", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crashed)
    with pytest.raises(SyntaxError, match="the compiler crashes") as caught:
        compiled_apart(PADDING.encode(), "x.py")
    assert caught.value.filename == "x.py"

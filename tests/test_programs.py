"""A program that stands still is not only killed: it says where."""

import sys

import pytest
from programs import run_program


def test_a_program_that_stands_still_shows_its_stacks() -> None:
    with pytest.raises(
        pytest.fail.Exception, match=r"(?s)stood still for 0.5 s:.*File .*, line 1 in <module>"
    ):
        run_program([sys.executable, "-S", "-c", "while True: pass"], patience=0.5)


def test_what_a_program_has_written_comes_back() -> None:
    done = run_program([sys.executable, "-S", "-c", "print('hello'); import sys; sys.exit('no')"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "hello\n", "no\n")

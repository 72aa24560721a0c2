"""An exception of another process keeps its name, bases and message, whatever its class does."""

from __future__ import annotations

import builtins
import pickle

import pytest

from scattersphere import errors
from scattersphere.logs.failures import FAILURE_LIMIT
from scattersphere.logs.remotefailure import RemoteFailure

BUILTIN = [
    cls
    for cls in vars(builtins).values()
    if isinstance(cls, type) and issubclass(cls, BaseException) and not issubclass(cls, BaseExceptionGroup)
]


def crossed(exc: BaseException) -> BaseException:
    return pickle.loads(pickle.dumps(RemoteFailure.of(exc))).rebuild()


@pytest.mark.parametrize("cls", BUILTIN, ids=lambda cls: cls.__name__)
def test_every_builtin_exception_crosses(cls):
    exc = cls.__new__(cls, "no such day")
    exc.args = ("no such day",)
    back = crossed(exc)
    assert type(back).__name__ == cls.__name__
    assert isinstance(back, cls)
    assert str(back) == str(exc)


def test_our_own_errors_stay_what_they_are():
    back = crossed(errors.NonRetryableError("never"))
    assert isinstance(back, errors.NonRetryableError)
    assert str(back) == "never"


def test_groups_keep_their_name_and_message():
    for group in (
        ExceptionGroup("several", [ValueError()]),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ):
        back = crossed(group)
        assert type(back).__name__ == type(group).__name__
        assert str(back) == str(group)
        assert isinstance(back, Exception) == isinstance(group, Exception)


def test_bases_of_two_families_are_kept():
    class BothError(KeyError, OSError):
        pass

    back = crossed(BothError("x"))
    assert isinstance(back, KeyError)
    assert isinstance(back, OSError)


def test_an_exception_that_cannot_be_shown_crosses():
    class SilentError(Exception):
        def __str__(self):
            raise SystemExit

    assert "cannot be shown" in str(crossed(SilentError()))


def test_a_huge_message_is_cut():
    assert len(str(crossed(ValueError("x" * 10_000_000)))) <= FAILURE_LIMIT


def test_a_nested_class_keeps_its_qualified_name():
    class OuterError(Exception):
        class InnerError(Exception):
            pass

    back = crossed(OuterError.InnerError("x"))
    assert type(back).__qualname__ == OuterError.InnerError.__qualname__
    assert type(back).__module__ == __name__

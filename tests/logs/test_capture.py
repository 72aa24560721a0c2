# ruff: noqa: T201 - prints are what is tested
"""Standard logging of bundles, and prints, in the log of the right run; the host's logging as it was."""

from __future__ import annotations

import contextvars
import io
import logging
import logging.config
import sys
import threading

import pytest

from scattersphere.logs.capture import capture_bundle_loggers, capture_print
from scattersphere.logs.runlog import RunLog, current_attempt

NAME = "scattersphere.bundles.etl_g7.etl.load"


class Attempt:
    def __init__(self, number: int = 1, task: str = "load") -> None:
        self.run_log = RunLog(number, takes_prints=True)
        self.run_id, self.task, self.index, self.attempt = number, task, None, 1


@pytest.fixture
def attempt():
    made = Attempt()
    token = current_attempt.set(made)
    yield made
    current_attempt.reset(token)


class Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture
def host():
    """The host's root logger as a host would have it: one handler, level WARNING."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    handler = Collecting()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    yield handler
    root.handlers[:] = before
    root.setLevel(level)


def said(attempt) -> list[str]:
    return [line.message for line in attempt.run_log.lines()]


def test_lines_of_a_bundles_logger_go_to_the_run_under_their_logical_name(attempt, host):
    with capture_bundle_loggers():
        logging.getLogger(NAME).info("hello %s", "you")
    (line,) = attempt.run_log.lines()
    assert (line.logger, line.level, line.message, line.task) == (
        "etl.load",
        logging.INFO,
        "hello you",
        "load",
    )


def test_the_host_sees_what_it_would_have_seen_without_us_and_no_more(attempt, host):
    logger = logging.getLogger(NAME)
    with capture_bundle_loggers():
        logger.info("info")
        logger.warning("warning")
    assert host.messages == ["warning"]
    assert said(attempt) == ["info", "warning"]


def test_outside_an_attempt_lines_go_to_the_host_only(host):
    with capture_bundle_loggers():
        logging.getLogger(NAME).warning("at import")
    assert host.messages == ["at import"]


def test_a_level_that_the_host_has_set_on_bundles_is_kept_to(attempt, host):
    bundles = logging.getLogger("scattersphere.bundles")
    bundles.setLevel(logging.ERROR)
    try:
        with capture_bundle_loggers():
            logging.getLogger(NAME).warning("warning")
            logging.getLogger(NAME).error("error")
        assert bundles.level == logging.ERROR
    finally:
        bundles.setLevel(logging.NOTSET)
    assert host.messages == ["error"]
    assert said(attempt) == ["warning", "error"]


def test_a_level_that_a_bundle_sets_on_its_own_logger_is_kept_to(attempt, host):
    logger = logging.getLogger(NAME + ".verbose")
    logger.setLevel(logging.DEBUG)
    attempt.run_log.level = logging.DEBUG
    with capture_bundle_loggers():
        logger.debug("debug")
    assert said(attempt) == ["debug"]
    assert host.messages == ["debug"]  # as it would be without us: handlers above have no level of their own


def test_lines_below_the_runs_level_are_not_kept(attempt, host):
    attempt.run_log.level = logging.ERROR
    with capture_bundle_loggers():
        logging.getLogger(NAME).warning("warning")
    assert said(attempt) == []
    assert host.messages == ["warning"]


def test_without_forwarding_the_hosts_handlers_see_nothing(attempt, host):
    with capture_bundle_loggers(forward=False):
        logging.getLogger(NAME).error("error")
    assert host.messages == []
    assert said(attempt) == ["error"]


def test_a_host_that_stops_propagation_gets_no_record_in_its_root(attempt, host):
    bundles = logging.getLogger("scattersphere.bundles")
    bundles.propagate = False
    try:
        with capture_bundle_loggers():
            logging.getLogger(NAME).error("error")
        assert not bundles.propagate
    finally:
        bundles.propagate = True
    assert host.messages == []


def test_afterwards_logging_is_as_it_was(attempt, host):
    before = logging.getLoggerClass()
    with capture_bundle_loggers(), capture_bundle_loggers(logging.DEBUG):
        logging.getLogger(NAME).debug("debug")
    assert logging.getLoggerClass() is before
    logging.getLogger(NAME).error("error")
    assert said(attempt) == []
    assert host.messages == ["error"]


def test_the_hosts_loggers_are_of_the_hosts_class(monkeypatch):
    class Hosts(logging.Logger):
        def shout(self):
            return "ho"

    monkeypatch.setattr(logging, "_loggerClass", Hosts)
    with capture_bundle_loggers():
        assert type(logging.getLogger("test_capture.hosts")) is Hosts
        assert logging.getLogger(f"{NAME}.with_the_hosts_methods").shout() == "ho"

        class Derived(logging.getLoggerClass()):
            pass

        assert type(Derived("test_capture.derived")) is Derived
    assert logging.getLoggerClass() is Hosts


SWITCHES = {
    "disable": lambda: logging.disable(logging.CRITICAL),
    "dictConfig": lambda: logging.config.dictConfig({"version": 1}),
    "dictConfig of a parent": lambda: logging.config.dictConfig(
        {"version": 1, "loggers": {"scattersphere": {"level": "CRITICAL", "propagate": False}}}
    ),
    "level": lambda: logging.getLogger("scattersphere.bundles").setLevel(logging.CRITICAL),
    "filter": lambda: logging.getLogger("scattersphere.bundles").addFilter(lambda record: False),
    "propagate": lambda: setattr(logging.getLogger("scattersphere.bundles"), "propagate", False),
}


@pytest.fixture
def switches_put_back():
    names = ["scattersphere", "scattersphere.bundles"]
    before = [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names]
    yield
    logging.disable(logging.NOTSET)
    for name, (level, propagate) in zip(names, before, strict=True):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, False
        logger.filters.clear()
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
def test_no_switch_of_the_hosts_logging_takes_a_line_from_a_run(attempt, host, switches_put_back, switch):
    with capture_bundle_loggers():
        logger = logging.getLogger(f"{NAME}.made_before")
        switch()
        logger.info("before")
        logging.getLogger(f"{NAME}.made_after").info("after")
        logging.getLogger(f"{NAME}.made_after").error("an error that only the host did not want")
    assert said(attempt) == ["before", "after", "an error that only the host did not want"]
    if switch is SWITCHES["disable"]:
        assert host.messages == []


def test_a_filter_of_a_bundles_own_holds_for_its_run(attempt, host):
    logger = logging.getLogger(f"{NAME}.filtered")
    logger.addFilter(lambda record: "secret" not in record.getMessage())
    with capture_bundle_loggers():
        logger.error("a secret")
        logger.error("an error")
    assert said(attempt) == ["an error"]
    assert host.messages == ["an error"]


def test_handlers_of_a_bundles_own_get_its_records_once(attempt, host):
    handler = Collecting()
    with capture_bundle_loggers():
        logger = logging.getLogger(f"{NAME}.own")
        logger.addHandler(handler)
        logger.error("error")
    with capture_bundle_loggers(forward=False):
        logger.error("error in a worker process")
    assert handler.messages == ["error", "error in a worker process"]
    assert host.messages == ["error"]


def test_several_servers_share_one_hook_and_the_last_removes_it(attempt, host):
    first, second = capture_bundle_loggers(), capture_bundle_loggers(logging.ERROR)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    logging.getLogger(NAME).info("info")
    logging.getLogger(NAME).error("error")
    second.__exit__(None, None, None)
    assert said(attempt) == ["error"]
    assert host.messages == ["error"]


# -- print


def test_prints_go_to_the_run_line_by_line(attempt, capsys):
    with capture_print():
        print("one\ntwo")
        print("three", "four", sep="-")
    assert said(attempt) == ["one", "two", "three-four"]
    assert attempt.run_log.lines()[0].logger == "print"
    assert capsys.readouterr().out == ""


def test_prints_outside_an_attempt_go_where_they_went(capsys):
    with capture_print():
        print("host")
    assert capsys.readouterr().out == "host\n"


def test_prints_are_not_captured_unless_asked_for(attempt, capsys):
    print("plain")
    assert capsys.readouterr().out == "plain\n"
    assert said(attempt) == []


def test_a_line_without_an_end_is_written_when_its_attempt_is_over(capsys):
    attempt = Attempt()

    def body():
        current_attempt.set(attempt)
        print("half", end="")

    with capture_print():
        context = contextvars.copy_context()
        context.run(body)
        assert said(attempt) == []
        del context
    assert said(attempt) == ["half"]


def test_a_line_that_never_ends_does_not_grow_for_ever(attempt, capsys):
    with capture_print():
        for _ in range(100):
            print("x" * 1_000, end="")
        assert len(attempt.run_log) >= 5


def test_prints_of_threads_with_other_attempts_do_not_mix(capsys):
    attempts = [Attempt(number) for number in range(20)]

    def body(attempt):
        current_attempt.set(attempt)
        for _ in range(50):
            print(attempt.run_id, end="")
            print(".")

    with capture_print():
        threads = [threading.Thread(target=contextvars.Context().run, args=(body, one)) for one in attempts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for attempt in attempts:
        assert said(attempt) == [f"{attempt.run_id}."] * 50


def test_standard_output_is_put_back(capsys):
    before = sys.stdout
    with capture_print():
        assert sys.stdout is not before
        with capture_print():
            pass
        assert sys.stdout is not before
    assert sys.stdout is before


def test_somebody_elses_standard_output_is_left_in_place(attempt, monkeypatch):
    theirs = io.StringIO()
    with capture_print():
        ours = sys.stdout
        monkeypatch.setattr(sys, "stdout", theirs)
    assert sys.stdout is theirs
    ours.write("late\n")  # kept by somebody: it goes where it would have gone without us
    assert said(attempt) == []


def test_the_stand_in_offers_what_the_real_one_does(capsys):
    real = sys.stdout
    with capture_print():
        assert sys.stdout.encoding == real.encoding
        assert sys.stdout.isatty() == real.isatty()
        assert sys.stdout.writable()
        sys.stdout.flush()
        sys.stdout.close()
        print("still open")
    assert "still open" in capsys.readouterr().out

"""The log of a run: bounded, ordered, and no line in another's."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import gc
import json
import logging
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.logs.runlog import LINE_LIMIT, RunLog, current_attempt, task_logger, write_record
from scattersphere.model.logs import _UNSAFE, LogLine, make_printable


class Attempt:
    """As much of an attempt as a log line needs."""

    def __init__(
        self, run_log: RunLog, task: str = "load", index: int | None = None, attempt: int = 1
    ) -> None:
        self.run_log = run_log
        self.run_id = run_log.run
        self.task = task
        self.index = index
        self.attempt = attempt


def messages(log: RunLog, **chosen) -> list[str]:
    return [line.message for line in log.lines(**chosen)]


# -- lines


def test_a_line_knows_where_it_comes_from():
    log = RunLog(17)
    task_logger(Attempt(log, "load", 3, 2), log).warning("day %s", "Monday")
    (line,) = log.lines()
    assert (line.run, line.task, line.index, line.attempt) == (17, "load", 3, 2)
    assert (line.level, line.logger, line.message) == (logging.WARNING, "task", "day Monday")
    assert line.time.tzinfo is dt.UTC
    assert abs(line.time.timestamp() - time.time()) < 60


def test_a_line_is_made_for_a_terminal():
    line = LogLine(
        time=dt.datetime(2026, 11, 24, 20, 15, 3, 4_000, tzinfo=dt.UTC),
        run=17, task="load", index=3, attempt=2, level=20, logger="task", message="done",
    )  # fmt: skip
    assert str(line) == "2026-11-24 20:15:03.004 #17 load[3]/2 INFO    done"


def test_a_message_cannot_forge_a_line_or_steer_the_terminal():
    line = LogLine(
        time=dt.datetime(2026, 11, 24, tzinfo=dt.UTC), run=1, task="a", level=20, logger="task",
        message="x\n2026-11-24 00:00:00.000 #2 b INFO forged\r\x1b[2Jy\u202ez\ud800",
    )  # fmt: skip
    _, second = str(line).split("\n")
    assert second.startswith("    2026")
    assert "\\r\\x1b[2Jy\\u202ez\\ud800" in second


@given(st.text())
def test_what_is_printable_can_be_encoded_and_holds_no_control_characters(text):
    shown = make_printable(text)
    shown.encode()
    assert all(char in "\n\t" or char.isprintable() or ord(char) >= 0xA0 for char in shown)


def test_whatever_would_steer_a_terminal_alone_is_written_out():
    """Most texts are not searched: what Python takes for printable may hold none of it."""
    assert not [
        char for char in map(chr, range(sys.maxunicode + 1)) if _UNSAFE.match(char) and char.isprintable()
    ]


def test_a_long_line_loses_its_middle():
    log = RunLog(1)
    log.append(20, "begin" + "x" * 100_000 + "end")
    (message,) = messages(log)
    assert len(message) == LINE_LIMIT
    assert message.startswith("begin")
    assert message.endswith("end")


# -- choosing lines


def filled() -> RunLog:
    log = RunLog(1)
    for task, index, attempt in [("a", None, 1), ("b", 0, 1), ("b", 1, 1), ("b", 1, 2), ("c", None, 1)]:
        log.append_for(Attempt(log, task, index, attempt), 20, f"{task}{index}{attempt}")
    return log


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["aNone1", "b01", "b11", "b12", "cNone1"]),
        ({"task": "b"}, ["b01", "b11", "b12"]),
        ({"task": "b", "index": 1}, ["b11", "b12"]),
        ({"index": 0}, ["b01"]),
        ({"attempt": 2}, ["b12"]),
        ({"tail": 2}, ["b12", "cNone1"]),
        ({"task": "b", "tail": 1}, ["b12"]),
        ({"tail": 0}, []),
        ({"tail": -1}, []),
        ({"tail": 100}, ["aNone1", "b01", "b11", "b12", "cNone1"]),
        ({"task": "nobody"}, []),
    ],
)
def test_lines_are_chosen_by_all_that_is_given(chosen, expected):
    assert messages(filled(), **chosen) == expected


def test_a_follower_reads_each_line_once():
    log = RunLog(1)
    assert log.since(0) == ([], 0)
    log.append(20, "one")
    log.append(20, "two")
    lines, number = log.since(0)
    assert [line.message for line in lines] == ["one", "two"]
    assert log.since(number) == ([], number)
    log.append(20, "three")
    lines, number = log.since(number)
    assert [line.message for line in lines] == ["three"]
    assert number == log.last_number == 3


def test_a_follower_who_is_late_is_told_that_lines_are_missing():
    log = RunLog(1, limit_bytes=3_000)
    log.append(20, "first")
    _, number = log.since(0)
    for count in range(50):
        log.append(20, f"line {count}")
    lines, number = log.since(number)
    assert "dropped" in lines[0].message
    assert lines[-1].message == "line 49"
    assert number == 51


# -- bounds


@given(st.lists(st.integers(0, 3_000), max_size=60), st.integers(0, 20_000))
def test_memory_is_bounded_and_the_newest_lines_stay(sizes, limit):
    log = RunLog(1, limit_bytes=limit)
    for number, size in enumerate(sizes):
        log.append(20, f"{number}:" + "x" * size)
        assert log.size <= limit or len(log) == 1
    kept = [message for message in messages(log) if "dropped; the limit" not in message]
    expected = [f"{number}:" + "x" * size for number, size in enumerate(sizes)]
    assert kept == expected[len(expected) - len(kept) :]
    assert log.last_number == len(sizes)


def test_a_marker_stands_where_lines_were_dropped():
    log = RunLog(1, limit_bytes=2_000)
    for count in range(20):
        log.append(20, f"line {count}")
    marker, *rest = log.lines()
    assert marker.message == f"... {20 - len(rest)} older lines dropped; the limit is 2000 bytes"
    assert marker.level == logging.WARNING
    assert marker.time <= rest[0].time
    assert "dropped" in log.lines(task="")[0].message
    assert log.lines(tail=1)[0].message == "line 19"
    assert "dropped" in log.lines(tail=len(rest) + 1)[0].message


def test_the_size_is_not_far_from_what_the_lines_really_take():
    import tracemalloc

    gc.collect()
    tracemalloc.start()
    log = RunLog(1, limit_bytes=200_000)
    for count in range(5_000):
        log.append_for(Attempt(log), 20, f"line {count}" + "x" * 50)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.5 * log.size < taken < 1.5 * log.size


# -- levels and loggers


def test_lines_below_the_level_of_the_log_are_not_taken():
    log = RunLog(1)
    logger = task_logger(Attempt(log), log)
    logger.debug("hidden")
    assert not logger.isEnabledFor(logging.DEBUG)
    log.level = logging.INFO
    logger.info("shown")
    assert messages(log) == ["shown"]


def test_no_switch_of_the_hosts_logging_takes_a_line_from_a_task(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the host's own")

    log = RunLog(1)
    logger = task_logger(Attempt(log), log)
    monkeypatch.setattr(logging, "_logRecordFactory", broken)
    logging.disable(logging.CRITICAL)
    try:
        logger.info("one", extra={"shop": 3}, stacklevel=2)
    finally:
        logging.disable(logging.NOTSET)
    assert messages(log) == ["one"]


def test_no_handler_of_the_host_sees_the_lines_of_tasks(caplog):
    with caplog.at_level(logging.DEBUG):
        task_logger(Attempt(RunLog(1)), RunLog(1)).critical("for the run only")
    assert caplog.records == []


def test_an_exception_is_logged_with_its_traceback():
    log = RunLog(1)
    try:
        int("no such day")
    except ValueError:
        task_logger(Attempt(log), log).exception("gave up on %s", "Monday")
    (message,) = messages(log)
    assert message.startswith("gave up on Monday\nTraceback")
    assert message.endswith("ValueError: invalid literal for int() with base 10: 'no such day'")


def test_a_stack_and_a_kept_traceback_are_logged_too():
    log = RunLog(1)
    task_logger(Attempt(log), log).info("here", stack_info=True)
    record = logging.LogRecord("x", 20, __file__, 1, "there", (), None)
    record.exc_text = "kept text"
    write_record(Attempt(log), record)
    assert "test_a_stack_and_a_kept_traceback" in messages(log)[0]
    assert messages(log)[1] == "there\nkept text"


def test_a_line_that_cannot_be_formatted_is_still_a_line():
    class Bad:
        def __str__(self):
            raise RuntimeError

    log = RunLog(1)
    task_logger(Attempt(log), log).info("%d of %s", "text", Bad())
    task_logger(Attempt(log), log).info("%s", Bad())
    assert all("cannot be formatted" in message for message in messages(log))
    assert len(log) == 2


def test_the_names_of_bundle_loggers_are_logical():
    log = RunLog(1)
    write_record(
        Attempt(log), logging.LogRecord("scattersphere.bundles.etl_g7.etl.load", 20, "", 1, "x", (), None)
    )
    assert log.lines()[0].logger == "etl.load"


# -- threads


def test_threads_lose_no_line():
    log = RunLog(1, limit_bytes=1 << 30)

    def write(number):
        for count in range(500):
            log.append(20, f"{number}:{count}", task=str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log) == 4_000
    for number in range(8):
        assert messages(log, task=str(number)) == [f"{number}:{count}" for count in range(500)]


def test_a_finalizer_that_logs_while_a_line_is_appended_does_not_hang():
    log = RunLog(1)

    class Last:
        def __del__(self):
            log.append(20, "from __del__")

    class Message(str):
        __slots__ = ("held",)

        def __len__(self):  # is called while the line is being appended
            self.held = None
            return 5

    message = Message("hello")
    message.held = Last()
    with log._guard:
        log.append(20, message)
    assert messages(log) == ["from __del__", "hello"]


@pytest.mark.anyio
async def test_with_200_runs_side_by_side_each_line_is_in_its_own_run():
    """Async bodies, their child tasks, and threads, all writing through `current_attempt` at once."""
    logs = [RunLog(number) for number in range(200)]
    record = logging.LogRecord

    def say(word):
        attempt = current_attempt.get()
        write_record(
            attempt, record("scattersphere.bundles.b_g1.b", 20, "", 1, f"{word} {attempt.run_id}", (), None)
        )

    async def body(number):
        current_attempt.set(Attempt(logs[number]))
        for _ in range(3):
            say("async")
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(child)
        await anyio.to_thread.run_sync(say, "thread")

    async def child():
        await anyio.lowlevel.checkpoint()
        say("child")

    async with anyio.create_task_group() as runs:
        for number in range(200):
            runs.start_soon(body, number)
    for number, log in enumerate(logs):
        assert sorted(messages(log)) == sorted(
            f"{word} {number}" for word in ("async", "async", "async", "child", "child", "thread")
        )
    assert current_attempt.get() is None


def test_without_an_attempt_there_is_no_current_one():
    assert contextvars.Context().run(current_attempt.get) is None
    assert asyncio.run(_current()) is None


async def _current():
    return current_attempt.get()


# -- spill and listener


def test_the_spill_file_gets_every_line_also_those_that_memory_drops(tmp_path):
    file = tmp_path / "run.log"
    log = RunLog(1, limit_bytes=1_000, spill=file)
    assert not file.exists()
    for count in range(50):
        log.append(20, f"line {count}")
    lines = file.read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == [f"line {count}" for count in range(50)]
    log.close()
    log.append(20, "after")
    assert len(file.read_text().splitlines()) == 50
    assert messages(log, tail=1) == ["after"]


def test_a_spill_file_that_cannot_be_written_is_reported_once_and_harms_nobody(tmp_path):
    log = RunLog(1, spill=tmp_path / "no such folder" / "run.log")
    log.append(20, "one")
    log.append(20, "two")
    first, report, second = messages(log)
    assert (first, second) == ("one", "two")
    assert "no longer written" in report
    assert "No such file or directory" in report


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_reported_and_harms_nobody():
    log = RunLog(1, spill="/dev/full")
    log.append(20, "one")
    assert "No space left on device" in messages(log)[1]


def test_a_spilled_line_with_lone_surrogates_is_written(tmp_path):
    log = RunLog(1, spill=tmp_path / "run.log")
    log.append(20, "\ud800")
    log.close()
    assert "\\ud800" in (tmp_path / "run.log").read_text()


def test_the_listener_is_told_each_line():
    seen = []
    log = RunLog(5)
    log.listener = lambda _clock: seen.append(log.entry(log.last_number)[6])
    log.append(20, "one", task="a")
    log.append(20, "two", task="a")
    assert seen == ["one", "two"]


def test_a_line_that_was_dropped_is_none():
    log = RunLog(5, limit_bytes=1)
    log.append(20, "one")
    log.append(20, "two")
    assert (log.entry(0), log.entry(1), log.entry(2)[6], log.entry(3)) == (None, None, "two", None)

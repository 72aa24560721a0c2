"""The whole log in a file: what memory drops can still be read, followed, and is gone with its run."""

import itertools
import json

import anyio
import pytest
from patience import PATIENCE

from scattersphere import RunnableTask, Server
from scattersphere.logs.runlog import RunLog

pytestmark = pytest.mark.anyio


class Talk(RunnableTask):
    """Log so many lines."""

    times: int

    async def run(self, context):
        for number in range(self.times):
            context.log.info("line %d", number)


class TalkSlowly(RunnableTask):
    """Log a line at each step of the gate."""

    gate: object

    async def run(self, context):
        for number in range(3):
            context.log.info("line %d", number)
            await self.gate.wait()


class TalkInThread(RunnableTask):
    """Log so many lines in a thread."""

    times: int

    def run(self, context):
        for number in range(self.times):
            context.log.info("line %d", number)


CLASSES = [Talk, TalkSlowly, TalkInThread]


def filled(file, lines=50):
    """Return a log of which memory holds the last three lines, on every Python: from 3.12 on a str takes 8 bytes less."""
    log = RunLog(1, limit_bytes=900, spill=file)
    for count in range(lines):
        log.append(20, f"line {count}", task="ab"[count % 2], index=count % 3, attempt=1 + count // 25)
    return log


def numbers(lines):
    return [int(line.message.split()[-1]) for line in lines]


async def test_what_memory_has_dropped_is_read_from_the_file(tmp_path):
    log = filled(tmp_path / "1.jsonl")
    assert len(log) < 10
    assert numbers(log.lines()) == list(range(50))
    assert numbers(log.lines(task="b", index=0)) == [3, 9, 15, 21, 27, 33, 39, 45]
    assert numbers(log.lines(attempt=1)) == list(range(25))
    log.discard()


@pytest.mark.parametrize("tail", [0, 1, 3, 10, 49, 50, 51])
async def test_a_tail_reaches_over_memory_and_file(tmp_path, tail):
    log = filled(tmp_path / "1.jsonl")
    assert numbers(log.lines(tail=tail)) == list(range(50))[50 - tail if tail < 50 else 0 :]
    log.discard()


async def test_a_follower_reads_each_line_once_over_memory_and_file(tmp_path):
    log = filled(tmp_path / "1.jsonl")
    found, number = log.since(0)
    log.append(20, "line 50")
    more, number = log.since(number)
    assert numbers(found + more) == list(range(51))
    assert log.since(number) == ([], 51)
    assert numbers(log.since(20)[0]) == list(range(20, 51))
    log.discard()


async def test_lines_read_from_the_file_are_equal_to_those_of_memory(tmp_path):
    def sevenths():
        return (1e9 + number / 7 for number in itertools.count()).__next__

    small = RunLog(1, limit_bytes=1, spill=tmp_path / "1.jsonl", clock=sevenths())
    large = RunLog(1, clock=sevenths())
    for log in (small, large):
        for index, message in enumerate(
            ["plain", "two\nlines", "tab\t\u2028 \x1b[31m", "Grüße", "\ud800", ""]
        ):
            log.append(17 + index, message, task="t", index=index or None, logger="etl.load")
    assert small.lines() == large.lines()
    small.discard()


GAP = " was cut, removed or changed by others"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda file: file.unlink(), ["... 47 lines missing", 47, 48, 49]),
        (lambda file: file.write_text(""), ["... 47 lines missing", 47, 48, 49]),
        (lambda file: file.write_text("[]\n{}\n3\nnull\n[[[\n" * 20), ["... 47 lines missing", 47, 48, 49]),
        (lambda file: file.write_text("[" * 100_000), ["... 47 lines missing", 47, 48, 49]),
        (lambda file: file.write_bytes(b"\xff\x00" * 99), ["... 47 lines missing", 47, 48, 49]),
        (
            lambda file: file.write_text(file.read_text()[: file.read_text().index("\n") + 11]),
            [0, "... 46 lines missing", 47, 48, 49],
        ),
        (
            lambda file: file.write_text("".join(file.read_text().splitlines(keepends=True)[1::2])),
            None,
        ),
    ],
    ids=["removed", "emptied", "other JSON", "deep JSON", "bytes", "cut", "every second line"],
)
async def test_a_marker_stands_where_others_have_taken_lines_out_of_the_file(tmp_path, spoil, expected):
    log = filled(tmp_path / "1.jsonl")
    spoil(tmp_path / "1.jsonl")

    def shown(lines):
        return [
            line.message.partition(":")[0] if line.message.startswith("...") else numbers([line])[0]
            for line in lines
        ]

    found = shown(log.lines())
    if expected is None:
        marker = "... 1 line missing"
        expected = [each for number in range(1, 47, 2) for each in (marker, number)] + [marker, 47, 48, 49]
    assert found == expected
    assert shown(log.since(0)[0]) == expected
    assert shown(log.lines(tail=2)) == [48, 49]
    assert all(GAP in line.message for line in log.lines() if line.message.startswith("..."))
    times = [line.time for line in log.lines()]
    assert times == sorted(times)
    log.discard()


async def test_a_file_that_was_emptied_meanwhile_gets_the_lines_that_come_after_it(tmp_path):
    log = filled(tmp_path / "1.jsonl", 25)
    with (tmp_path / "1.jsonl").open("r+") as file:  # as logrotate's copytruncate does
        file.truncate()
    for count in range(25, 50):
        log.append(20, f"line {count}", task="a")
    marker, *lines = log.lines()
    assert marker.message.startswith("... 25 lines missing")
    assert numbers(lines) == list(range(25, 50))
    log.discard()


@pytest.mark.parametrize("tail", [0, 50, 51, 10**30])
async def test_a_tail_may_be_longer_than_anything(tmp_path, tail):
    log = filled(tmp_path / "1.jsonl")
    assert numbers(log.lines(tail=tail)) == list(range(50 - min(tail, 50), 50))
    log.discard()
    async with Server() as server:
        server.register_tasks("app", [Talk])
        run = await (await server.start_task("Talk", {"times": 3})).wait()
        assert len(run.logs(tail=tail)) == min(tail, 3)
        assert len([line async for line in run.follow_logs(tail=tail)]) == min(tail, 3)
        assert len(server.logs(tail=tail)) == min(tail, 2)
        assert server.bundle_logs(tail=tail) == []


@pytest.mark.parametrize("arguments", [{"tail": -1}, {"index": -1}, {"attempt": 0}])
async def test_who_follows_lines_is_told_what_is_wrong_at_once(arguments):
    async with Server() as server:
        server.register_tasks("app", [Talk])
        run = await (await server.start_task("Talk", {"times": 3})).wait()
        with pytest.raises(ValueError, match="is at least"):
            run.follow_logs(**arguments)


@pytest.fixture
async def server(tmp_path):
    async with Server(
        log_limit=2_000, log_folder=tmp_path / "logs", history=(2, 3600.0), grace=0.2
    ) as server:
        server.register_tasks("app", CLASSES)
        yield server


async def test_a_server_writes_each_run_into_a_file_and_reads_all_of_it(server):
    run = await (await server.start_task("Talk", {"times": 500})).wait(PATIENCE)
    assert numbers(run.logs()) == list(range(500))
    rows = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert len(rows) == 500
    assert rows[7]["message"] == "line 7"
    assert (rows[7]["task"], rows[7]["attempt"], rows[7]["level"]) == ("Talk", 1, "INFO")
    assert run.log_file.parent.stat().st_mode & 0o777 == 0o700


async def test_the_file_goes_with_its_run_and_stays_when_the_server_closes(tmp_path):
    async with Server(log_folder=tmp_path, history=(2, 3600.0)) as server:
        server.register_tasks("app", CLASSES)
        files = [
            (await (await server.start_task("Talk", {"times": 1})).wait(PATIENCE)).log_file for _ in range(4)
        ]
        assert [file.exists() for file in files] == [False, False, True, True]
    assert [file.exists() for file in files] == [False, False, True, True]


async def test_two_servers_share_a_folder_without_touching_each_others_files(tmp_path):
    async with Server(log_folder=tmp_path) as one, Server(log_folder=tmp_path) as other:
        for server in (one, other):
            server.register_tasks("app", CLASSES)
            await (await server.start_task("Talk", {"times": 1})).wait(PATIENCE)
        assert one.runs[1].log_file != other.runs[1].log_file
    assert len(list(tmp_path.glob("*/1.jsonl"))) == 2


async def test_without_a_folder_there_is_no_file():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("Talk", {"times": 1})).wait(PATIENCE)
        assert run.log_file is None


async def test_a_log_is_followed_from_its_first_line_to_the_end_of_the_run(server):
    gate = anyio.Event()
    run = await server.start_task("TalkSlowly", {"gate": gate})
    found = []
    async for line in run.follow_logs():
        found.append(line)
        gate.set()
    assert numbers(found) == [0, 1, 2]
    assert run.state.ended


async def test_a_thread_wakes_those_who_follow_its_log(server):
    run = await server.start_task("TalkInThread", {"times": 200})
    assert numbers([line async for line in run.follow_logs("TalkInThread", attempt=1)]) == list(range(200))


async def test_following_may_begin_with_the_last_lines(server):
    run = await (await server.start_task("Talk", {"times": 500})).wait(PATIENCE)
    assert numbers([line async for line in run.follow_logs(tail=3)]) == [497, 498, 499]
    assert [line async for line in run.follow_logs("other")] == []

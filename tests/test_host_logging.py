"""The host's own logging is told of failures and of what tasks log: one record each, with fields, whatever it is set to."""

import json
import logging
import logging.config
import sys

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, TaskCrashedError

pytestmark = pytest.mark.anyio


class Fail(RunnableTask):
    """Raise."""

    async def run(self, context):
        raise ValueError("no such day")


class Flaky(RunnableTask):
    """Fail once."""

    async def run(self, context):
        if context.attempt == 1:
            raise ValueError("once")


class Slow(RunnableTask):
    """Wait."""

    async def run(self, context):
        await anyio.sleep_forever()


class Crash(RunnableTask):
    """Say that what carried it out has died."""

    async def run(self, context):
        raise TaskCrashedError("its machine is gone")


class Say(RunnableTask):
    """Log a line by each means."""

    async def run(self, context):
        context.log.info("by context.log: %d", 1, extra={"rows": 7})
        logging.getLogger("app.parts").warning("by a logger of the host")


class SayInThread(RunnableTask):
    """Log from a thread."""

    def run(self, context):
        context.log.info("from a thread")
        logging.getLogger("app").warning("host's logger in a thread")


class SayInProcess(RunnableTask):
    """Log from a worker process."""

    def run(self, context):
        context.log.info("from a process")


CLASSES = [Fail, Flaky, Slow, Crash, Say, SayInThread, SayInProcess]


def job(path, **fields):
    return JobDefinition.build("etl").task("load", path, **fields)


def of(caplog, name):
    return [record for record in caplog.records if record.name == name]


async def run_of(server, definition):
    return await (await server.start(definition)).wait(PATIENCE)


@pytest.fixture
async def server():
    async with Server(grace=1) as server:
        server.register_tasks("app", CLASSES)
        yield server


async def test_a_failed_task_and_its_run_are_one_record_each_with_fields_and_traceback(server, caplog):
    run = await run_of(server, job("Fail"))
    task, ended = of(caplog, "scattersphere.runs")
    assert (task.levelname, task.getMessage()) == (
        "ERROR",
        "task etl#1/load failed: ValueError: no such day",
    )
    fields = {name: getattr(task, name) for name in ("run_id", "job", "task", "index", "attempt", "bundle")}
    assert fields == {
        "run_id": run.id,
        "job": "etl",
        "task": "load",
        "index": None,
        "attempt": 1,
        "bundle": "app",
    }
    assert task.exc_info[1] is run.failures["load"]
    shown = logging.Formatter("%(message)s").format(task)
    assert 'raise ValueError("no such day")' in shown
    assert "attempts.py" not in shown, "no frames of ours"
    assert (ended.levelname, ended.run_id, ended.job) == ("ERROR", 1, "etl")
    assert ended.getMessage() == "run 1 of etl failed: load: ValueError: no such day"
    assert not of(caplog, "scattersphere.task.etl.load"), "the failure is not told twice"
    assert "no such day" in run.logs("load")[-1].message


async def test_what_ends_well_after_a_retry_is_no_news_and_an_allowed_failure_is_a_warning(server, caplog):
    assert (await run_of(server, job("Flaky", retry={"max_attempts": 2, "delay": 0}))).succeeded
    assert not of(caplog, "scattersphere.runs")
    assert (await run_of(server, job("Fail", allow_failure=True))).succeeded
    assert [record.levelname for record in of(caplog, "scattersphere.runs")] == ["WARNING"]


async def test_timeouts_and_crashes_are_told_too_and_cancels_are_not(server, caplog):
    await run_of(server, job("Slow", timeout=0.01))
    await run_of(server, job("Crash"))
    told = [record.getMessage() for record in of(caplog, "scattersphere.runs")]
    assert told[0] == "task etl#1/load failed: TimeoutError: took longer than 0.01 s"
    assert "its machine is gone" in told[2]
    caplog.clear()
    run = await server.start(job("Slow"))
    run.cancel()
    await run
    assert not of(caplog, "scattersphere.runs")


async def test_what_a_task_logs_goes_to_the_hosts_handlers_as_well(server, caplog):
    caplog.set_level(logging.INFO, "scattersphere.task")
    run = await run_of(server, job("Say"))
    (record,) = of(caplog, "scattersphere.task.etl.load")
    assert record.getMessage() == "by context.log: 1"
    assert (record.run_id, record.job, record.task, record.attempt, record.rows) == (1, "etl", "load", 1, 7)
    assert [line.message for line in run.logs()] == ["by context.log: 1"]


@pytest.mark.parametrize(
    ("path", "backend"), [("SayInThread", None), ("SayInProcess", "process")], ids=["thread", "process"]
)
async def test_so_do_lines_of_threads_and_worker_processes(server, caplog, path, backend):
    caplog.set_level(logging.INFO, "scattersphere.task")
    run = await run_of(server, job(path, **({"backend": backend} if backend else {})))
    assert run.succeeded, run.explain()
    assert [record.getMessage() for record in of(caplog, "scattersphere.task.etl.load")] == [
        run.logs()[0].message
    ]


async def test_the_level_can_be_set_for_one_job_or_task(server, caplog):
    caplog.set_level(logging.INFO, "scattersphere.task")
    quiet = logging.getLogger("scattersphere.task.etl")
    quiet.setLevel(logging.WARNING)
    try:
        run = await run_of(server, job("Say"))
    finally:
        quiet.setLevel(logging.NOTSET)
    assert not of(caplog, "scattersphere.task.etl.load")
    assert run.logs()


async def test_no_logger_is_made_for_each_job(server):
    await run_of(server, JobDefinition.build("first").task("say", "Say"))
    before = len(logging.Logger.manager.loggerDict)
    for number in range(5):
        await run_of(server, JobDefinition.build(f"job{number}").task("say", "Say"))
    assert len(logging.Logger.manager.loggerDict) == before


class BadFilter(logging.Filter):
    """Raise."""

    def filter(self, record):
        raise RuntimeError("the host's filter is broken")


async def test_a_broken_filter_of_the_host_harms_no_run(server):
    loggers = [logging.getLogger(name) for name in ("scattersphere.runs", "scattersphere.task")]
    bad = BadFilter()
    for logger in loggers:
        logger.addFilter(bad)
    loggers[1].setLevel(logging.INFO)
    try:
        failed, said = await run_of(server, job("Fail")), await run_of(server, job("Say"))
    finally:
        loggers[1].setLevel(logging.NOTSET)
        for logger in loggers:
            logger.removeFilter(bad)
    assert "no such day" in failed.logs()[-1].message
    assert said.succeeded


async def test_what_the_host_switches_off_stays_in_the_log_of_the_run(server):
    logging.disable(logging.CRITICAL)
    try:
        failed, said = await run_of(server, job("Fail")), await run_of(server, job("Say"))
    finally:
        logging.disable(logging.NOTSET)
    assert "no such day" in failed.logs()[-1].message
    assert [line.message for line in said.logs()] == ["by context.log: 1"]


@pytest.mark.parametrize("path", ["Say", "SayInThread"])
async def test_lines_of_the_hosts_loggers_are_captured_while_a_task_runs(caplog, path):
    async with Server(capture_loggers=("app", "other")) as server, Server() as second:
        for each in (server, second):
            each.register_tasks("app", CLASSES)
        logging.getLogger("app").warning("outside of any task")
        run, elsewhere = await run_of(server, job(path)), await run_of(second, job(path))
        assert [(line.logger, line.level) for line in run.logs()][-1] == (
            "app.parts" if path == "Say" else "app",
            logging.WARNING,
        )
        assert len(run.logs()) == 2
        assert len(elsewhere.logs()) == 1, "only the Server that was asked to captures"
    assert not logging.getLogger("app").handlers
    assert "outside of any task" in caplog.text


async def test_capturing_survives_a_new_configuration_of_logging_between_runs():
    async with Server(capture_loggers=["app"]) as server:
        server.register_tasks("app", CLASSES)
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "loggers": {"app": {"level": "DEBUG"}}}
        )
        try:
            run = await run_of(server, job("Say"))
        finally:
            logging.getLogger("app").setLevel(logging.NOTSET)
        assert len(run.logs()) == 2


async def test_wrong_names_of_loggers_are_refused():
    with pytest.raises(TypeError, match="capture_loggers"):
        Server(capture_loggers="app")


BROKEN, GOOD = (
    "class\n",
    "from scattersphere import RunnableTask\nclass A(RunnableTask):\n    def run(self, c): ...\n",
)


async def test_a_broken_bundle_and_its_mending_are_told(caplog, tmp_path):
    caplog.set_level(logging.INFO, "scattersphere.bundles")
    (tmp_path / "etl.py").write_text(BROKEN)
    async with Server(bundle_roots=[tmp_path], watch=False) as server:
        (record,) = of(caplog, "scattersphere.bundles")
        assert (record.levelname, record.bundle) == ("ERROR", "etl")
        assert "SyntaxError" in record.getMessage()
        (tmp_path / "etl.py").write_text(GOOD)
        await server.reload("etl")
        assert [(r.levelname, r.bundle) for r in of(caplog, "scattersphere.bundles")] == [
            ("ERROR", "etl"),
            ("INFO", "etl"),
        ]


async def test_the_failure_of_a_bundles_task_shows_the_source_that_ran(caplog, tmp_path):
    (tmp_path / "etl.py").write_text(
        "from scattersphere import RunnableTask\nclass A(RunnableTask):\n    def run(self, context): return 1 / 0\n"
    )
    async with Server(bundle_roots=[tmp_path], watch=False) as server:
        await run_of(server, JobDefinition.build("etl").task("load", "etl.A"))
    shown = logging.Formatter().format(of(caplog, "scattersphere.runs")[0])
    assert "return 1 / 0" in shown
    assert of(caplog, "scattersphere.runs")[0].bundle == "etl"


async def test_a_job_file_that_cannot_be_read_is_told(caplog, tmp_path):
    (tmp_path / "etl.json").write_text("{")
    async with Server(job_folder=tmp_path):
        pass
    (record,) = of(caplog, "scattersphere.jobs")
    assert (record.levelname, record.job, record.file) == ("ERROR", "etl", str(tmp_path / "etl.json"))


class Json(logging.Formatter):
    """What formatters for structlog, ECS or Google's logging do: every attribute that is not the standard library's."""

    known = frozenset(vars(logging.makeLogRecord({})))

    def format(self, record):
        fields = {name: value for name, value in vars(record).items() if name not in self.known}
        fields |= {"level": record.levelname, "event": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


async def test_a_formatter_of_json_sees_the_fields(server, capsys):
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Json())
    ours = logging.getLogger("scattersphere")
    ours.addHandler(handler)
    try:
        await run_of(server, job("Fail"))
    finally:
        ours.removeHandler(handler)
    task, run = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (task["run_id"], task["job"], task["task"], task["level"]) == (1, "etl", "load", "ERROR")
    assert "raise ValueError" in task["exception"]
    assert (run["run_id"], run["state"]) == (1, "failed")


@pytest.fixture
def loggers_put_back():
    """Switch on again what the test's `dictConfig` switches off: other tests use these loggers too."""
    yield
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


async def test_dict_config_reaches_all_of_it(server, capsys, loggers_put_back):
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": True,
            "formatters": {"f": {"format": "%(name)s %(message)s run=%(run_id)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "stream": sys.stdout, "formatter": "f"}},
            "loggers": {"scattersphere": {"handlers": ["out"], "level": "INFO"}},
        }
    )
    try:
        run = await run_of(server, job("Say"))
        await run_of(server, job("Fail"))
    finally:
        logging.getLogger("scattersphere").handlers.clear()
        logging.getLogger("scattersphere").setLevel(logging.NOTSET)
    out = capsys.readouterr().out
    assert "scattersphere.task.etl.load by context.log: 1 run=1" in out
    assert "scattersphere.runs task etl#2/load failed: ValueError: no such day run=2" in out
    assert run.logs()


class Half(RunnableTask):
    async def run(self, context):
        context.log.info("half of a pair: \ud800, %s", "whole")
        context.log.info("%d", "no number")
        raise ValueError("\udfff")


@pytest.mark.anyio
async def test_what_no_file_can_hold_reaches_the_hosts_handlers_as_text_that_can_be_written(tmp_path, caplog):
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logger = logging.getLogger("scattersphere")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "scattersphere"):
            async with Server() as server:
                server.register_tasks("app", [Half])
                await (await server.start_task("Half")).wait()
    finally:
        logger.removeHandler(handler)
        handler.close()
    text = (tmp_path / "log").read_text("utf-8")
    assert r"half of a pair: \ud800, whole" in text
    assert "cannot be formatted with its arguments" in text
    assert r"ValueError: \udfff" in text

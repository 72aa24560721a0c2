"""Servers with something in every state, for pictures and for a look: `python tests/web/showcase.py [SCENE ...]`.

Prints a line of JSON: for each scene its address and a link that lets one browser in, and the runs by a word for what
they show. It goes on until its input ends; for each line read it prints new links.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import uvicorn

from scattersphere import JobDefinition, Parameter, RunnableTask, RunState, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.limits import Limits

ETL = '''
"""Sales, from the shops to the warehouse."""
import threading
import anyio
from scattersphere import RunnableTask


class Extract(RunnableTask):
    """Read rows from a source."""
    source: str
    rows: int = 10_000
    flaky: bool = False

    async def run(self, context):
        await anyio.sleep(self.rows / 100_000)
        if self.flaky and context.attempt == 1:
            raise TimeoutError(f"{self.source} did not answer within 0.1 s")
        context.log.info("read %s rows from %s", f"{self.rows:,}", self.source)
        return self.rows


class Transform(RunnableTask):
    """Make other rows of rows."""
    into: str
    seconds: float = 0.05
    steps: int = 1

    async def run(self, context):
        for step in range(self.steps):
            await context.checkpoint()
            await anyio.sleep(self.seconds / self.steps)
            context.progress(step + 1, self.steps)
        context.log.info("wrote %s", self.into)


class Join(RunnableTask):
    """Put orders and customers together."""
    left: str
    right: str
    broken: bool = False

    async def run(self, context):
        await anyio.sleep(0.2)
        customers = [{"id": 7, "name": "Ada"}]
        if self.broken:
            context.log.warning("%s have no customer_id since this morning", self.right)
            return self._join(customers)
        context.log.info("joined %s with %s", self.left, self.right)

    def _join(self, customers):
        # one row a customer, the latest wins
        return {row["customer_id"]: row for row in customers}


class Thumbnail(RunnableTask):
    """Make a picture small."""
    number: int

    async def run(self, context):
        await anyio.sleep(self.number % 37 / 2000)
        if self.number % 700 == 13:
            raise ValueError(f"picture {self.number} is no JPEG: it begins with 'RIFF'")


class Wait(RunnableTask):
    """Wait until it is cancelled."""
    async def run(self, context):
        context.log.info("waiting for the tape robot")
        while True:
            await context.checkpoint()
            await anyio.sleep(0.01)


class Robot(RunnableTask):
    """Speak with a device that may not answer."""
    def run(self, context):
        context.log.info("asking the robot for tape 4711")
        threading.Event().wait()


class Nothing(RunnableTask):
    """Do nothing, quickly."""
    async def run(self, context):
        pass
'''
SOURCES = ("orders", "customers", "web_events", "returns", "products")


def sales(name, *, broken=False, slow=0.05):
    """Return a job of twenty tasks."""
    job = JobDefinition.build(
        name,
        description="Sales of the day before, from the shops to the warehouse",
        params={
            "day": Parameter(type="string", default="2026-11-29", description="the day, ISO"),
            "region": Parameter(type="string", default="eu"),
            "full_refresh": False,
            "shops": ["berlin", "paris"],
            "warehouse_token": Parameter(type="string", secret=True, default="not-shown-anywhere"),
        },
        schedules={"nightly": {"cron": "30 1 * * *", "zone": "Europe/Berlin"}},
    )
    for at, source in enumerate(SOURCES):
        job = job.task(f"extract_{source}", "etl.Extract", args={"source": source, "rows": 4_000 * (at + 1)})
    retry = {"max_attempts": 3, "delay": 0.1}
    fx = {"source": "rates.example.net", "flaky": True, "rows": 900}
    job = job.task("extract_fx_rates", "etl.Extract", args=fx, retry=retry)
    chain = {
        "validate_orders": ["extract_orders"],
        "dedupe_customers": ["extract_customers"],
        "sessionize": ["extract_web_events"],
        "convert_currency": ["validate_orders", "extract_fx_rates"],
        "match_returns": ["extract_returns", "validate_orders"],
        "attribute_sessions": ["sessionize", "dedupe_customers"],
    }
    for step, after in chain.items():
        job = job.task(
            step,
            "etl.Transform",
            args={"into": f"stage.{step}", "seconds": slow, "steps": 4 if slow < 1 else 10_000},
            depends_on=after,
        )
    job = job.task(
        "join_orders",
        "etl.Join",
        args={"left": "stage.orders", "right": "stage.customers", "broken": broken},
        depends_on=["convert_currency", "dedupe_customers", "extract_products"],
        retry={"max_attempts": 2, "delay": 0.15},
    )
    marts = {
        "product_mix": ["join_orders"],
        "daily_revenue": ["join_orders", "match_returns"],
        "customer_value": ["join_orders", "attribute_sessions"],
        "quality_checks": ["product_mix", "daily_revenue", "customer_value"],
        "publish_warehouse": ["quality_checks"],
        "notify_finance": ["publish_warehouse"],
    }
    for step, after in marts.items():
        job = job.task(step, "etl.Transform", args={"into": f"mart.{step}"}, depends_on=after)
    return job.task("drop_staging", "etl.Transform", args={"into": "nothing"}, finally_=True).done()


def jobs():
    """Return the jobs of the scene `full`."""
    thumbnails = JobDefinition.build("thumbnails", description="A small picture of each picture")
    thumbnails = thumbnails.task("list_pictures", "etl.Extract", args={"source": "bucket", "rows": 2_000})
    thumbnails = thumbnails.task(
        "resize",
        "etl.Thumbnail",
        map={"number": list(range(5_000))},
        max_parallel=400,
        depends_on=["list_pictures"],
    )
    sweep = JobDefinition.build("sweep-volatility", description="10,000 cells of a grid")
    for number in range(10_000):
        after = [f"cell_{number - 250}"] if number >= 250 else []
        sweep = sweep.task(f"cell_{number}", "etl.Nothing", depends_on=after)
    ingest = JobDefinition.build(
        "hourly-ingest", description="New rows of the shops", schedules={"hourly": {"cron": "15 * * * *"}}
    )
    mail = JobDefinition.build("invoice-mail", description="Invoices by post", max_runs=1)
    churn = JobDefinition.build("train-churn", description="Who will leave us, and why")
    return [
        sales("nightly-sales"),
        sales("nightly-sales-us", broken=True),
        sales("weekly-sales", slow=600.0),
        thumbnails.task("index", "etl.Transform", args={"into": "index"}, depends_on=["resize"]).done(),
        sweep.done(),
        ingest.task("poll", "etl.Nothing").task("load", "etl.Nothing", depends_on=["poll"]).done(),
        mail.task("render", "etl.Wait").task("send", "etl.Nothing", depends_on=["render"]).done(),
        JobDefinition.build("tape-backup", description="Backup").task("write_tape", "etl.Robot").done(),
        churn.task("windows", "features.Windows", bundle="features").done(),
        JobDefinition.build("x" * 60, description="A name as long as names may be, 好 " + "word " * 40)
        .task("a-task-whose-name-is-rather-long-for-a-card", "etl.Nothing")
        .task("a" * 128, "etl.Nothing", depends_on=["a-task-whose-name-is-rather-long-for-a-card"])
        .done(),
    ]


async def until(condition):
    while not condition():  # noqa: ASYNC110 - of what a run is at there is no event
        await anyio.sleep(0.01)


async def nothing(stack, folder):
    """A Server without anything."""
    return await stack.enter_async_context(Server()), {}


class Greet(RunnableTask):
    """Greet somebody."""

    name: str = "world"

    async def run(self, context):
        context.log.info("hello %s", self.name)


async def one(stack, folder):
    """A Server with one job, which has run once."""
    server = await stack.enter_async_context(Server())
    server.register_tasks("app", [Greet])
    greet = JobDefinition.build("hello", description="The first job", params={"who": "world"})
    server.define(greet.task("greet", "Greet", args={"name": {"$param": "who"}}).done())
    run = await (await server.start("hello")).wait()
    return server, {"one": run.id}


async def full(stack, folder):
    """A Server with a run in each state, a thousand runs, a broken bundle, and a job without its code."""
    bundles = folder / "bundles"
    bundles.mkdir()
    (bundles / "etl.py").write_text(ETL)
    features = "from scattersphere import RunnableTask\n\n\nclass Windows(RunnableTask{}):\n    pass\n"
    (bundles / "features.py").write_text(features.format("("))
    (bundles / "models.py").write_text(ETL)
    server = Server(bundle_roots=[bundles], grace=0.3, history=(2_000, 86_400.0), watch=False)
    await stack.enter_async_context(server)
    for job in jobs():
        server.define(job)
    found = {}
    for _ in range(990):
        run = await server.start("hourly-ingest")
    await run.wait()
    found["ok"] = (await (await server.start("nightly-sales")).wait()).id
    held = await server.start("weekly-sales")
    (bundles / "etl.py").write_text(ETL + "\n# the next version\n")
    await server.reload("etl")
    found["failed"] = (await (await server.start("nightly-sales-us")).wait()).id
    found["map"] = (await (await server.start("thumbnails")).wait()).id
    found["big"] = (await (await server.start("sweep-volatility")).wait()).id
    cancelled = await server.start("invoice-mail")
    await until(lambda: cancelled.state is RunState.RUNNING)
    cancelled.cancel("the printer is on fire (bo)")
    found["cancelled"] = (await cancelled.wait()).id
    mail = await server.start("invoice-mail")
    await until(lambda: mail.state is RunState.RUNNING)
    found["queued"] = (await server.start("invoice-mail")).id
    stuck = await server.start("tape-backup")
    await until(lambda: any("robot" in line.message for line in stuck.logs()))
    stuck.cancel("no answer for a minute (ada)")
    await until(lambda: stuck.stuck)
    found["stuck"], found["running"] = stuck.id, held.id
    paused = await server.start("weekly-sales")
    await until(lambda: len(paused.logs()) >= 5)
    paused.pause()
    found["paused"] = paused.id
    found["long"] = (await (await server.start("x" * 60)).wait()).id
    server.schedules["hourly-ingest", "hourly"].pause()
    return server, found


SCENES = {"nothing": nothing, "one": one, "full": full}


async def main(names, folder):
    """Serve scenes until the input ends."""
    async with AsyncExitStack() as stack:
        told, served = {}, []
        group = await stack.enter_async_context(anyio.create_task_group())
        for name in names:
            place = folder / name
            place.mkdir()
            server, runs = await SCENES[name](stack, place)
            links = web.Links(time.monotonic)
            pages = web.app(
                server,
                links=links,
                limits=Limits(rate=1e6, burst=10**6),
                bundle_roots=[place / "bundles"],
                job_folder=place,
            )
            listening = socket.create_server(("127.0.0.1", 0))
            served.append(uvicorn.Server(uvicorn.Config(pages, log_level="warning", lifespan="off")))
            group.start_soon(served[-1].serve, [listening])
            told[name] = {
                "base": f"http://127.0.0.1:{listening.getsockname()[1]}",
                "runs": runs,
                "links": links,
            }
        while True:
            say(told)
            if not await anyio.to_thread.run_sync(sys.stdin.readline):
                break
        for each in served:
            each.should_exit = True


def say(told):
    """Print where each scene is, with a fresh link for an admin and one for a viewer."""
    shown = {
        name: {
            "base": scene["base"],
            "runs": scene["runs"],
            "link": f"{scene['base']}/login?code={scene['links'].new_code(Principal(user='ada', role=Role.ADMIN))}",
            "viewer": f"{scene['base']}/login?code={scene['links'].new_code(Principal(user='guest', role=Role.VIEWER))}",
        }
        for name, scene in told.items()
    }
    print(json.dumps(shown), flush=True)  # noqa: T201 - this is how it is asked


if __name__ == "__main__":
    logging.disable()  # what fails here is meant to
    with tempfile.TemporaryDirectory() as scratch:
        anyio.run(main, sys.argv[1:] or list(SCENES), Path(scratch))

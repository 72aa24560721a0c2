"""What would end a program, raised by code that a command calls, is answered: the listener serves on."""

import json
import logging
import signal
from contextlib import asynccontextmanager

import anyio
import pytest
from patience import PATIENCE
from wire import job, served

from scattersphere import Server

pytestmark = pytest.mark.anyio

VALIDATE = "validate " + json.dumps(job("hi"))
EXITS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseExceptionGroup("", [SystemExit(3)])]


def raising(error):
    async def raises(self, given):
        raise error

    return raises


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
async def test_what_would_end_the_program_is_an_incident_of_one_request(front, monkeypatch, caplog, error):
    monkeypatch.setattr(Server, "avalidate", raising(error))
    async with front.client() as neighbour, front.client() as client:
        with caplog.at_level(logging.ERROR, logger="scattersphere.remote"):
            assert await client.code(VALIDATE) == "internal"
        assert [record.exc_info[1].__cause__ for record in caplog.records] == [error]
        assert await client.ok("ping") == {"pong": True}
        assert await neighbour.ok("ping") == {"pong": True}
    async with front.client() as another:
        assert await another.ok("ping") == {"pong": True}


async def test_a_command_that_is_carried_out_beside_others_ends_nothing_either(front, monkeypatch):
    monkeypatch.setattr(Server, "committed", raised_later)
    async with front.client() as client:
        assert await client.code(f"define {json.dumps(job('hi'))}") == "internal"
    async with front.client() as another:
        assert await another.ok("ping") == {"pong": True}


async def raised_later(self):
    await anyio.lowlevel.checkpoint()
    raise SystemExit(3)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_no_request_is_kept_from_being_cancelled(tmp_path, anyio_backend):
    async def main():
        began, ended = anyio.Event(), []

        async def waits(self, given):
            began.set()
            try:
                await anyio.sleep_forever()
            except BaseException as error:
                ended.append(isinstance(error, anyio.get_cancelled_exc_class()))
                raise

        async with asked_to_validate(tmp_path, waits) as front:
            await began.wait()
            await front.listening.aclose()
        assert ended == [True]

    with_patience(main, anyio_backend)


def test_a_real_interrupt_reaches_the_program_of_the_host(tmp_path):
    async def main():
        async def interrupted(self, given):
            signal.raise_signal(signal.SIGINT)
            await anyio.lowlevel.checkpoint()

        async with asked_to_validate(tmp_path, interrupted):
            await anyio.sleep_forever()

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - below
        with_patience(main, "trio")
    error = caught.value
    assert isinstance(error, KeyboardInterrupt) or error.subgroup(KeyboardInterrupt)


@asynccontextmanager
async def asked_to_validate(folder, body):
    """Serve with `body` in the place of `Server.avalidate`, and ask for that."""
    async with served(folder) as front:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "avalidate", body)
            async with front.client() as client:
                await client.send(VALIDATE)
                yield front


def with_patience(main, backend):
    async def patient():
        with anyio.fail_after(PATIENCE):
            await main()

    anyio.run(patient, backend=backend)

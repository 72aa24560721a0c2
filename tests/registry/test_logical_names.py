"""People see the names and paths of the origin, never those of a snapshot."""

from __future__ import annotations

import traceback
import zipfile

import pytest
from bundlefiles import write

from scattersphere import Server
from scattersphere.registry.modules.namespace import logical

pytestmark = pytest.mark.anyio

FILES = {
    "etl/__init__.py": "",
    "etl/main.py": """
        import logging
        from scattersphere.runnable import RunnableTask
        class Oops(Exception): ...
        def fail():
            raise Oops("no")  # version {v}
        class Job(RunnableTask):
            def run(self, context):
                try:
                    fail()
                except Oops:
                    context.log.exception("caught")
                fail()
        """,
}


@pytest.mark.parametrize("backend", ["thread", "process"])
async def test_the_log_of_a_run_names_the_origin_and_shows_the_source_that_ran(tmp_path, backend):
    folder = write(tmp_path, FILES, v=1) / "etl"
    async with Server() as server:
        await server.register(folder)
        job = {"name": "j", "tasks": {"t": {"task": "etl.main.Job", "backend": backend}}}
        server.define(definition(job))
        write(tmp_path, FILES, v=2)  # the file on disk is another one by now
        run = await server.start("j")
        await run.wait()
        text = "\n".join(str(line) for line in run.logs())
    assert text.count(f'File "{folder}/main.py", line 6, in fail') == 2
    assert text.count('raise Oops("no")  # version 1') == 2
    assert "etl.main.Oops: no" in text
    assert "scattersphere.bundles" not in text
    assert "root0" not in text


def definition(value):
    import json

    from scattersphere import JobDefinition

    return JobDefinition.loads(json.dumps(value))


async def test_two_versions_and_an_archive_in_one_text(registry, tmp_path):
    (tmp_path / "one").mkdir()
    await registry.register(write(tmp_path / "one", FILES, v=1) / "etl", name="one")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in FILES:
            archive.write(write(tmp_path / "two", FILES, v=2) / name, name)
    await registry.register(tmp_path / "two.zip")
    texts = []
    for name in ("one", "two"):
        module = registry.bundles[name].current.namespace.module("etl.main")
        try:
            module.fail()
        except module.Oops as error:
            texts.append("".join(traceback.format_exception(error)))
    text = logical("\n".join(texts))
    assert f'File "{tmp_path}/one/etl/main.py", line 6' in text
    assert f'File "{tmp_path}/two.zip/etl/main.py", line 6' in text
    assert 'raise Oops("no")  # version 2' in text
    assert "etl.main.Oops" in text
    assert "scattersphere.bundles" not in text


async def test_a_path_alone_is_enough_to_know_the_version(registry, tmp_path):
    version = (await registry.register(write(tmp_path, FILES, v=1) / "etl")).current
    assert logical(f"at {version.snapshot}/etl/main.py:6") == f"at {tmp_path}/etl/main.py:6"


def test_other_texts_are_left_alone():
    for text in ("", "plain", "a_g1 b_g2", "/srv/app_g3/rooted/x.py", "x/etl_g99999999/root0/etl/a.py"):
        assert logical(text) == text
    assert logical("scattersphere.bundles.gone_g99999999.etl.load.Gone") == "etl.load.Gone"

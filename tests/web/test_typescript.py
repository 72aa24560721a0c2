"""The description of the API makes a client for TypeScript: types by openapi-typescript, compiled strictly, and run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

HERE = Path(__file__).parent
MODULES = Path(__file__).parents[2] / "node_modules"
PACKAGES = ("openapi-typescript", "typescript", "openapi-fetch")


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.skipif(
    not all((MODULES / name).is_dir() for name in PACKAGES),
    reason=f"not installed: npm install --no-save {' '.join(PACKAGES)}",
)
def test_a_client_made_of_the_description_starts_a_run_and_reads_problems(tmp_path):
    shutil.copy(HERE / "client.ts", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(
        '{"compilerOptions": {"strict": true, "target": "es2022", "module": "esnext", "lib": ["es2022", "dom"], '
        '"moduleResolution": "bundler", "types": []}, "files": ["client.ts"]}'
    )

    def run(*command):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with subprocess.Popen(
        [sys.executable, "-u", str(HERE / "page_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            address, token = (server.stdout.readline().strip() for _ in range(2))
            description = (
                "import json; from scattersphere.web.openapi import openapi; print(json.dumps(openapi('')))"
            )
            (tmp_path / "openapi.json").write_text(run(sys.executable, "-c", description))
            run(
                "node",
                "node_modules/openapi-typescript/bin/cli.js",
                "openapi.json",
                "-o",
                "scattersphere.d.ts",
            )
            run("node", "node_modules/typescript/bin/tsc")
            assert run("node", "client.js", address, token) == "run 1 succeeded\nno-such-run\n"
        finally:
            server.stdin.close()
            server.wait(PATIENCE)

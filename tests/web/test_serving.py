"""`serve --http` and what it stands on: an address of its own, links in the program's output, an end by SIGTERM."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from patience import PATIENCE

from scattersphere.commands.access import Principal, Role
from scattersphere.remote import ListenError
from scattersphere.web import Links
from scattersphere.web.guard import ASKING
from scattersphere.web.serving import bind


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.1:x", ":80", "127.0.0.1:70000", "127.0.0.1:\u0661"]
)
def test_what_is_no_address_is_refused_in_words(address):
    with pytest.raises(ListenError, match="is no HOST:PORT"):
        bind(address)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"])
def test_beyond_loopback_it_needs_tls_or_a_proxy(address):
    with pytest.raises(ListenError, match="--tls-cert and --tls-key, or --behind-proxy"):
        bind(address)
    if address == "0.0.0.0:0":
        bind(address, beyond_loopback=True).close()


def test_an_address_that_is_taken_is_told():
    with bind("127.0.0.1:0") as taken, pytest.raises(ListenError, match=r"127\.0\.0\.1:"):
        bind(f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_browser_that_is_not_known_has_a_link_told_but_not_at_each_request():
    now, told = [100.0], []
    links = Links(
        lambda: now[0], wanted=lambda: told.append(links.new_code(Principal(user="me", role=Role.ADMIN)))
    )
    assert links.ask()
    assert links.ask()
    assert len(told) == 1
    now[0] += ASKING + 1
    assert links.ask()
    assert len(told) == 2
    assert links.log_in(told[1]) is not None
    assert not Links(time.monotonic).ask()


@pytest.mark.parametrize("beside", [(), ("--unix", "run/s")], ids=["alone", "beside_unix"])
def test_serve_shows_pages_to_whoever_sees_its_output_and_ends_by_sigterm(tmp_path, beside):
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "bundles").mkdir(mode=0o755)
    command = ["serve", "--bundles", "bundles", *beside, "--http", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "scattersphere", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            link = next(
                found[0] for line in server.stdout if (found := re.search(r"http://\S+code=[\w-]+", line))
            )
            base = link.partition("/login")[0]
            with httpx.Client(
                base_url=base, timeout=PATIENCE, follow_redirects=True, trust_env=False
            ) as browser:
                assert browser.get("/").status_code == 401
                assert "Overview" in browser.get(link).text
                assert browser.get("/api/openapi.json").json()["openapi"] == "3.1.0"
            asks = next(line for line in server.stdout if "a browser asks to come in" in line)
            assert "/login?code=" in asks
        finally:
            server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


def test_pages_with_a_state_folder_need_no_token_file_and_take_tokens_made_later(tmp_path):
    state = tmp_path / "state"
    command = [sys.executable, "-u", "-m", "scattersphere"]
    with subprocess.Popen(
        [*command, "serve", "--state", state, "--http", "127.0.0.1:0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            base = next(
                found[1] for line in server.stdout if (found := re.search(r"(http://\S+)/login\?code=", line))
            )
            create = ["token", "create", "ann", "--role", "viewer", "--state", state]
            made = subprocess.run([*command, *create], capture_output=True, text=True, check=True)
            headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
            answer = httpx.get(f"{base}/api/v1/whoami", headers=headers, timeout=PATIENCE, trust_env=False)
            assert answer.json()["user"] == "ann"
        finally:
            server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0

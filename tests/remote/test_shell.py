"""A server from a shell, talked to with the programs that people have: nc, telnet, socat."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from patience import PATIENCE
from shell_server import LATER, MORE, STUBBORN, shell_server, shell_server_again, write
from talking import Talk

pytest.importorskip("click")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "netcat.md"
CLIENTS = {
    "nc": ["nc", "127.0.0.1", "{port}"],
    "telnet": ["telnet", "127.0.0.1", "{port}"],
    "socat": ["socat", "-", "TCP:127.0.0.1:{port}"],
}


EDITS = {
    "> # now more.py is copied into bundles/": MORE,
    "> # now a class Later is added to it": MORE + LATER,
}


def program(name):
    if shutil.which(name) is None:
        pytest.skip(f"the program {name} is not installed: apt-get install netcat-openbsd telnet socat")
    return name


@pytest.fixture
def server(tmp_path):
    with shell_server(tmp_path) as running:
        yield running


def transcript():
    blocks = re.findall(r"```netcat\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("name", CLIENTS)
def test_the_documented_session_happens_as_it_is_written(server, name):
    program(name)
    talk = Talk([word.format(port=server.port) for word in CLIENTS[name]])
    skipping = name == "telnet"  # it says first to where it connects
    try:
        for line in transcript():
            if line.startswith("> "):
                if line in EDITS:
                    write(server.bundles / "more.py", EDITS[line])
                talk.type(line[2:].replace("TOKEN", server.token))
                continue
            seen = talk.expect(line)
            assert skipping or len(seen) == 1, seen  # each line follows the one before it
            skipping = False
    finally:
        talk.close()
    assert json.loads((server.jobs / "hi.json").read_text())["name"] == "hi"


def test_a_script_of_two_commands_gets_both_replies(server):
    done = subprocess.run(
        [program("nc"), "-N", "127.0.0.1", str(server.port)],
        input=f"auth {server.token}\nstart-task greetings.Greet name=x\nruns\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    _, auth, run, runs, bye = map(json.loads, done.stdout.splitlines())
    assert [auth["n"], run["n"], runs["n"]] == [1, 2, 3]
    assert run["result"] == {"run": 1}
    assert runs["result"]["runs"][0]["run"] == 1
    assert bye == {"bye": {"code": "end"}}


def test_the_unix_socket_needs_no_token(server):
    done = subprocess.run(
        [program("nc"), "-NU", str(server.unix)],
        input="whoami\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[1])["result"]["role"] == "admin"


def test_it_says_where_it_listens_and_ends_cleanly_on_sigterm(server):
    assert re.fullmatch(r"listening on tcp://127\.0\.0\.1:[0-9]+", server.said[0])
    assert server.said[1] == f"listening on unix://{server.unix}"
    assert server.said[2] == "serving 1 bundle (greetings) and 0 jobs"
    server.process.send_signal(signal.SIGTERM)
    out, err = server.process.communicate(timeout=PATIENCE)
    assert (server.process.returncode, out, err) == (0, "", "")
    assert not server.unix.exists()


def test_a_restart_on_the_same_port_works_at_once(server, tmp_path):
    talk = Talk([program("nc"), "127.0.0.1", str(server.port)])
    talk.expect("...type: help...")
    server.process.send_signal(signal.SIGTERM)
    talk.expect('{"bye":{"code":"shutting-down"}}')  # so that it is the server that closed first
    assert server.process.wait(PATIENCE) == 0
    with shell_server_again(tmp_path, f"127.0.0.1:{server.port}", server.token) as again:
        assert again.port == server.port
    talk.close()


def test_a_first_signal_lets_runs_clean_up_and_a_second_one_kills_them(server):
    write(server.bundles / "stubborn.py", STUBBORN)
    subprocess.run(
        [program("nc"), "-NU", str(server.unix)],
        input="register stubborn.py\nstart-task stubborn.Stubborn\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    server.process.send_signal(signal.SIGINT)
    said = server.process.stderr.readline()
    assert said == "SIGINT: cancelling 1 run; the same again kills what is left\n"
    server.process.send_signal(signal.SIGINT)
    out, err = server.process.communicate(timeout=PATIENCE)
    assert (server.process.returncode, out, err) == (0, "", "SIGINT again: killing 1 run\n")


def test_shutdown_ends_it_too(server):
    subprocess.run(
        [program("nc"), "-NU", str(server.unix)], input="shutdown\n", text=True, timeout=PATIENCE, check=True
    )
    assert server.process.wait(PATIENCE) == 0


def test_a_failed_run_is_one_line_on_standard_error(server):
    subprocess.run(
        [program("nc"), "-NU", str(server.unix)],
        input="start-task greetings.Trip\nwait 1\n",
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    server.process.send_signal(signal.SIGTERM)
    _, err = server.process.communicate(timeout=PATIENCE)
    assert err == "run 1 of greetings.Trip failed; `explain 1` tells why\n"

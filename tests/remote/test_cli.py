"""The front-end from a shell: tokens, a server, and one command after the other."""

import json
import os
import subprocess
import sys

import pytest
import trustme
from patience import PATIENCE
from shell_server import shell_server

pytest.importorskip("click")


def shell(*words, status=0, **variables):
    done = subprocess.run(
        [sys.executable, "-m", "scattersphere", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | variables,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


def test_a_token_is_printed_alone_listed_without_itself_and_revoked(tmp_path):
    file = tmp_path / "tokens.json"
    created = shell(
        "token", "create", "--tokens", file, "--name", "ann", "--role", "runner", "--allow", "job:n*"
    )
    secret = created.stdout.strip()
    assert created.stdout == f"{secret}\n"
    assert secret.startswith("ss1_")
    listed = shell("token", "list", "--tokens", file).stdout
    assert secret not in listed
    assert "ann   runner  job:n*" in listed
    shell("token", "revoke", "--tokens", file, "ann")
    assert shell("token", "list", "--tokens", file).stdout == ""
    wrong = shell("token", "create", "--tokens", file, "--name", "ann", "--role", "root", status=3)
    assert wrong.stderr == "scattersphere: no role 'root'; the roles are viewer, runner, operator, admin\n"


def test_an_unsafe_listener_is_refused_in_one_line(tmp_path):
    done = shell("serve", "--tcp", "0.0.0.0:0", status=3)
    assert done.stderr.endswith("could connect: give --tokens FILE\n")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    shell("token", "create", "--tokens", tmp_path / "t", "--name", "a", "--role", "viewer")
    done = shell("serve", "--tcp", "0.0.0.0:0", "--tokens", tmp_path / "t", status=3)
    assert done.stderr.endswith("in the clear: give --tls-cert FILE and --tls-key FILE\n")


def test_the_verbs_of_the_protocol_from_a_shell(tmp_path):
    with shell_server(tmp_path) as server:
        where, env = f"127.0.0.1:{server.port}", {"SCATTERSPHERE_TOKEN": server.token}
        assert "greetings.Greet" in shell("-c", where, "tasks", **env).stdout
        assert shell("-c", where, "start-task", "greetings.Greet", "name=a b", **env).stdout == "run: 1\n"
        assert shell("-c", where, "wait", "1", **env).stdout == "run: 1\nstate: succeeded\n"
        said = shell("-c", where, "--json", "result", "1", **env).stdout
        assert json.loads(said)["result"]["results"] == {"greetings.Greet": "hello a b"}
        assert "greeting a b" in shell("-c", where, "logs", "1", "-f", **env).stdout
        assert "#1: greetings.Greet started\n" in shell("-c", where, "logs", **env).stdout
        definition = '{"format":1,"name":"hi","tasks":{"a":{"task":"greetings.Greet","args":{"name":"x y"}}}}'
        assert "job: hi\nstate: ready" in shell("-c", where, "define", definition, **env).stdout
        assert "no run 9" in shell("-c", where, "cancel", "9", status=1, **env).stderr
        assert "did you mean 'runs'" in shell("-c", where, "rnus", status=2, **env).stderr
        assert "auth-required" in shell("-c", where, "runs", status=1, SCATTERSPHERE_TOKEN="").stderr
        two = '{"format":1,"name":"two","params":{"n":""},"tasks":{"a":{"task":"greetings.Greet","args":{"name":{"$param":"n"}}},"b":{"task":"greetings.Greet","args":{"name":{"$result":"a"}}}}}'
        shell("-c", where, "define", two, **env)
        assert shell("-c", where, "run", "two", "-p", "n=Zoë", **env).stdout == "run: 2\nstate: succeeded\n"
        shell("-c", where, "wait", "2", **env)
        told = shell("-c", where, "explain", "2", PYTHONIOENCODING="utf-8", **env).stdout
        assert 'with n="Zoë"' in told
        assert "↓ b" in told
        assert "run 1" in shell("-c", f"unix:{server.unix}", "explain", "1", SCATTERSPHERE_TOKEN="").stdout
        assert shell("-c", where, "start-task", "greetings.Trip", **env).stdout == "run: 3\n"
        told = shell("-c", where, "wait", "3", status=1, **env).stdout
        assert told.startswith(
            "run: 3\nstate: failed\nwhy: run 3 of greetings.Trip failed: greetings.Trip: ValueError"
        )
        assert "state: failed" in shell("-c", where, "result", "3", status=1, **env).stdout
        wrong = definition.replace("greetings.Greet", "greetings.Gret")
        assert "did you mean" in shell("-c", where, "validate", wrong, status=3, **env).stdout
        told = shell("-c", where, "start-task", "greetings.Trip", "n=1", status=1, **env).stderr
        assert "Trip takes no 'n'" in told.splitlines()[1]
        assert "Example: run nightly" in shell("-c", where, "help", "run", **env).stdout
    refused = shell("-c", where, "runs", status=3, **env).stderr
    assert refused == f"scattersphere: cannot connect to {where}: Connection refused\n"
    lost = shell("-c", where, "--token-file", tmp_path / "lost", "runs", status=3).stderr
    assert lost == f"scattersphere: {tmp_path / 'lost'}: No such file or directory\n"


def test_a_server_behind_tls_from_a_shell_and_an_authority_that_is_not_trusted(tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with shell_server(tmp_path, *tls) as server:
        where, env = f"127.0.0.1:{server.port}", {"SCATTERSPHERE_TOKEN": server.token}
        assert shell("-c", where, "--cafile", tmp_path / "ca.pem", "whoami", **env).stdout.startswith(
            "user: "
        )
        told = shell("-c", where, "--cafile", tmp_path / "other.pem", "whoami", status=3, **env).stderr
        assert told.startswith(
            f"scattersphere: cannot connect to {where}: its certificate is not trusted here: "
        )
        assert told.count("\n") == 1
        assert "if it speaks TLS, give --cafile FILE" in shell("-c", where, "whoami", status=3, **env).stderr
        told = shell("-c", where, "--cafile", tmp_path / "key.pem", "whoami", status=3, **env).stderr
        assert told.startswith(f"scattersphere: {tmp_path / 'key.pem'}: ")


def test_the_log_of_all_runs_is_followed_from_a_shell(tmp_path):
    with shell_server(tmp_path) as server:
        where, env = f"127.0.0.1:{server.port}", {"SCATTERSPHERE_TOKEN": server.token}
        shell("-c", where, "start-task", "greetings.Greet", "name=ann", **env)
        command = [sys.executable, "-m", "scattersphere", "-c", where, "logs", "tail=1", "-f"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | env) as follower:
            assert "#1: greetings.Greet succeeded" in follower.stdout.readline()
            shell("-c", where, "start-task", "greetings.Greet", "name=bob", **env)
            assert "run-queued greetings.Greet#2" in follower.stdout.readline()
            follower.kill()

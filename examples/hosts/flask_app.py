"""A Flask application, whose requests run in threads: they share one SyncServer. Run it: `flask --app flask_app run`.

Entered at import, once a process, and left when the process ends. A server that forks must import this after the fork
(gunicorn does, unless it is told to --preload).
"""

import atexit
from contextlib import suppress

from flask import Flask, Response, jsonify, request
from jobs import JOB, Count
from problems import TYPE, problem_of, status_of

from scattersphere import ScattersphereError, SyncServer

server = SyncServer(grace=5).__enter__()
atexit.register(server.__exit__, None, None, None)
server.register_tasks("app", [Count])
server.define(JOB)
app = Flask(__name__)


@app.post("/counts")
def start() -> tuple[Response, int]:
    """Start counting, and answer at once."""
    run = server.start("count", request.get_json())
    return jsonify(run=run.id, state=run.state), 202


@app.get("/counts/<int:run>")
def status(run: int) -> Response:
    """Wait for a run, ten seconds at most, and tell how it went."""
    found = server.runs[run]
    with suppress(TimeoutError):
        found.wait(10)
    return jsonify(run=found.id, state=found.state, result=found.results.get("count"))


@app.errorhandler(ScattersphereError)
def refuse(error: ScattersphereError) -> tuple[Response, int]:
    """Answer an error of the engine with a problem document."""
    answer = jsonify(problem_of(error))
    answer.mimetype = TYPE
    return answer, status_of(error)

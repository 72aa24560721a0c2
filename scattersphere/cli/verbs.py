"""The names of a server's verbs, so that `--help` loads no library. A test holds it and the table together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

OF_A_SESSION = frozenset(
    {"hello", "auth", "quit", "output", "drop", "unfollow", "help", "commands", "schema"}
)
"""Commands of the table that are about a session that goes on, or that the command line has in its own way."""

VERBS: Mapping[str, Mapping[str, str]] = {
    "This session": {
        "ping": "Ask for a sign of life.",
        "whoami": "Tell your user name and role.",
    },
    "Bundles and tasks": {
        "bundles": "List bundles, their versions and errors.",
        "tasks": "List the tasks that jobs can be made of.",
        "task": "Show a task and its parameters.",
        "register": "Load a bundle from the bundle roots.",
        "deregister": "Withdraw a bundle.",
        "reload": "Load what changed in a bundle.",
    },
    "Jobs": {
        "jobs": "List the defined jobs.",
        "job": "Show a job's definition.",
        "define": "Define a job.",
        "validate": "Tell everything that is wrong with a definition.",
        "undefine": "Forget a job; its runs go on.",
        "save": "Save a job in the operator's folder.",
        "load": "Load a job from the operator's folder.",
    },
    "Runs": {
        "start": "Start a run of a job, and reply at once.",
        "run": "Run a job, and reply when the run has ended.",
        "start-task": "Start a run of one task, and reply at once.",
        "run-task": "Run one task, and reply when the run has ended.",
        "runs": "List runs, newest first.",
        "status": "Show where a run and its tasks are.",
        "result": "Show the results of a run.",
        "explain": "Tell what happened in a run, and why.",
        "pause": "Start no further task of a run.",
        "resume": "Go on after a pause.",
        "stop": "Let executing tasks finish, start no more.",
        "cancel": "Cancel what executes, with time to clean up.",
        "kill": "End a run now.",
        "rerun": "Do a run again, from what failed.",
        "wait": "Wait until a run has ended.",
        "logs": "Show the log of a run, or which runs there were.",
    },
    "Schedules": {
        "schedules": "List the schedules of the jobs.",
        "next": "Tell when a schedule fires next.",
        "pause-schedule": "Let a schedule start nothing until it is resumed.",
        "resume-schedule": "Let a schedule start runs again.",
        "run-schedule": "Start a run as a schedule would, now.",
        "backfill": "Start a run for each time of a schedule in the past.",
    },
    "Events": {
        "follow": "Be told what happens, as it happens.",
    },
    "The server": {
        "stats": "Count what is there.",
        "sessions": "List the sessions.",
        "shutdown": "End the server, where its host lets sessions do that.",
    },
}
"""By the titles of their groups; each with the first line of its help."""


def groups(own: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the verbs by group, but for those whose names the command line has for something of its own."""
    return {
        title: {name: words for name, words in rows.items() if name not in own}
        for title, rows in VERBS.items()
    }

"""A synchronous script: the same names, blocking. Run it: `python script.py`."""

from jobs import JOB, Count

from scattersphere import SyncServer

with SyncServer() as server:
    server.register_tasks("app", [Count])
    server.define(JOB)
    runs = [server.start("count", {"n": n}) for n in (3, 4)]  # both run at once, in the server's thread
    for run in runs:
        for event in run.events():
            if event.done is not None and event.total is not None:
                print(f"run {run.id}: {event.done:g} of {event.total:g}")
        print(f"run {run.id}: {run.state}, {run.results['count']}")

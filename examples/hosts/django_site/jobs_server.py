"""The one Server of the process, and what it knows."""

from jobs import JOB, Count

from scattersphere import Server, SyncServer


def furnish(server: Server | SyncServer) -> None:
    """Tell a Server of the tasks and jobs of this project: before it is entered, or after."""
    server.register_tasks("app", [Count])
    server.define(JOB)


server = Server(grace=5)
furnish(server)

"""`python -m django count 5 --settings django_site.settings`: a job as a management command, with its progress."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_site.jobs_server import furnish
from scattersphere import SyncServer


class Command(BaseCommand):
    """Runs the job in this process, with the blocking names."""

    help = "Count to a number, as the job `count` does."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what the command line takes."""
        parser.add_argument("n", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, and end with an error if the run fails."""
        del args
        with SyncServer() as server:
            furnish(server)
            run = server.start("count", {"n": options["n"]})
            for event in run.events():
                if event.done is not None:
                    self.stdout.write(f"{event.done:g} of {event.total:g}")
            if not run.succeeded:
                raise CommandError(run.explain())
            self.stdout.write(self.style.SUCCESS(f"counted to {run.results['count']}"))

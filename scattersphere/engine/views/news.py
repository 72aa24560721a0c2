"""What happens, told to the host's logging: failed tasks and runs, broken and mended bundles, job files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scattersphere.engine.views.outcome import failed_error
from scattersphere.logs.hostlog import BUNDLES, JOBS, RUNS, fields_of, tell
from scattersphere.registry.records import BundleEventKind

if TYPE_CHECKING:
    from pathlib import Path

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.registry.records import BundleEvent


def tell_failed_task(attempt: Attempt) -> None:
    """A task, or an instance of a map, has failed for good: an error, or a warning where the job allows it."""
    execution, planned = attempt.execution, attempt.planned
    failure = execution.failures.get(attempt.unit)
    if failure is None:
        return
    level = logging.WARNING if planned.definition.allow_failure else logging.ERROR
    text = failure.traceback if failure.error is not None else ""
    tell(
        RUNS,
        level,
        f"task {attempt.label} failed: {failure}",
        error=failure.error,
        text=text,
        extra=fields_of(attempt),
    )


def tell_failed_run(execution: Execution) -> None:
    """A run has failed or crashed: an error. That it ended in another way is no news to an operator."""
    extra = {"run_id": execution.id, "job": execution.plan.job, "state": str(execution.state)}
    tell(RUNS, logging.ERROR, str(failed_error(execution)), extra=extra)


def tell_crashed_run(run: int, job: str, words: str) -> None:
    """A run of an earlier life of the Server could not go on: an error."""
    extra = {"run_id": run, "job": job, "state": "crashed"}
    tell(RUNS, logging.ERROR, f"run {run} of {job} crashed: {words}", extra=extra)


def tell_failed_file(file: Path, message: str) -> None:
    """A file in the job folder cannot be loaded."""
    tell(JOBS, logging.ERROR, message, extra={"job": file.stem, "file": str(file)})


def tell_journal(failure: str | None) -> None:
    """The journal commits nothing, or (None) does again."""
    if failure is not None:
        tell(RUNS, logging.ERROR, f"the journal commits nothing, so runs hold: {failure}", extra={})
    else:
        tell(RUNS, logging.INFO, "the journal commits again", extra={})


class BundleNews:
    """Tells of bundles that break, and that are mended."""

    def __init__(self) -> None:
        self._broken: set[str] = set()

    def bundle(self, event: BundleEvent) -> None:
        """Take note of an event in the life of a bundle."""
        extra = {"bundle": event.bundle, "version": event.label}
        if event.kind is BundleEventKind.FAILED:
            self._broken.add(event.bundle)
            tell(BUNDLES, logging.ERROR, f"bundle {event.bundle} was not loaded: {event.error}", extra=extra)
        elif event.kind is BundleEventKind.LOADED and event.bundle in self._broken:
            self._broken.discard(event.bundle)
            tell(BUNDLES, logging.INFO, f"bundle {event.bundle} is mended: {event.label}", extra=extra)
        elif event.kind is BundleEventKind.REMOVED:
            self._broken.discard(event.bundle)

"""DurableRuns: the runs of a Server that has a journal. Written when they are submitted, restored when it is opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scattersphere.engine.recorder import Recorder
from scattersphere.jobs.runwriter import RunWriter
from scattersphere.jobs.schedulerows import schedule_of
from scattersphere.jobs.secrets import AwaitedSecrets
from scattersphere.jobs.storedruns import KnownRuns, StoredRuns
from scattersphere.jobs.unfinished import UnfinishedRuns

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc.journal import Journal, StoredRun
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.recorder import ResultCodec
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.jobs.secrets import Secrets
    from scattersphere.registry.registry import TaskRegistry
    from scattersphere.schedules.occurrences import ScheduleState


class DurableRuns:
    """One life of a journal: what reads its runs, what writes new ones, and what lets the unfinished ones go on."""

    def __init__(  # noqa: PLR0913 - the parts of a Server
        self,
        journal: Journal,
        codec: ResultCodec,
        *,
        jobs: Jobs,
        registry: TaskRegistry,
        executor: JobExecutor,
        factory: KnownRuns,
        secrets: Secrets,
        version: str,
        on_failed: Callable[[str], None],
        on_mended: Callable[[], None],
        on_crashed: Callable[[StoredRun], None],
    ) -> None:
        self._journal = journal
        self._executor = executor
        self._version = version
        self.recorder: Recorder = Recorder(executor, journal, codec, on_failed, on_mended)
        self.stored: StoredRuns = StoredRuns(
            journal, self.recorder, codec, jobs=jobs, registry=registry, executor=executor, factory=factory
        )
        self.writer: RunWriter = RunWriter(self.recorder, executor)
        self.unfinished: UnfinishedRuns = UnfinishedRuns(
            self.stored, AwaitedSecrets(secrets, executor), on_crashed
        )
        self.schedules: tuple[list[ScheduleState], list[ScheduleState]] = ([], [])
        """What the journal knew of schedules when it was opened, and of those that were not defined any more."""
        self._is_opened = False

    async def open(self) -> None:
        """Take the journal, and commit the beginning of a new life. Raises `JournalBusyError`, `JournalError`."""
        recorder = self.recorder
        state = await self.stored.call(self._journal.open, recorder)
        self._is_opened = True
        rows = recorder.open(state, pid=os.getpid(), version=self._version)
        for row in state.schedules:
            self.schedules[row.gone is not None].append(schedule_of(row))
        rows += await self.unfinished.read(state.unfinished)
        await recorder.wait_for(lambda done: recorder.write(rows, done))
        recorder.begun()
        self._executor.recorder, self._executor.identity = recorder, state.id
        self._executor.life = 0 if recorder.life is None else recorder.life.number

    def survives(self, execution: Execution) -> bool:
        """Whether a run goes on at the next start."""
        return execution.recording is not None and not execution.given_secrets

    async def close(self) -> None:
        """Write the last rows, and let go of the journal."""
        if self._is_opened:
            self.recorder.close()
            await self.stored.call(self._journal.close)

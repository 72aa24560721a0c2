"""The thread that writes a journal: group commit of what waits, in order, reported to the loop.

A transaction that cannot be committed now (disk full, read-only, busy) stays the first one and is tried again each
second. After an I/O error or a failed fsync nobody knows what is on disk, and asking again may be answered with a lie:
then this process commits no more.
"""

from __future__ import annotations

import errno
import math
import queue
import sqlite3
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from scattersphere.abc.journal import BundleRow, DefinitionRow, DroppedRow, RunStateRow, StepRow
from scattersphere.journal.prune import prune
from scattersphere.journal.rows import Batch, measured, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scattersphere.abc.journal import JournalHost, Row
    from scattersphere.journal.files import ValueFiles

RETRY_SECONDS = 1.0
"""Between two attempts to commit what could not be committed."""
BATCH_ROWS = 5_000
"""Rows committed at once at most: a tenth of a second of work."""
LINGER_SECONDS = 0.02
"""How long what nobody waits for may wait for more: a commit costs as much as hundreds of tasks that succeed."""
PRUNED_EVERY = 64
"""Ended runs after which the journal looks whether there are too many, ..."""
LOOKED_EVERY = 60.0
"""... or seconds, since runs also grow old."""

_LATER = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)
"""What SQLite says where it may do later what it cannot do now; nothing was written."""
_LATER_IO = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_NOMEM})
"""Errors in reading and writing that are none: the disk was too full for the index of the log."""
_LATER_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENFILE})


class _Transaction(NamedTuple):
    rows: Sequence[Row]
    weight: int
    """Rows, if each task that succeeded had one of its own."""
    bytes: int
    committed: Callable[[], object] | None
    cleaned: bool = False
    """Whether its texts were made such that a database can hold them."""


class JournalWriter:
    """Owns the connection. All but `write`, `backlog` and `close` happens on its thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        files: ValueFiles,
        host: JournalHost,
        keep: tuple[int, float],
    ) -> None:
        self._connection = connection
        self._files = files
        self._host = host
        self._keep = keep
        self._waiting: queue.SimpleQueue[_Transaction | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._written = (0, 0)
        """Rows and bytes given to `write`: changed by the loop's thread alone, ..."""
        self._done = (0, 0)
        """... and those that are committed, by the writer's alone."""
        self._failing: str | None = None
        self._lost = False
        """Whether this process commits no more."""
        self._digests: set[str] = set()
        """Of definitions and code written since the opening: the engine may refer to them later on."""
        self._ended = 0
        self._looked = time.monotonic()
        self._begun = False
        """Whether anything was committed: what there was at the opening stays until the engine has read it."""
        self._chores: deque[Iterator[None]] = deque()
        self._thread = threading.Thread(target=self._work, name="scattersphere journal", daemon=True)
        self._thread.start()

    # ---- on other threads

    def write(self, rows: Sequence[Row], committed: Callable[[], object] | None) -> None:
        """Queue a transaction; on the loop's thread."""
        written, (count, size) = self._written, measured(rows)
        self._written = (written[0] + count, written[1] + size)
        if not self._lost:  # else it only counts as not committed
            self._waiting.put(_Transaction(rows, count, size, committed))

    @property
    def backlog(self) -> tuple[int, int]:
        """Rows and bytes that wait."""
        done = self._done  # first: what is done was written before
        return self._written[0] - done[0], self._written[1] - done[1]

    def close(self) -> int:
        """Commit what waits, and end; what cannot be committed now is given up. Returns how many rows those were."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()
        return self.backlog[0]

    # ---- on the writer's

    def _work(self) -> None:
        while True:
            group = self._next_group()
            if group is None:
                break
            if group and not self._commit_until_done(group):
                break
            if not self._closing.is_set():
                self._do_chore()
        self._chores.clear()

    def _next_group(self) -> list[_Transaction] | None:
        """Return the transactions that wait; none after a while without any, None when there will be no more."""
        group: list[_Transaction] = []
        rows, until = 0, math.inf
        while rows < BATCH_ROWS:
            try:
                if not group:
                    found = self._first()
                elif until == -math.inf or self._closing.is_set():
                    found = self._waiting.get_nowait()
                else:
                    found = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return group
            if found is None:
                if not group:
                    return None
                self._waiting.put(None)  # after these; nothing is written after it
                return group
            if found.committed is not None:
                until = -math.inf  # somebody waits
            elif not group:
                until = time.monotonic() + LINGER_SECONDS
            group.append(found)
            rows += found.weight
        return group

    def _first(self) -> _Transaction | None:
        if self._chores and not self._lost:
            return self._waiting.get_nowait()
        return self._waiting.get(timeout=LOOKED_EVERY)

    def _commit_until_done(self, group: list[_Transaction]) -> bool:
        """Commit; where that does not go, try again until it does. Returns False where it never will."""
        while not self._lost:
            closing = self._closing.is_set()
            batch = Batch()
            for transaction in group:
                batch.add(transaction.rows)
            try:
                self._commit(batch)
            except UnicodeEncodeError as error:
                if group[0].cleaned:
                    self._failed(error)
                group = [item._replace(rows=[*map(printable, item.rows)], cleaned=True) for item in group]
                continue
            except Exception as error:  # noqa: BLE001 - sorted by `_failed`; the thread must not end
                self._failed(error)
            else:
                self._committed(group, batch)
                return True
            if closing:
                return False
            if not self._lost:
                self._closing.wait(RETRY_SECONDS)
        return False

    def _commit(self, batch: Batch) -> None:
        connection = self._connection
        bundles = batch.of(BundleRow)
        for key in [key for key, row in bundles.items() if row.digest in self._digests]:
            del bundles[key]
        self._files.store(batch.of(StepRow))
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._files.note_dropped(connection, batch.of(DroppedRow).values())
            batch.write(connection)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _committed(self, group: list[_Transaction], batch: Batch) -> None:
        for item in group:
            self._done = (self._done[0] + item.weight, self._done[1] + item.bytes)
        if self._failing is not None:
            self._failing = None
            self._host.soon(self._host.journal_mended)
        if not self._begun:
            self._begun = True
            self._chores.append(self._files.sweep(self._connection))
            self._ask_for_pruning()
        self._digests.update(row.digest for row in batch.of(DefinitionRow).values())
        self._digests.update(row.digest for row in batch.of(BundleRow).values())
        for state in batch.of(RunStateRow).values():
            self._ended += state.ended is not None
        callbacks = deque(item.committed for item in group if item.committed is not None)
        if callbacks:  # next to last: the loop's thread cannot go on before this one waits for something
            self._host.soon(self._call_all, callbacks)
        if self._files.given_up:
            try:
                self._files.remove_given_up(self._connection)
            except sqlite3.Error as error:
                self._failed(error)

    def _call_all(self, callbacks: deque[Callable[[], object]]) -> None:
        """Say that transactions are committed, one after the other; on the loop's thread."""
        try:
            while callbacks:
                callbacks.popleft()()
        finally:
            if callbacks:  # one has failed, which is told where it was called
                self._host.soon(self._call_all, callbacks)

    def _failed(self, error: Exception) -> None:
        """Note why nothing can be committed, and say so where that is new."""
        self._lost = self._lost or not _may_pass(error)
        words = _words(error)
        if words != self._failing:
            self._failing = words
            self._host.soon(partial(self._host.journal_failed, words, lasting=self._lost))

    # ---- what is done between commits

    def _do_chore(self) -> None:
        """Do a piece of what is to be done when there is time. An error ends it; it comes again."""
        if self._lost or self._failing is not None:
            self._chores.clear()
            return
        if not self._chores and self._begun and self._is_due():
            self._ask_for_pruning()
        if not self._chores:
            return
        try:
            next(self._chores[0])
        except StopIteration:
            self._chores.popleft()
        except (sqlite3.Error, OSError) as error:
            self._chores.clear()
            if not _may_pass(error):
                self._failed(error)

    def _is_due(self) -> bool:
        return self._ended >= PRUNED_EVERY or time.monotonic() - self._looked >= LOOKED_EVERY

    def _ask_for_pruning(self) -> None:
        count, age = self._keep
        before = -1 if age == math.inf else int((time.time() - age) * 1e6)
        self._chores.append(
            prune(self._connection, self._files, count=count, before=before, spared=self._digests)
        )
        self._ended, self._looked = 0, time.monotonic()


def _may_pass(error: Exception) -> bool:
    """Whether what could not be written may be written later, and surely has not been."""
    if isinstance(error, sqlite3.Error):
        code: object = getattr(error, "sqlite_errorcode", None)
        return code in _LATER_IO or (isinstance(code, int) and code & 0xFF in _LATER)
    return isinstance(error, OSError) and error.errno in _LATER_ERRNO


def _words(error: Exception) -> str:
    if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
        return str(error)
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return f"a defect, please report it: {type(error).__name__}: {error}"

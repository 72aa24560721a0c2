"""The journal on disk: SQLite, one writer, one owner. `SqliteJournal` is given to `Server(journal=...)`.

`values` says what results a journal can keep, `check` whether a file is sound, `copies` backs it up and restores it.
"""

from scattersphere.journal.sqlite import SqliteJournal

__all__ = ["SqliteJournal"]

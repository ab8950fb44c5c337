"""The journal: what must outlive the broker, in SQLite, written by a thread of its own.

The broker's loop never waits for the disk: it queues writes and is told when they are safe. Everything that has come
in while one commit was under way goes into the next, so the cost of a sync is shared by all.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from minilambda.broker import tables
from minilambda.broker.events import DiskFailing, DiskWorks, Durable, Event, ModuleUnsaved, Persist
from minilambda.broker.records import ModuleKept, Record, Recovered
from minilambda.broker.tables import JournalRefused

RESERVE = 8 * 1024 * 1024
"""Size of a file that is given up when the disk is full, so that the jobs that are there can end; bytes."""

RETRY = 1.0
"""A disk that fails is tried again so often, seconds."""

WAL_BYTES = 16 * 1024 * 1024
"""The write-ahead log is cut to this after a checkpoint, bytes."""

log = logging.getLogger(__name__)


class Journal(Protocol):
    """What the broker's shell needs of a store. Another one than SQLite's can take its place."""

    def recover(self) -> Recovered:
        """Everything that was written. Called once, before anything else."""

    def write(self, write: Persist) -> None:
        """Queue a write; never blocks, never fails."""

    def events(self) -> list[Event]:
        """What has happened to the writes since this was asked last."""

    def close(self) -> None:
        """Write what is queued, as far as the disk takes it, and give everything back."""


class StateDirectory:
    """A directory that one broker has to itself. Raises ``JournalRefused`` where another one has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalRefused(f"The state directory {path} can't be used: {error.strerror}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            text = f"Another broker uses the state directory {path}"
            raise JournalRefused(f"{text}; give this one another by --state-dir, or --ephemeral.") from None

    def close(self) -> None:
        """Let another broker have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


class SqliteJournal:
    """A journal in a directory that is this broker's own.

    ``save_module`` makes sure that the bytes of a module are on the disk, from the writer's thread, and raises
    ``OSError``; ``wake`` makes the loop ask for ``events``. Raises ``JournalRefused`` for a file that can't be used.
    """

    def __init__(self, folder: Path, save_module: Callable[[str], None], wake: Callable[[], None]) -> None:
        self._path = folder / "journal.sqlite3"
        self._reserve = folder / "reserve"
        self._save_module = save_module
        self._wake = wake
        self._queue: queue.SimpleQueue[Persist | None] = queue.SimpleQueue()
        self._events: deque[Event] = deque()
        self._failing = False  # there is no room for more jobs, as the loop was told
        self._stuck = False  # there is none for anything, as the loop was told
        self._looked_at = 0.0  # when room was last looked for, monotonic seconds
        self.commits = 0  # made so far
        self._connection = self._open()
        sync_folder(folder)
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def _open(self) -> sqlite3.Connection:
        try:
            with contextlib.suppress(OSError):  # SQLite gives its own reason for a file that can't be made
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # The autocommit mode leaves transactions to us; one thread uses the connection at a time.
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                version = tables.inspect(connection, str(self._path))
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
                tables.prepare(connection, version)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise JournalRefused(f"The journal {self._path} can't be used: {error}.") from None
        return connection

    def recover(self) -> Recovered:
        try:
            found = tables.read(self._connection)
        except sqlite3.Error as error:
            raise JournalRefused(f"The journal {self._path} can't be read: {error}.") from None
        if not self._make_reserve():
            self._failed(stuck=False)
        self._thread.start()
        return found

    def write(self, write: Persist) -> None:
        self._queue.put(write)

    def events(self) -> list[Event]:
        found: list[Event] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._events.popleft())
        return found

    def close(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    # --- the writer's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        waiting: list[Persist] = []
        closing = False
        while not closing:
            closing = self._take(waiting)
            if waiting and self._commit(waiting):
                waiting.clear()
            if self._failing and not waiting and time.monotonic() > self._looked_at + RETRY:
                self._look_for_room()

    def _take(self, waiting: list[Persist]) -> bool:
        """Add what is queued; waits where there is nothing to do. Returns whether the journal is being closed."""
        try:
            item = self._queue.get(timeout=RETRY if self._failing else None)
            while item is not None:
                waiting.append(item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return False
        return True

    def _commit(self, writes: list[Persist]) -> bool:
        """Make writes durable, all or none; False where the disk takes nothing now."""
        try:
            records = self._save_modules([record for write in writes for record in write.records])
            self._connection.execute("BEGIN IMMEDIATE")
            tables.apply(self._connection, records)
            self._connection.execute("COMMIT")
        except Exception as error:  # whatever it is: nobody else can write what was promised
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            if self._give_up_reserve(error):
                return self._commit(writes)
            self._failed(stuck=True)
            return False
        self.commits += 1
        if self._stuck:
            self._failed(stuck=False)
        self._tell(Durable(writes[-1].number))
        return True

    def _save_modules(self, records: list[Record]) -> list[Record]:
        """Sync the modules that the records name; without the records of those that the disk has no room for."""
        saved: list[Record] = []
        for record in records:
            if isinstance(record, ModuleKept):
                try:
                    self._save(record.digest)
                except OSError as error:
                    log.error("the module %s can't be kept: %s", record.digest, error)
                    self._tell(ModuleUnsaved(record.digest))
                    continue
            saved.append(record)
        return saved

    def _save(self, digest: str) -> None:
        try:
            self._save_module(digest)
        except OSError as error:
            if not self._give_up_reserve(error):
                raise
            self._save_module(digest)

    # --- a full disk -----------------------------------------------------------------------------

    def _make_reserve(self) -> bool:
        try:
            if self._reserve.exists() and self._reserve.stat().st_size >= RESERVE:
                return True
            with self._reserve.open("wb") as file:
                file.write(bytes(RESERVE))
                os.fsync(file.fileno())
        except OSError:
            self._reserve.unlink(missing_ok=True)
            return False
        return True

    def _give_up_reserve(self, error: Exception) -> bool:
        """Make room for the jobs that are there; False where there is none to make."""
        log.error("the journal can't be written: %s", error)
        if not self._reserve.exists():
            return False
        self._reserve.unlink(missing_ok=True)
        self._failed(stuck=False)
        return True

    def _look_for_room(self) -> None:
        """The disk takes writes: does it have room for more jobs as well?"""
        self._looked_at = time.monotonic()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if self._make_reserve():
            log.warning("the disk has room again")
            self._failing = False
            self._tell(DiskWorks())

    def _failed(self, *, stuck: bool) -> None:
        self._failing, self._stuck = True, stuck
        self._tell(DiskFailing(stuck))

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._wake()


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a directory outlive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

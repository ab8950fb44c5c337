"""The journal in SQLite and the modules beside it: what a sync has covered is there again, whatever happened since."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda.broker import tables
from minilambda.broker.events import (
    Durable,
    Event,
    KeepUpload,
    ModuleUnsaved,
    Persist,
    StoreModule,
    WritePiece,
)
from minilambda.broker.journal import SqliteJournal
from minilambda.broker.records import (
    JobAccepted,
    JobEnded,
    JobForgotten,
    JobMoved,
    JobWithdrawn,
    ModuleDropped,
    ModuleKept,
    Record,
    Recovered,
    WorkerGone,
    WorkerKnown,
)
from minilambda.broker.storage import Storage
from minilambda.broker.tables import JournalRefused
from minilambda.messages import ErrorInfo, JobSpec, Result, Usage
from tests.broker_world import DIGEST, WASM, digest_of

SPEC = JobSpec(DIGEST, ("a", "ü"), {"K": "v"}, "f", timeout_ms=5, retries=0, priority=-3, group="g")


def accepted(number: int, stdin: bytes = b"in") -> tuple[Record, Record]:
    record = JobAccepted(number, ("local", f"j{number}"), SPEC, stdin, b"\x90", 1000.5 + number)
    return record, JobMoved(number, 0, "", True, 0, False)


class Disk:
    """A storage in a folder, and a reader of its events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = threading.Event()
        self.storage = Storage(folder, self.told.set)
        self.found = self.storage.recover()
        self.number = 0
        self.events: list[Event] = []

    def write(self, *records: Record) -> int:
        self.number += 1
        self.storage.do(Persist(self.number, records))
        return self.number

    def sync(self) -> None:
        self.hear(Durable(self.number))

    def hear(self, event: Event) -> None:
        """Wait for an event."""
        end = time.monotonic() + 20
        while event not in self.events:
            assert self.told.wait(max(0.0, end - time.monotonic())), f"{event} did not come: {self.events}"
            self.told.clear()
            self.events += self.storage.events()

    def again(self) -> Recovered:
        """What the next broker finds."""
        self.storage.close()
        self.__init__(self.folder)  # type: ignore[misc]
        return self.found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "state")
    yield made
    made.storage.close()


def test_an_empty_directory_has_nothing(disk: Disk) -> None:
    assert disk.found == Recovered()
    assert disk.folder.stat().st_mode & 0o777 == 0o700


def test_what_was_written_is_found_as_it_was(disk: Disk) -> None:
    # given
    usage = Usage(1.0, 2.0, peak_memory_bytes=65536)
    result = Result("failed", 7, ErrorInfo("trap", "x", "unreachable", "f\ng"), usage, "warm", "w", 3)
    end = JobEnded(1, result, b"out", b"err", b"\x01", b"hash", False, 2, 2000.25)
    moved = JobMoved(0, 4, "worker", False, 1, True)
    # when
    disk.write(*accepted(0), *accepted(1))
    disk.write(moved, end, WorkerKnown("v"), WorkerKnown("w"), WorkerGone("v"))
    disk.sync()
    found = disk.again()
    # then
    first, second = found.jobs
    assert (first.accepted, first.moved, first.ended) == (accepted(0)[0], moved, None)
    assert (second.accepted, second.ended) == (accepted(1)[0], end)
    assert found.workers == ("w",)


def test_the_input_of_an_ended_job_is_dropped_when_it_is_not_needed(disk: Disk) -> None:
    disk.write(*accepted(0))
    disk.write(JobEnded(0, Result("completed", 0), b"", b"", b"", b"hash", True, 0, 1.0))
    (job,) = disk.again().jobs
    assert (job.accepted.stdin, job.accepted.values, job.accepted.spec) == (b"", b"", SPEC)


def test_forgotten_jobs_leave_their_ids_and_withdrawn_ones_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_FORGOTTEN", 2)
    for number in range(4):
        disk.write(*accepted(number))
        disk.write(JobForgotten(number, ("local", f"j{number}")))
    disk.write(*accepted(9))
    disk.write(JobWithdrawn(9))
    found = disk.again()
    assert found.jobs == () and found.forgotten == (("local", "j2"), ("local", "j3"))


def test_modules_are_found_with_their_owners_and_unneeded_files_are_removed(disk: Disk) -> None:
    # given
    other = b"\0asm in pieces"
    disk.storage.do(StoreModule(DIGEST, WASM))
    disk.storage.do(WritePiece(1, other[:5]))
    disk.storage.do(WritePiece(1, other[5:]))
    disk.storage.do(KeepUpload(1, digest_of(other)))
    disk.storage.do(StoreModule(digest_of(b"unkept"), b"unkept"))
    assert disk.storage.read(digest_of(other), 2, 6) == other[2:8]
    # when
    disk.write(ModuleKept(DIGEST, len(WASM), "ann"), ModuleKept(DIGEST, len(WASM), "bob"))
    disk.write(ModuleKept(digest_of(other), len(other), "ann"), ModuleKept(digest_of(b"x"), 1, "ann"))
    disk.write(ModuleDropped(digest_of(b"x")))
    found = disk.again()
    # then
    assert {(kept.digest, kept.principal) for kept in found.modules} == {
        (DIGEST, "ann"),
        (DIGEST, "bob"),
        (digest_of(other), "ann"),
    }
    assert disk.storage.read(DIGEST, 0, len(WASM)) == WASM
    with pytest.raises(OSError, match="No such file"):
        disk.storage.read(digest_of(b"unkept"), 0, 1)


def test_a_module_whose_file_is_not_whole_is_not_found(disk: Disk) -> None:
    disk.storage.do(StoreModule(DIGEST, WASM))
    disk.write(ModuleKept(DIGEST, len(WASM), "ann"))
    disk.sync()
    (disk.folder / "modules" / DIGEST[7:]).write_bytes(WASM[:-1])
    assert disk.again().modules == ()


def test_a_module_that_the_disk_refuses_can_be_read_but_not_kept(disk: Disk) -> None:
    # given: a folder in the place of the file
    (disk.folder / "modules" / DIGEST[7:]).mkdir()
    # when
    disk.storage._modules._memory[DIGEST[7:]] = WASM  # type: ignore[union-attr]
    disk.write(*accepted(0), ModuleKept(DIGEST, len(WASM), "ann"))
    # then
    disk.hear(ModuleUnsaved(DIGEST))
    disk.sync()
    assert disk.storage.read(DIGEST, 0, len(WASM)) == WASM
    (disk.folder / "modules" / DIGEST[7:]).rmdir()


def test_writes_that_come_together_are_one_commit(disk: Disk) -> None:
    journal = disk.storage._journal
    assert isinstance(journal, SqliteJournal)
    for number in range(1000):
        disk.write(*accepted(number))
    disk.sync()
    assert journal.commits < 500
    assert len(disk.again().jobs) == 1000


# --- what is refused ---------------------------------------------------------------------------------


def test_a_second_broker_is_refused(disk: Disk) -> None:
    with pytest.raises(JournalRefused, match="Another broker uses the state directory"):
        Storage(disk.folder, lambda: None)


def refused(folder: Path) -> str:
    with pytest.raises(JournalRefused) as info:
        storage = Storage(folder, lambda: None)
        try:
            storage.recover()
        finally:
            storage.close()
    return info.value.message


def change(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "journal.sqlite3") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (f"PRAGMA user_version = {tables.SCHEMA + 1}", "newer version"),
        ("PRAGMA user_version = 0", "too old"),
        ("PRAGMA application_id = 5", "not a journal of minilambda"),
        ("DROP TABLE jobs", "can't be read"),
        ("UPDATE inputs SET spec = x'01'", "damaged"),
    ],
)
def test_a_journal_that_can_not_be_understood_is_refused(disk: Disk, statement: str, said: str) -> None:
    disk.write(*accepted(0))
    disk.storage.close()
    change(disk.folder, statement)
    before = (disk.folder / "journal.sqlite3").read_bytes()
    assert said in refused(disk.folder)
    if "PRAGMA" in statement:
        assert (disk.folder / "journal.sqlite3").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").write_bytes(b"anything else" * 1000)
    assert "can't be used" in refused(tmp_path)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "can't be used" in refused(tmp_path / "file" / "state")


def test_an_older_journal_is_migrated(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.write(*accepted(0))
    disk.storage.close()
    monkeypatch.setattr(tables, "SCHEMA", tables.SCHEMA + 1)
    monkeypatch.setitem(tables.MIGRATIONS, tables.SCHEMA - 1, "UPDATE jobs SET losses = 2;")
    disk.storage = Storage(disk.folder, lambda: None)
    (job,) = disk.storage.recover().jobs
    assert job.moved.losses == 2


# --- power loss --------------------------------------------------------------------------------------


def test_a_log_that_is_cut_anywhere_loses_nothing_of_before_its_last_whole_sync(disk: Disk, tmp_path: Path) -> None:
    # given: a live journal, and how long its log was at each sync
    log, sizes = disk.folder / "journal.sqlite3-wal", []
    for number in range(12):
        disk.write(*accepted(number, bytes(700 * number)))
        disk.sync()
        sizes.append(log.stat().st_size)
    whole = log.stat().st_size
    assert sizes == sorted(sizes) and sizes[0] > 0
    # when: the power goes, and the file system keeps a part of the log
    cuts = {size + delta for size in sizes for delta in (-1, 0, 1)} | set(range(0, whole, whole // 40))
    for cut in sorted(cut for cut in cuts if 0 <= cut <= whole):
        copy = tmp_path / "cut"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        shutil.copy(disk.folder / "journal.sqlite3", copy)
        (copy / log.name).write_bytes(log.read_bytes()[:cut])
        # then: all that a sync has covered is there, in order, and no half of anything
        storage = Storage(copy, lambda: None)
        jobs = storage.recover().jobs
        storage.close()
        covered = sum(size <= cut for size in sizes)
        assert [job.accepted for job in jobs] == [accepted(n, bytes(700 * n))[0] for n in range(len(jobs))]
        assert covered <= len(jobs) <= covered + 1


def test_a_log_that_ends_in_garbage_is_read_up_to_it(disk: Disk, tmp_path: Path) -> None:
    for number in range(5):
        disk.write(*accepted(number))
        disk.sync()
    copy = tmp_path / "copy"
    shutil.copytree(disk.folder, copy, ignore=shutil.ignore_patterns("*-shm", "lock"))
    with (copy / "journal.sqlite3-wal").open("ab") as file:
        file.write(b"\xff" * 6000)
    storage = Storage(copy, lambda: None)
    assert len(storage.recover().jobs) == 5
    storage.close()

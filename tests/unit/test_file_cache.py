"""The files of jobs on a worker's disk, and the trees that are made of them."""

from __future__ import annotations

import hashlib
import logging
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda.paths import NOTHING
from minilambda.worker.actions import FileLost, FilesSeen, TreeBuilt, TreeFailed
from minilambda.worker.cache import CacheError
from minilambda.worker.file_trees import Files
from tests.unit.caches import BOUND, damage, eventually

MAX_WAIT_MS = 20_000
A, B = b"first file", b"second file" * 100


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(files: Files, data: bytes, pieces: int = 1) -> FilesSeen | FileLost:
    """Store a file that arrives in pieces."""
    size = len(data) // pieces + 1
    for offset in range(0, len(data), size):
        files.cache.keep(digest_of(data), offset, data[offset : offset + size])
    return files.cache.store(digest_of(data), len(data))


def find(files: Files, data: bytes) -> bool:
    """Whether the file is found, however long that takes."""
    answer = files.cache.find((digest_of(data),))
    if not answer.found and not answer.absent:
        assert select.select([files.doorbell], [], [], MAX_WAIT_MS / 1e3)[0]
        (later,) = files.doorbell.answer()
        assert isinstance(later, FilesSeen)
        answer = later
    assert answer in (FilesSeen({digest_of(data): len(data)}), FilesSeen({}, (digest_of(data),)))
    return bool(answer.found)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path, BOUND)
    yield made
    made.close()


# --- files ---


def test_a_file_that_was_stored_is_found_at_once(files: Files) -> None:
    assert put(files, A, pieces=3) == FilesSeen({digest_of(A): len(A)})
    assert files.cache.find((digest_of(A), digest_of(B))) == FilesSeen({digest_of(A): len(A)}, (digest_of(B),))


def test_a_file_outlives_its_worker_and_is_shared_with_others(files: Files, tmp_path: Path) -> None:
    put(files, A)
    other = Files(tmp_path, BOUND)
    assert find(other, A)
    other.close()
    files.close()
    later = Files(tmp_path, BOUND)
    assert find(later, A)
    later.close()


@pytest.mark.parametrize("offset", [0, len(A) - 1])
def test_a_damaged_file_is_noticed_before_it_is_used_and_deleted(
    files: Files, tmp_path: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    put(files, A)
    files.close()
    damage(tmp_path / "files/whole" / digest_of(A)[7:], offset, b"!")
    later = Files(tmp_path, BOUND)
    # when
    with caplog.at_level(logging.WARNING, "minilambda.worker"):
        found = find(later, A)
    # then
    assert not found and "was damaged" in caplog.text
    assert list((tmp_path / "files/whole").iterdir()) == []
    assert put(later, A) and find(later, A)
    later.close()


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    first = Files(tmp_path, BOUND)
    (tmp_path / "elsewhere").write_bytes(A)
    (tmp_path / "files/whole" / digest_of(A)[7:]).symlink_to(tmp_path / "elsewhere")
    assert not find(first, A)
    first.close()


def test_the_least_recently_used_files_go_but_not_those_in_a_tree(tmp_path: Path) -> None:
    # given
    some = [os.urandom(1000) for _ in range(6)]
    made = Files(tmp_path, 3500)
    for data in some[:3]:
        put(made, data)
    assert isinstance(made.build("tree", {"/file": digest_of(some[0])}, False), TreeBuilt)
    assert find(made, some[1])
    # when
    for data in some[3:]:
        put(made, data)
    # then
    there = tmp_path / "files/whole"
    assert eventually(lambda: len(list(there.iterdir())) <= 3)
    assert {digest_of(some[0])[7:], digest_of(some[5])[7:]} < {path.name for path in there.iterdir()}
    made.close()


def test_pieces_that_are_dropped_leave_nothing(files: Files, tmp_path: Path) -> None:
    files.cache.keep(digest_of(A), 0, A[:5])
    files.cache.drop(digest_of(A))
    files.cache.drop(digest_of(B))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert isinstance(files.cache.store(digest_of(A), len(A)), FileLost)


def test_a_disk_of_no_use_finds_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "files").write_bytes(b"in the way")
    made = Files(tmp_path, BOUND)
    assert made.cache.find((digest_of(A),)).absent == (digest_of(A),)
    lost = put(made, A)
    assert isinstance(lost, FileLost) and "File exists" in lost.why
    failed = made.build("tree", {}, True)
    assert isinstance(failed, TreeFailed) and "File exists" in failed.why
    made.drop("tree")
    made.close()


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files").chmod(0o777)
    with pytest.raises(CacheError):
        Files(tmp_path, BOUND)


# --- trees ---


def test_a_tree_has_its_files_in_their_places_and_nobody_may_write_to_them(files: Files) -> None:
    put(files, A)
    put(files, B)
    paths = {"/a": digest_of(A), "/x/y/b": digest_of(B), "/x/again": digest_of(A), "/empty": NOTHING}
    assert files.build("tree", paths, True) == TreeBuilt("tree")
    root = Path(files.path("tree"))
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == {"a": A, "x/y/b": B, "x/again": A, "empty": b""}
    assert (root / "tmp").is_dir()
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o444)
    assert (root / "a").stat().st_mtime == (root / "x/y/b").stat().st_mtime == 946_684_800


def test_a_tree_takes_no_room_where_there_are_links_and_is_copied_where_there_are_none(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(files, A)
    files.build("linked", {"/a": digest_of(A)}, False)
    assert os.path.samefile(files.cache.path(digest_of(A)), files.path("linked") + "/a")

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files.build("copied", {"/a": digest_of(A)}, False)
    copy = Path(files.path("copied") + "/a")
    assert not os.path.samefile(files.cache.path(digest_of(A)), copy)
    assert (copy.read_bytes(), stat.S_IMODE(copy.stat().st_mode)) == (A, 0o444)


def test_a_tree_without_a_file_is_not_made_and_the_file_is_named(files: Files) -> None:
    put(files, A)
    files.cache.path(digest_of(A)).unlink()
    failed = files.build("tree", {"/a": digest_of(A), "/b": digest_of(B)}, False)
    assert isinstance(failed, TreeFailed)
    assert set(failed.vanished) == {digest_of(A), digest_of(B)}
    put(files, A)
    assert isinstance(files.build("tree", {"/a": digest_of(A)}, False), TreeBuilt)


def test_a_tree_that_is_dropped_and_those_of_a_worker_that_ends_are_gone(files: Files, tmp_path: Path) -> None:
    put(files, A)
    for key in ("one", "two"):
        files.build(key, {"/a": digest_of(A)}, False)
    files.drop("one")
    files.drop("never made")
    assert eventually(lambda: files.cache.path(digest_of(A)).stat().st_nlink == 2)
    files.close()
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["whole"]


def test_what_a_killed_worker_left_is_swept_and_a_living_ones_stays(files: Files, tmp_path: Path) -> None:
    # given
    put(files, A)
    files.build("tree", {"/a": digest_of(A)}, False)
    left = tmp_path / "files/worker-0123456789abcdef"
    (left / "trees/key/folder").mkdir(parents=True)
    (left / "piece").write_bytes(b"of a file")
    # when
    other = Files(tmp_path, BOUND)
    # then
    assert not left.exists()
    assert Path(files.path("tree") + "/a").read_bytes() == A
    other.close()

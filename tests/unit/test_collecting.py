"""Collecting what a guest has left: regular files below its scratch, and nothing else, whatever else is there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from minilambda.worker import collecting
from minilambda.worker.events import Collected

LIMIT = 1 << 20


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[int]:
    """A folder that stands for a guest's ``/tmp``, beside a secret."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "scratch").mkdir()
    fd = os.open(tmp_path / "scratch", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def files(collected: Collected) -> dict[str, bytes | None]:
    assert collected.problem == ""
    found: dict[str, bytes | None] = msgpack.unpackb(collected.files)
    return found


def test_a_file_is_brought_whole_and_one_that_is_not_there_is_nothing(scratch: int, place: Path) -> None:
    (place / "out").write_bytes(b"content")
    (place / "empty").write_bytes(b"")
    asked = ["/tmp/out", "/tmp/empty", "/tmp/no", "/tmp/out/no", "/tmp/no/out"]
    assert files(collecting.collect(scratch, asked, LIMIT)) == {
        "/tmp/out": b"content",
        "/tmp/empty": b"",
        "/tmp/no": None,
        "/tmp/out/no": None,
        "/tmp/no/out": None,
    }


def test_a_folder_brings_all_files_below_it_and_the_whole_scratch_can_be_asked_for(scratch: int, place: Path) -> None:
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/deep").write_bytes(b"1")
    (place / "a/flat").write_bytes(b"2")
    (place / "top").write_bytes(b"3")
    below = {"/tmp/a/b/deep": b"1", "/tmp/a/flat": b"2"}
    assert files(collecting.collect(scratch, ["/tmp/a"], LIMIT)) == below
    assert files(collecting.collect(scratch, ["/tmp", "/tmp/a"], LIMIT)) == below | {"/tmp/top": b"3"}


def test_without_a_scratch_there_is_nothing_of_all_that_was_asked_for() -> None:
    assert files(collecting.collect(None, ["/tmp/a", "/tmp"], LIMIT)) == {"/tmp/a": None, "/tmp": None}


def test_no_link_is_followed_at_the_end_or_on_the_way(scratch: int, place: Path, tmp_path: Path) -> None:
    (place / "inside").write_bytes(b"inside")
    links = {"out": "../secret", "absolute": str(tmp_path / "secret"), "in": "inside", "loop": "loop"}
    for name, target in links.items():
        (place / name).symlink_to(target)
    (place / "up").symlink_to("..")
    (place / "folder").mkdir()
    (place / "folder/up").symlink_to(tmp_path)
    asked = ["/tmp/out", "/tmp/absolute", "/tmp/in", "/tmp/loop", "/tmp/up/secret", "/tmp/folder/up/secret", "/tmp/up"]
    found = files(collecting.collect(scratch, [*asked, "/tmp/folder"], LIMIT))
    assert found == dict.fromkeys(asked)


def test_pipes_sockets_and_devices_are_left_out_and_nobody_waits_for_them(scratch: int, place: Path) -> None:
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
        (place / "file").write_bytes(b"file")
        asked = ["/tmp", "/tmp/pipe", "/tmp/socket"]
        if os.geteuid() == 0:
            os.mknod(place / "device", 0o600 | 0o020000, os.makedev(1, 5))  # zeros without end
            asked.append("/tmp/device")
        found = files(collecting.collect(scratch, asked, LIMIT))
    assert found == {"/tmp/file": b"file", **dict.fromkeys(asked[1:])}


def test_a_name_that_can_not_be_told_is_left_out(scratch: int, place: Path) -> None:
    for name in (b"line\nbreak", b"\xff\xfe", "\u202egpj.exe".encode(), b"good name"):
        (place / os.fsdecode(name)).write_bytes(b"x")
    assert files(collecting.collect(scratch, ["/tmp"], LIMIT)) == {"/tmp/good name": b"x"}


@pytest.mark.parametrize("sizes", [(LIMIT + 1,), (LIMIT // 2, LIMIT // 2 + 1)])
def test_more_bytes_than_a_job_may_bring_back_are_too_much(scratch: int, place: Path, sizes: tuple[int, ...]) -> None:
    for number, size in enumerate(sizes):
        with (place / str(number)).open("wb") as file:
            file.truncate(size)
    found = collecting.collect(scratch, ["/tmp"], LIMIT)
    assert (found.files, str(LIMIT) in found.problem) == (b"", True)


def test_a_huge_file_that_takes_no_room_is_not_read(scratch: int, place: Path) -> None:
    with (place / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert collecting.collect(scratch, ["/tmp/sparse"], LIMIT).problem


def test_what_is_as_large_as_a_job_may_bring_back_comes_back(scratch: int, place: Path) -> None:
    (place / "a").write_bytes(bytes(LIMIT))
    (place / "b").write_bytes(b"")
    assert files(collecting.collect(scratch, ["/tmp"], LIMIT)) == {"/tmp/a": bytes(LIMIT), "/tmp/b": b""}


def test_too_many_files_are_too_much(scratch: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MAX_FILES", 10)
    for number in range(11):
        (place / str(number)).write_bytes(b"")
    assert "10 files" in collecting.collect(scratch, ["/tmp"], LIMIT).problem


def test_too_many_names_of_other_things_are_too_much(
    scratch: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "_MAX_SEEN", 10)
    for number in range(11):
        (place / str(number)).symlink_to("nowhere")
    assert "10 names" in collecting.collect(scratch, ["/tmp"], LIMIT).problem


def test_folders_in_each_other_are_too_much_at_some_depth(scratch: int, place: Path) -> None:
    for depth, refused in ((collecting.MAX_DEPTH - 1, False), (collecting.MAX_DEPTH, True)):
        (place / "/".join("d" * depth)).mkdir(parents=True)
        assert bool(collecting.collect(scratch, ["/tmp"], LIMIT).problem) == refused


def test_a_file_that_grows_while_it_is_read_is_cut_off_at_the_limit(scratch: int, place: Path) -> None:
    # given
    (place / "log").write_bytes(b"x")
    going = True

    def write() -> None:
        with (place / "log").open("ab", buffering=0) as file:
            while going:
                file.write(bytes(100_000))

    writer = threading.Thread(target=write)
    writer.start()
    # when
    try:
        while (found := collecting.collect(scratch, ["/tmp"], LIMIT)).problem == "":
            assert len(found.files) < LIMIT + 1000
    finally:
        going = False
        writer.join()
    # then
    assert found.files == b""

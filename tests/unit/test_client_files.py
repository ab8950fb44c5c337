"""What a caller names as files becomes paths in the guest and handles; what can't be is refused with its name."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import msgpack
import pytest

from minilambda.client.files import Files
from minilambda.client.modules import Module
from minilambda.client.requests import Requests
from minilambda.client.results import run_result
from minilambda.client.spec import SCRATCH_BYTES
from minilambda.client.uploads import Placed
from minilambda.errors import MinilambdaError
from minilambda.fields import MAX_FILES
from minilambda.messages import JobResult, JobSpec, Result
from minilambda.paths import NOTHING
from minilambda.wire import pack, unpack

MODULE = Module("sha256:" + "0" * 64, 10)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def spec(**options: Any) -> JobSpec:
    return Requests().spec(MODULE, (), options)  # type: ignore[arg-type]


def tree(root: Path, **contents: bytes) -> Path:
    """A folder with files; ``__`` in a name stands for a slash."""
    for name, data in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


# --- what is taken ---------------------------------------------------------------------------------------


def test_a_file_is_a_path_or_bytes_or_a_handle(tmp_path: Path) -> None:
    tree(tmp_path, a=b"from a path")
    files = {"/a": tmp_path / "a", "/b": str(tmp_path / "a"), "/c": b"bytes", "/d": Module(digest(b"x"), 1, data=b"x")}
    assert spec(files=files).files == {
        "/a": digest(b"from a path"),
        "/b": digest(b"from a path"),
        "/c": digest(b"bytes"),
        "/d": digest(b"x"),
    }


def test_a_folder_brings_the_files_below_it_in_the_order_of_their_names(tmp_path: Path) -> None:
    tree(tmp_path, b__z=b"3", b__c__d=b"2", a=b"1", empty=b"")
    (tmp_path / "bare").mkdir()
    found = spec(dirs={"/lib/": tmp_path, "/": str(tmp_path / "b")}).files
    assert list(found) == ["/lib/a", "/lib/b/c/d", "/lib/b/z", "/lib/empty", "/c/d", "/z"]
    assert found["/lib/b/z"] == digest(b"3") and found["/lib/empty"] == NOTHING


def test_a_file_that_is_named_goes_over_one_of_a_folder(tmp_path: Path) -> None:
    tree(tmp_path, a=b"1", b=b"2")
    assert spec(dirs={"/lib": tmp_path}, files={"/lib/a": b"mine"}).files["/lib/a"] == digest(b"mine")
    with pytest.raises(ValueError, match="'/lib/a' comes from two"):
        spec(dirs={"/lib": tmp_path, "/lib/": tmp_path})


def test_a_link_is_followed_where_it_stays_in_the_folder(tmp_path: Path) -> None:
    tree(tmp_path, code__a=b"1")
    (tmp_path / "to_file").symlink_to("code/a")
    (tmp_path / "to_folder").symlink_to("code")
    assert list(spec(dirs={"/d": tmp_path}).files) == ["/d/code/a", "/d/to_file", "/d/to_folder/a"]


def test_a_file_is_read_once_as_long_as_it_stays_the_same(tmp_path: Path) -> None:
    # given
    files, path = Files(), tree(tmp_path, a=b"before") / "a"
    first: Any = files.ready({"files": {"/a": path}})["files"]
    # then
    second: Any = files.ready({"files": {"/a": path}})["files"]
    assert second.sources[digest(b"before")] is first.sources[digest(b"before")]
    # when
    path.write_bytes(b"after!")
    os.utime(path, ns=(1, 1))
    # then
    assert files.ready({"files": {"/a": path}})["files"] == {"/a": digest(b"after!")}


def test_options_that_are_ready_are_left_as_they_are(tmp_path: Path) -> None:
    files = Files()
    options = files.ready({"files": {"/a": b"1"}, "dirs": {"/b": tree(tmp_path, c=b"2")}, "retries": 1})
    assert type(options["files"]) is Placed and type(options["dirs"]) is Placed
    assert files.ready(options) is options
    plain: Any = {"retries": 1}
    assert files.ready(plain) is plain


def test_files_travel_in_a_specification_as_a_plain_map() -> None:
    made = spec(files={"/a": b"1"}, scratch="1M", collect=["/tmp/out"])
    assert unpack(JobSpec, pack(made)) == JobSpec(
        MODULE.digest, files={"/a": digest(b"1")}, scratch=1024 * 1024, collect=("/tmp/out",)
    )


def test_what_is_to_come_back_has_room_to_be_written() -> None:
    assert spec(collect=["/tmp/a"]).scratch == SCRATCH_BYTES
    assert spec(collect=["/tmp/a"], scratch=4096).scratch == 4096
    assert spec(retries=0).scratch == 0


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a", "", "/", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\n", "/a\0", "/\udcff", "/" + "a" * 256, b"/a"]
)
def test_a_path_that_means_different_things_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="can't be a path in the guest"):
        spec(files={path: b""})
    with pytest.raises(ValueError, match="can't be a path in the guest"):
        spec(collect=[path])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"files": {"/a": b"", "/a/b": b""}}, "'/a' can't be a file and the folder"),
        ({"files": {"/tmp/a": b""}, "scratch": 1}, "'/tmp/a' can't be a file"),
        ({"collect": ["/out"]}, "'/out' can't be collected"),
        ({"collect": ["/tmp/a"] * 65}, "64 paths"),
        ({"files": {f"/{number}": b"" for number in range(MAX_FILES + 1)}}, "2048 files"),
    ],
)
def test_files_that_no_broker_would_take_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spec(**options)


def test_one_path_is_no_list_of_paths() -> None:
    with pytest.raises(TypeError, match="list of paths"):
        spec(collect="/tmp/a")


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        spec(files={"/a": tmp_path})
    with pytest.raises(NotADirectoryError):
        spec(dirs={"/a": tree(tmp_path, file=b"") / "file"})
    with pytest.raises(FileNotFoundError):
        spec(dirs={"/a": tmp_path / "missing"})


def test_a_device_is_no_file() -> None:
    with pytest.raises(ValueError, match="/dev/zero is neither a file nor a pipe"):
        spec(files={"/a": "/dev/zero"})


def outside(folder: Path) -> str:
    (folder / "link").symlink_to("/etc/hostname")
    return "link is a link that leads out"


def beside(folder: Path) -> str:
    tree(folder.parent / "folder-2", secret=b"")
    (folder / "link").symlink_to("../folder-2/secret")
    return "link is a link that leads out"


def loop(folder: Path) -> str:
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..")
    return "up is a link to a folder that it is in"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe is neither a file nor a folder"


def bound(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    return "socket is neither a file nor a folder"


def odd(folder: Path) -> str:
    (folder / "a\nb").write_bytes(b"")
    return "can't be a path in the guest"


def many(folder: Path) -> str:
    for number in range(MAX_FILES + 1):
        (folder / str(number)).touch()
    return "has more than the 2048 files"


@pytest.mark.parametrize("make", [outside, beside, loop, pipe, bound, odd, many])
def test_a_folder_with_what_can_not_go_along_is_refused_by_name(tmp_path: Path, make: Any) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    words = make(folder)
    with pytest.raises(ValueError, match=words):
        spec(dirs={"/d": folder})


def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(FileNotFoundError, match="gone"):
        spec(dirs={"/d": tmp_path})


# --- what comes back -------------------------------------------------------------------------------------


def test_a_result_tells_what_came_back_and_what_was_not_there() -> None:
    body = msgpack.packb({"/tmp/a": b"1", "/tmp/b": None, "/tmp/c/d": b""})
    found = run_result(JobResult(1, "j", Result("completed", 0), collected=body))
    assert found.files == {"/tmp/a": b"1", "/tmp/c/d": b""} and found.missing == ["/tmp/b"]
    none = run_result(JobResult(1, "j", Result("completed", 0)))
    assert none.files == {} and none.missing == []


@pytest.mark.parametrize(
    "value", [[], {"/tmp/../etc/passwd": b""}, {"tmp/a": b""}, {b"/tmp/a": b""}, {"/tmp/a": "text"}, {"/tmp/a": 1}]
)
def test_a_result_with_odd_paths_is_refused(value: object) -> None:
    with pytest.raises(MinilambdaError, match="What was collected"):
        run_result(JobResult(1, "j", Result("completed", 0), collected=msgpack.packb(value)))

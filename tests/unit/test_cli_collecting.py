"""What a job leaves is written where the caller has said, and nowhere else."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from minilambda.cli import filing
from minilambda.cli.collecting import Collected, write_all
from minilambda.cli.options import BadOption, Options
from minilambda.client.results import RunResult
from minilambda.messages import ErrorInfo


def result(missing: tuple[str, ...] = (), error: ErrorInfo | None = None, **files: bytes) -> RunResult:
    """A result with files below /tmp/; ``__`` in a name stands for a slash."""
    state = "failed" if error else "completed"
    found = {f"/tmp/{name.replace('__', '/')}": data for name, data in files.items()}
    return RunResult(state, "job", error=error, files=found, missing=list(missing))


def write(path: str, host: Path, of: RunResult, **more: Any) -> Collected:
    (found,) = write_all({path: str(host)}, of, **more)
    return found


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- a file --------------------------------------------------------------------------------------------


def test_a_file_is_written_in_place_of_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_bytes(b"before")
    before = target.stat().st_ino
    assert write("/tmp/out", target, result(out=b"after")) == Collected("/tmp/out", str(target), 1, 5)
    assert target.read_bytes() == b"after" and target.stat().st_ino != before
    assert listing(tmp_path) == ["out.csv"]


def test_a_link_that_the_caller_names_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    assert not write("/tmp/out", tmp_path / "link", result(out=b"1")).error
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"1"


def test_what_can_not_be_replaced_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    assert not write("/tmp/out", pipe, result(out=b"through")).error
    reader.join(10)
    assert heard == [b"through"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"")
    assert write("/tmp/out", tmp_path, result(out=b"1")).error == f"{tmp_path}: Is a directory"
    assert listing(tmp_path) == ["kept"]


# --- a folder ------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "results"
    found = write("/tmp/out", target, result(out__a=b"1", out__b__c__d=b"22", outside=b"3"))
    assert found == Collected("/tmp/out", str(target), 2, 3)
    assert listing(tmp_path) == ["results", "results/a", "results/b", "results/b/c", "results/b/c/d"]
    assert (target / "b/c/d").read_bytes() == b"22"


def test_what_is_in_a_folder_already_stays_but_for_what_came(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "kept").write_bytes(b"kept")
    (tmp_path / "sub" / "a").write_bytes(b"old")
    assert not write("/tmp/out", tmp_path, result(out__sub__a=b"new")).error
    assert (tmp_path / "sub/kept").read_bytes() == b"kept" and (tmp_path / "sub/a").read_bytes() == b"new"


def test_a_link_in_a_folder_leads_nowhere(tmp_path: Path) -> None:
    # given links in the target, as from an earlier hand
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    # when
    through = write("/tmp/out", target, result(out__folder__evil=b"1"))
    over = write("/tmp/out", target, result(out__file=b"mine"))
    # then
    assert str(target / "folder/evil") in through.error and not over.error
    assert listing(outside) == ["file"] and (outside / "file").read_bytes() == b"theirs"
    assert not (target / "file").is_symlink() and (target / "file").read_bytes() == b"mine"


def test_an_answer_that_contradicts_itself_leaves_nothing_half_done(tmp_path: Path) -> None:
    target = tmp_path / "results"
    lie = result(out__a=b"1", out__a__b=b"2")
    assert str(target) in write("/tmp/out", target, lie).error
    assert listing(tmp_path) == []


def test_an_empty_folder_comes_back_too(tmp_path: Path) -> None:
    assert write("/tmp/out", tmp_path / "results", result()) == Collected("/tmp/out", str(tmp_path / "results"))
    assert listing(tmp_path) == ["results"]


def test_all_of_the_scratch_can_come_back(tmp_path: Path) -> None:
    assert write("/tmp", tmp_path / "all", result(a=b"1", b__c=b"2")).files == 2
    assert listing(tmp_path / "all") == ["a", "b", "b/c"]


# --- nothing -------------------------------------------------------------------------------------------


def test_what_was_not_there_is_told_and_leaves_what_is_here(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_bytes(b"before")
    assert "left nothing" in write("/tmp/out", target, result(missing=("/tmp/out",))).error
    assert "nothing came back" in write("/tmp/out", target, result(), asked=False).error
    assert "nothing came back" in write("/tmp/out", target, result(error=ErrorInfo("no", "No."))).error
    assert target.read_bytes() == b"before"


# --- the options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--file", "/a"),
        ("--file", "/a="),
        ("--file", "a=b"),
        ("--file", "/a/=b"),
        ("--file", "/=b"),
        ("--dir", "/a/../b=c"),
        ("--collect", "tmp=b"),
    ],
)
def test_an_option_that_names_no_place_is_refused(option: str, text: str) -> None:
    with pytest.raises(BadOption, match=f"^{option}: "):
        filing.run_options(Options({option: [text]}, {}))


def test_a_path_in_the_guest_is_named_once() -> None:
    with pytest.raises(BadOption, match="/a is named twice"):
        filing.run_options(Options({"--file": ["/a=x", "/a=y"]}, {}))


def test_the_options_become_those_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "x=y").write_bytes(b"data")
    given = {"--file": [f"/in={tmp_path}/x=y"], "--scratch": "1M"}
    found = filing.run_options(
        Options(given, {"MINILAMBDA_DIR": f"/lib/={tmp_path}\n", "MINILAMBDA_COLLECT": "/tmp/=z"})
    )
    assert list(found["files"]) == ["/in"] and list(found["dirs"]) == ["/lib/x=y"]
    assert (found["scratch"], found["collect"]) == (1024 * 1024, ["/tmp"])
    assert [each.size for each in filing.sources_of(found)] == [4, 4]
    assert filing.run_options(Options({}, {})) == {}


def test_a_place_that_can_not_be_written_to_is_refused_before_the_job_runs(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="there is no folder"):
        filing.targets(Options({"--collect": [f"/tmp/a={tmp_path}/missing/a"]}, {}))
    assert filing.targets(Options({"--collect": ["/tmp/a=a"]}, {})) == {"/tmp/a": "a"}

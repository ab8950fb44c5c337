"""What the client shows of a job's output as it comes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minilambda.cli import client, options
from minilambda.cli.live import AGAIN, Shown
from minilambda.client.live import Chunk

Captured = pytest.CaptureFixture[bytes]


def test_output_is_shown_byte_for_byte_on_its_own_stream(capfdbinary: Captured) -> None:
    begun: list[str] = []
    shown = Shown("minilambda-client", "job", False, lambda: begun.append("first"))
    shown.show(Chunk("stdout", b"\x00\xff\r\n", 0, 1))
    shown.show(Chunk("stderr", b"warn", 0, 1))
    shown.show(Chunk("stdout", b"more", 4, 1))
    assert capfdbinary.readouterr() == (b"\x00\xff\r\nmore", b"warn")
    assert begun == ["first"]


def test_a_new_attempt_is_said_in_a_line(capfdbinary: Captured) -> None:
    shown = Shown("minilambda-client", "job", False)
    shown.show(Chunk("stdout", b"1", 0, 1))
    shown.show(Chunk("stdout", b"2", 0, 2))
    shown.show(Chunk("stdout", b"3", 1, 2))
    assert capfdbinary.readouterr() == (b"123", f"minilambda-client: {AGAIN}\n".encode())


def test_output_as_json_is_an_object_a_line(capfdbinary: Captured) -> None:
    shown = Shown("minilambda-client", "job", True)
    shown.show(Chunk("stdout", "ä\n".encode(), 0, 1))
    shown.show(Chunk("stderr", b"\xff", 7, 2))
    printed = capfdbinary.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == [
        {"job_id": "job", "attempt": 1, "stream": "stdout", "offset": 0, "data": "ä\n"},
        {"job_id": "job", "attempt": 2, "stream": "stderr", "offset": 7, "data": "\ufffd", "data_base64": "/w=="},
    ]
    assert not printed.err


def test_follow_stands_before_or_behind_the_job() -> None:
    for argv in (["logs", "--follow", "j"], ["-f", "logs", "j"], ["logs", "j", "-f"]):
        found = options.parse("minilambda-client", client.USAGE, argv)
        assert (found["logs"], found["<job>"], found["--follow"]) == (True, "j", True)


@pytest.mark.parametrize("argv", [["--detach"], ["--stdin", "-"]])
def test_what_makes_no_sense_with_interactive_is_refused(argv: list[str], tmp_path: Path, capsys: Captured) -> None:
    module = tmp_path / "x.wasm"
    module.write_bytes(b"\0asm")
    assert client.main(["--interactive", *argv, str(module)]) == 2
    assert "--interactive" in str(capsys.readouterr().err)

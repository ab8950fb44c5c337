"""Live output and input through real processes: what a guest writes is seen at once, and it waits for its input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests import wat
from tests.cluster import Cluster, running_cluster
from tests.integration.guests import HELLO
from tests.integration.plain import Plain, run

CONVERSE = wat.wasm(wat.CONVERSE)
GROW = "(loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
GREEDY = wat.wasm(wat.CONVERSE.replace('(func (export "_start")', f'(func (export "_start") {GROW}'))
"""The same, once it has all the memory that it can get."""
MANY = 128
MUCH = wat.wasm(
    f"""(module (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 3)
  (data (i32.const 0) "\\00\\00\\01\\00\\00\\00\\01\\00")
  (func (export "_start") (local $left i32)
    (local.set $left (i32.const {MANY}))
    (loop $again
      (i32.store8 (i32.const 65536) (local.get $left))
      (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"""
)
"""Writes ``MANY`` times 64 KiB."""
ALL = b"".join(bytes([left]) + bytes(65535) for left in range(MANY, 0, -1))
WAITING = wat.wasm(
    """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $p (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "\\00\\02\\00\\00\\05\\00\\00\\00")
  (data (i32.const 512) "begun")
  (func (export "_start")
    (drop (call $w (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 300)))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 60000000000))
    (drop (call $p (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"""
)
"""Writes ``begun`` and sleeps for a minute."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("streams")) as made:
        yield made


class Follower:
    """A DEALER that follows one job."""

    def __init__(self, plain: Plain, job: str, credit: int = 1 << 20, **keys: Any) -> None:
        self.job = job
        self.plain = plain
        self.request = self.plain.send("follow", job=job, credit=credit, **keys)
        self.stdout, self.stderr, self.attempt, self.followed = b"", b"", 0, None

    def hear(self) -> dict[str, Any]:
        header, bodies = self.plain.receive()
        if header["type"] == "output" and header["request"] == self.request:
            if header["attempt"] != self.attempt:
                self.attempt, self.stdout, self.stderr = header["attempt"], b"", b""
            before = getattr(self, header["stream"])
            assert header["offset"] == len(before)
            setattr(self, header["stream"], before + bodies.get("data", b""))
        elif header["type"] == "followed":
            self.followed = header
        return header

    def until(self, stdout: bytes) -> None:
        """Wait until so much has come."""
        while len(self.stdout) < len(stdout):
            self.hear()
        assert self.stdout == stdout

    def all(self, credit: int = 0) -> dict[str, Any]:
        while self.followed is None:
            before = len(self.stdout)
            self.hear()
            if credit and len(self.stdout) > before:
                self.allow(len(self.stdout) - before)
        return self.followed

    def allow(self, more: int) -> None:
        self.plain.send("credit", request=self.request, bytes=more)

    def type(self, data: bytes, offset: int, eof: bool = False) -> None:
        """Send input until it is taken."""
        while True:
            number = self.plain.send("input", {"data": data}, job=self.job, offset=offset, eof=eof)
            while (header := self.hear())["request"] != number:
                pass
            if header["type"] == "taken":
                assert header["received"] == offset + len(data)
                return
            assert header["code"] == "busy" and header["retry_after_ms"] == 50, header


class Desk:
    """Clients of one broker, all on one connection but for those who follow."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._context: zmq.Context[Any] = zmq.Context()
        self._made: list[Plain] = []
        self.plain = self._connect(zmq.REQ)

    def _connect(self, kind: int) -> Plain:
        self._made.append(Plain(self._context, self._address, kind))
        return self._made[-1]

    def follow(self, job: str, credit: int = 1 << 20) -> Follower:
        return Follower(self._connect(zmq.DEALER), job, credit)

    def close(self) -> None:
        for plain in self._made:
            plain.socket.close()
        self._context.term()

    def start(self, wasm: bytes, stdin: bytes = b"", **spec: Any) -> str:
        """Hand a job over; answers its id."""
        keys = run(wasm, stdin, **spec)
        header, _ = self.plain.ask("run", detach=True, **keys)
        assert header["type"] == "accepted", header
        return str(keys["job"])

    def result(self, job: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        header, bodies = self.plain.ask("get_result", job=job, wait_ms=20_000)
        assert header["type"] == "result", header
        return header["result"], bodies


@pytest.fixture
def desk(cluster: Cluster) -> Iterator[Desk]:
    made = Desk(cluster.address)
    yield made
    made.close()


def test_output_arrives_while_the_guest_runs_and_input_reaches_it(desk: Desk) -> None:
    job = desk.start(CONVERSE, b"first ", stream=True)
    follower = desk.follow(job)
    said, place = b"ready\nfirst ", 0
    follower.until(said)
    status, _ = desk.plain.ask("status", job=job)
    assert status["state"] in ("assigned", "running")
    for number in range(5):
        line = b"line %d\n" % number
        follower.type(line, place)
        said, place = said + line, place + len(line)
        follower.until(said)
    follower.type(b"", place, eof=True)
    assert follower.all()["state"] == "completed"
    result, bodies = desk.result(job)
    assert result["exit_code"] == 0 and bodies == {"stdout": follower.stdout, "stderr": b"bye\n"}
    assert follower.stderr == b"bye\n"


def test_input_larger_than_a_pipe_arrives_whole(desk: Desk) -> None:
    body, more = bytes(range(256)) * 1200, b"more" * 50_000
    job = desk.start(CONVERSE, body, stream=True)
    follower = desk.follow(job)
    follower.type(more, 0, eof=True)
    assert follower.all(credit=1)["state"] == "completed"
    assert follower.stdout == b"ready\n" + body + more


def test_a_guest_that_has_taken_all_its_memory_can_still_read(desk: Desk) -> None:
    job = desk.start(GREEDY, stream=True, memory_bytes=16 << 20)
    follower = desk.follow(job)
    follower.until(b"ready\n")
    follower.type(b"here", 0, eof=True)
    assert follower.all()["state"] == "completed" and follower.stdout == b"ready\nhere"


@pytest.mark.parametrize(("how", "code"), [("deadline", "deadline_exceeded"), ("cancel", "cancelled")])
def test_a_guest_that_waits_for_input_is_ended(desk: Desk, how: str, code: str) -> None:
    job = desk.start(CONVERSE, stream=True, timeout_ms=300 if how == "deadline" else 60_000)
    follower = desk.follow(job)
    follower.until(b"ready\n")
    if how == "cancel":
        desk.plain.ask("cancel", job=job)
    follower.all()
    result, bodies = desk.result(job)
    assert result["error"]["code"] == code and bodies["stdout"] == b"ready\n"


def test_a_slow_reader_gets_all_in_the_end_and_holds_up_nobody(desk: Desk) -> None:
    job = desk.start(MUCH, output_bytes=16 << 20)
    follower = desk.follow(job, credit=1000)
    result, bodies = desk.result(job)
    assert result["state"] == "completed" and bodies["stdout"] == ALL
    assert desk.plain.ask("run", **run(HELLO))[1]["stdout"] == b"hello\n"
    while len(follower.stdout) < 1000:
        follower.hear()
    assert not follower.plain.socket.poll(50) and len(follower.stdout) == 1000
    follower.allow(1 << 20)
    follower.all(credit=1)
    assert follower.stdout == ALL


def test_a_reader_that_keeps_up_gets_all_while_the_guest_writes(desk: Desk) -> None:
    job = desk.start(MUCH, output_bytes=16 << 20)
    follower = desk.follow(job)
    follower.all(credit=1)
    assert follower.stdout == ALL


def test_an_ended_job_is_told_to_anybody_who_asks_later(desk: Desk) -> None:
    job = desk.start(HELLO)
    desk.result(job)
    follower = desk.follow(job)
    assert follower.all()["state"] == "completed" and follower.stdout == b"hello\n"


def test_a_job_that_loses_its_worker_is_followed_into_the_next_attempt(tmp_path: Path) -> None:
    quick = ("--heartbeat", "200ms", "--liveness", "1s")
    with (
        running_cluster(tmp_path, quick, [["--slots", "2"]]) as cluster,
        contextlib.closing(Desk(cluster.address)) as desk,
    ):
        job, fed = desk.start(WAITING), desk.start(CONVERSE, stream=True, retries=5)
        follower, other = desk.follow(job), desk.follow(fed)
        follower.until(b"begun")
        other.until(b"ready\n")
        cluster.lose(cluster.service("worker-1"))
        cluster.start_worker()
        assert other.all()["state"] == "failed"
        assert desk.result(fed)[0]["error"]["code"] == "worker_lost"
        while follower.attempt < 2 or not follower.stdout:
            follower.hear()
        assert follower.stdout == b"begun"
        desk.plain.ask("cancel", job=job)
        assert follower.all()["state"] == "cancelled"

"""What guests may expect of WASI, call by call: one small module each, and what it must answer."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import Client
from minilambda.errors import Trap
from tests import wat
from tests.cluster import Cluster

FOLDER = Path(__file__).parent
SUCCESS, BADF, INVAL, NOTSOCK, SPIPE = 0, 8, 28, 57, 70
"""WASI's error numbers."""

ANSWERS: dict[str, int] = {
    # what is granted
    "sched_yield": SUCCESS,
    "args_sizes_get": SUCCESS,
    "clock_time_get_realtime": SUCCESS,
    "clock_time_get_monotonic": SUCCESS,
    "clock_res_get_monotonic": SUCCESS,
    "random_get_nothing": SUCCESS,
    "open_descriptors": 3,
    "sleep": 1,
    # what there is not
    "clock_time_get_process": BADF,
    "poll_oneoff_nothing": INVAL,
    "fd_write_99": BADF,
    "fd_close_99": BADF,
    "fd_write_stdin": BADF,
    "fd_read_stdout": BADF,
    "fd_seek_stdout": SPIPE,
    "fd_filestat_set_size_stdout": BADF,
    # no directories
    "fd_prestat_get_3": BADF,
    "fd_prestat_dir_name_3": BADF,
    "path_open_3": BADF,
    "path_open_stdin": BADF,
    "path_create_directory_3": BADF,
    "path_unlink_file_3": BADF,
    "path_filestat_get_3": BADF,
    "fd_readdir_3": BADF,
    # no network
    "sock_accept_3": BADF,
    "sock_accept_stdin": NOTSOCK,
    "sock_recv_stdin": NOTSOCK,
    "sock_send_stdout": NOTSOCK,
    "sock_shutdown_stdin": NOTSOCK,
}
"""What each module exits with: the error number of its call, where it is not named otherwise in the module."""

SHOWN = {"clock_time_get_unknown", "args", "environ", "random", "clocks", "streams", "stdin"}
"""Modules with a test of their own below."""


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.connect() as connected:
        yield connected


def module(name: str) -> bytes:
    return wat.wasm((FOLDER / f"{name}.wat").read_text())


@pytest.mark.parametrize("name", ANSWERS)
def test_a_call_answers_as_it_should(client: Client, name: str) -> None:
    result = client.run(module(name), timeout=20)
    assert (result.exit_code, result.stdout, result.stderr) == (ANSWERS[name], b"", b"")


def test_every_module_of_the_folder_has_an_expectation() -> None:
    assert {path.stem for path in FOLDER.glob("*.wat")} == ANSWERS.keys() | SHOWN


def test_arguments_are_the_programs_name_and_what_was_given(client: Client) -> None:
    args = ["", "a b", "\N{SNOWMAN}", "--x=y", "'\"\\"]
    assert client.run(module("args"), args).stdout.split(b"\0") == [
        b"main.wasm",
        *(arg.encode() for arg in args),
        b"",
    ]


def test_the_environment_is_what_was_given_and_nothing_else(client: Client) -> None:
    assert client.run(module("environ")).stdout == b""
    given = {"A": "1", "B": "", "C": "\N{SNOWMAN}=x"}
    entries = client.run(module("environ"), env=given).stdout.split(b"\0")
    assert entries == [b"A=1", b"B=", "C=\N{SNOWMAN}=x".encode(), b""]


def test_random_bytes_are_never_the_same(client: Client) -> None:
    drawn = {client.run(module("random")).stdout for _ in range(10)}
    assert len(drawn) == 10 and all(len(data) == 64 for data in drawn)


def test_the_clocks_tell_the_time_and_do_not_go_back(client: Client) -> None:
    before = time.time_ns()
    wall, first, second = struct.unpack("<3Q", client.run(module("clocks")).stdout)
    assert before - 10**9 <= wall <= time.time_ns() + 10**9
    assert first <= second


def test_both_streams_take_what_is_written_and_what_exits_has_exited(client: Client) -> None:
    result = client.run(module("streams"))
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"foobarfoobar", b"foobar")


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_standard_input_is_all_that_was_given_and_then_ends(client: Client, size: int) -> None:
    given = bytes(range(256)) * (size // 256 + 1)
    assert client.run(module("stdin"), stdin=given[:size]).stdout == given[:size]


def test_a_clock_that_does_not_exist_is_a_trap(client: Client) -> None:
    with pytest.raises(Trap, match="Clockid"):
        client.run(module("clock_time_get_unknown"))

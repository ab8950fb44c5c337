"""What a caller writes and what it gets: options, modules, results."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgpack
import pytest
import zmq

import minilambda
from minilambda import Client, errors
from minilambda.client.calls import Patience
from minilambda.client.link import Link
from minilambda.client.listings import cluster, module_info
from minilambda.client.modules import Module, Modules
from minilambda.client.results import run_result
from minilambda.client.spec import RunOptions, job_spec, stdin_bytes, typed_values
from minilambda.messages import ErrorInfo, JobResult, Result, WorkerList
from minilambda.notation import BadSetting

DIGEST = "sha256:" + "0" * 64


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_options_become_a_specification() -> None:
    options: RunOptions = {"timeout": 1.5, "memory": "64M", "output_limit": 1000, "env": {"A": "b"}, "retries": 0}
    spec = job_spec(DIGEST, ["x", Path("y")], options)
    assert (spec.timeout_ms, spec.memory_bytes, spec.output_bytes) == (1500, 64 * 1024 * 1024, 1000)
    assert (spec.args, spec.env, spec.retries) == (("x", "y"), {"A": "b"}, 0)


def test_a_time_below_a_millisecond_is_not_no_limit() -> None:
    assert job_spec(DIGEST, [], {"timeout": 0.0001}).timeout_ms == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": 1e9}, ValueError),
        ({"memory": 0}, ValueError),
        ({"memory": 2**49}, ValueError),
        ({"memory": "lots"}, errors.MinilambdaError),
        ({"tiemout": 5}, TypeError),
    ],
)
def test_options_that_make_no_sense_are_refused_here(options: RunOptions, error: type[Exception]) -> None:
    with pytest.raises(error):
        job_spec(DIGEST, [], options)


def test_one_text_is_not_a_list_of_arguments() -> None:
    with pytest.raises(TypeError, match="a list of texts"):
        job_spec(DIGEST, "abc", {})


def test_stdin_is_bytes_or_text() -> None:
    assert stdin_bytes({"stdin": "ü"}) == "ü".encode()
    assert stdin_bytes({"stdin": b"\xff"}) == b"\xff"
    assert stdin_bytes({}) == b""


def test_values_travel_with_their_types() -> None:
    assert msgpack.unpackb(typed_values([1, 2.5, "x", b"y", [None], {"a": True}])) == [
        *(1, 2.5, "x", b"y", [None], {"a": True})
    ]


def test_a_value_that_can_not_travel_is_a_bad_argument() -> None:
    with pytest.raises(errors.BadArguments):
        typed_values([2**64])
    with pytest.raises(errors.BadArguments):
        typed_values([object()])


def test_a_module_is_a_path_bytes_a_digest_or_a_handle(tmp_path: Path) -> None:
    path = tmp_path / "m.wasm"
    path.write_bytes(b"wasm")
    modules = Modules()
    handle = modules.find(path)
    assert (handle.digest, handle.size) == (sha(b"wasm"), 4)
    assert modules.find(str(path)).digest == modules.find(b"wasm").digest == handle.digest
    assert modules.find(handle) is handle
    assert modules.find(DIGEST) == Module(DIGEST)
    assert handle.read(1, 2) == modules.find(b"wasm").read(1, 2) == b"as"


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "m.wasm"
    path.write_bytes(b"one")
    modules = Modules()
    first = modules.find(path)
    assert modules.find(path) is first
    path.write_bytes(b"other")
    assert modules.find(path).digest == sha(b"other")


def test_a_file_that_changes_while_it_is_sent_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.wasm"
    path.write_bytes(b"one")
    handle = Modules().find(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    with pytest.raises(errors.MinilambdaError, match="changed"):
        handle.read(0, 3)


def test_a_pipe_is_read_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"wasm",))
    writer.start()
    handle = Modules().find(path)
    writer.join()
    assert (handle.digest, handle.size, handle.read(1, 2)) == (sha(b"wasm"), 4, b"as")


def test_a_file_without_end_is_read_to_the_limit() -> None:
    with pytest.raises(errors.ModuleTooLarge, match="more than the 20000000 bytes"):
        Modules().find("/dev/zero", lambda: 20_000_000)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    with path.open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(errors.ModuleTooLarge):
        Modules().find(path, lambda: 2**42)


@pytest.mark.timeout(20)
def test_a_connection_that_can_not_be_opened_leaves_nothing_that_its_context_waits_for() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with pytest.raises(UnicodeEncodeError):
        Link(context, "tcp://\udcff:1", Patience())
    with pytest.raises(BadSetting):
        Link(context, "nowhere://h:1", Patience())
    context.term()


def test_equal_bytes_are_hashed_once() -> None:
    modules, data = Modules(), b"x" * 1000
    assert modules.find(data) is modules.find(data)


def test_no_such_file_is_the_builtin_error() -> None:
    with pytest.raises(FileNotFoundError):
        Modules().find("/nonexistent/m.wasm")


def test_a_completed_job_has_no_exception_whatever_its_exit_code() -> None:
    found = run_result(JobResult(1, "job", Result("completed", 7), stdout=b"o\xff"))
    assert found.exception() is None
    assert not found.ok
    assert found.stdout_text == "o\ufffd"


def test_a_failed_job_has_the_exception_of_its_code_with_the_result_in_it() -> None:
    failed = Result("failed", error=ErrorInfo("deadline_exceeded", "Stopped after 5 s."))
    found = run_result(JobResult(1, "job", failed, stdout=b"so far"))
    error = found.exception()
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.result is found
    assert str(error) == "Stopped after 5 s."


def test_a_code_of_a_later_version_is_still_a_job_error() -> None:
    found = run_result(JobResult(1, "job", Result("failed", error=ErrorInfo("melted", "Too hot."))))
    assert isinstance(found.exception(), errors.JobError)
    assert "melted" in str(found.exception())


def test_a_value_that_is_no_msgpack_is_an_error() -> None:
    with pytest.raises(errors.MinilambdaError):
        run_result(JobResult(1, "job", Result("completed"), value=b"\xc1"))


def test_rows_with_missing_or_strange_columns_are_taken() -> None:
    assert module_info({"module": DIGEST, "size": "big"}).size == 0
    assert cluster(WorkerList(1, ({"name": "w"},), 3)).workers[0].slots == 0


def test_a_client_says_when_it_is_used_from_another_thread() -> None:
    caught: list[BaseException] = []

    def use() -> None:
        try:
            client.workers()
        except RuntimeError as error:
            caught.append(error)

    with Client("127.0.0.1:1") as client:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert "another thread" in str(caught[0])


def test_a_client_says_when_it_is_closed() -> None:
    client = Client("127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.workers()


def test_an_empty_module_is_no_module() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(errors.InvalidModule):
        client.run(b"")


def test_a_broker_that_is_not_there_is_unreachable() -> None:
    with (
        Client("127.0.0.1:1", connect_timeout=0.05) as client,
        pytest.raises(errors.Unreachable, match="No broker"),
    ):
        client.run(b"wasm")


def test_every_public_name_can_be_imported() -> None:
    for name in minilambda.__all__:
        assert getattr(minilambda, name) is not None
    with pytest.raises(AttributeError):
        minilambda.nonsense  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "slow"),
    [
        ("import minilambda", ("zmq", "msgpack", "rich", "asyncio")),
        (
            "from minilambda import Client; Client('127.0.0.1:1').close()",
            ("rich", "asyncio", "logging", "socket", "tempfile", "minilambda.settings", "minilambda.messages.worker"),
        ),
    ],
)
def test_importing_the_package_imports_nothing_slow(statement: str, slow: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"

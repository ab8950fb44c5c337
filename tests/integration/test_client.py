"""The Python client against a real broker and a real worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import Client, errors
from tests import wat
from tests.cluster import Cluster, Service, wait_for

HELLO, CAT, ADD, LOOP = (wat.wasm(text) for text in (wat.HELLO, wat.CAT, wat.ADD, wat.LOOP))


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.address) as client:
        yield client


def padded(wasm: bytes, size: int) -> bytes:
    """The module with a custom section behind it, so that it has about ``size`` bytes, and a hash of its own."""
    content = b"\x03pad" + os.urandom(size)
    length = len(content)
    leb = bytearray()
    while True:
        leb.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return wasm + b"\0" + bytes(leb) + content


def test_a_module_runs_and_its_output_comes_back(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "hello.wasm"
    path.write_bytes(HELLO)
    for module in (path, str(path), HELLO, client.module(path), client.module(path).digest):
        result = client.run(module)
        assert (result.stdout, result.exit_code, result.state, result.ok) == (b"hello\n", 0, "completed", True)
    assert result.tier == "warm"
    assert result.worker == "worker-1"
    assert result.usage.run_ms > 0


def test_stdin_goes_in_whole(client: Client) -> None:
    data = os.urandom(3_000_000)
    assert client.run(CAT, stdin=data, output_limit="8M").stdout == data


def test_arguments_and_environment_are_what_the_job_sets(client: Client) -> None:
    assert b"one" in client.run(wat.wasm(wat.ARGS), ["one", "zwei ü"]).stdout
    assert client.run(wat.wasm(wat.ENVIRON), env={"A": "b c"}).stdout.rstrip(b"\0\n") == b"A=b c"


def test_another_exit_code_is_a_completed_job(client: Client) -> None:
    result = client.run(wat.wasm(wat.printing("x", exit_code=3)))
    assert (result.state, result.exit_code, result.ok) == ("completed", 3, False)


def test_a_function_is_called_with_values_and_gives_one_back(client: Client) -> None:
    assert client.call(ADD, "add", 2, -3) == -1
    assert client.run(ADD, ["2", "3"], invoke="add").value == 5
    with pytest.raises(errors.UnknownExport, match="nope"):
        client.call(ADD, "nope")
    with pytest.raises(errors.BadArguments):
        client.call(ADD, "add", 1)


def test_a_failure_is_raised_with_the_result_in_it(client: Client) -> None:
    with pytest.raises(errors.DeadlineExceeded) as caught:
        client.run(LOOP, timeout=0.2)
    result = caught.value.result
    assert result is not None
    assert (result.state, result.attempt) == ("failed", 1)
    unchecked = client.run(wat.wasm(wat.DIVIDE), check=False)
    assert unchecked.error is not None
    assert unchecked.error.code == "trap"


def test_a_module_in_many_pieces_arrives_whole(client: Client) -> None:
    seen: list[tuple[int, int]] = []
    module = padded(HELLO, 5_000_000)
    client.upload(module, progress=lambda sent, size: seen.append((sent, size)))
    assert [sent for sent, _ in seen] == [number * 1024 * 1024 for number in range(5)]
    assert client.run(module).stdout == b"hello\n"


def test_a_large_module_needs_no_upload_by_hand(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    path.write_bytes(padded(HELLO, 3_000_000))
    assert client.run(path).stdout == b"hello\n"
    assert client.module(path).digest in [each.module for each in client.modules()]


def test_a_module_that_nobody_sent_is_not_found(client: Client) -> None:
    with pytest.raises(errors.NotFound):
        client.run("sha256:" + "0" * 64)


def test_a_submitted_job_can_be_asked_for_by_its_id(client: Client, cluster: Cluster) -> None:
    job = client.submit(CAT, stdin="later")
    assert job.result(timeout=20).stdout == b"later"
    assert job.status().done
    with Client(cluster.address) as another:
        assert another.job(job.id).result(0).stdout == b"later"
    with pytest.raises(errors.NotFound):
        client.job("no-such-job").status()


def test_a_result_that_is_not_there_in_time_is_a_timeout(client: Client) -> None:
    job = client.submit(LOOP, timeout=30)
    with pytest.raises(TimeoutError, match=job.id):
        job.result(timeout=0.05)
    job.cancel()
    with pytest.raises(errors.Cancelled):
        job.result(timeout=20)
    assert job.cancel().state == "cancelled"


def test_a_run_that_is_not_waited_for_is_cancelled(client: Client) -> None:
    with pytest.raises(TimeoutError):
        client.run(LOOP, timeout=30, wait=0.2, job_id="impatient")
    with pytest.raises(errors.Cancelled):
        client.job("impatient").result(timeout=20)


def test_the_same_id_is_the_same_job_and_other_content_a_conflict(client: Client) -> None:
    first = client.run(CAT, stdin="x", job_id="same-id")
    again = client.run(CAT, stdin="x", job_id="same-id")
    assert (again.stdout, again.usage) == (first.stdout, first.usage)
    with pytest.raises(errors.Conflict):
        client.run(CAT, stdin="y", job_id="same-id")


def test_many_inputs_give_their_results_in_order(client: Client) -> None:
    inputs = (f"input {number}".encode() for number in range(300))
    results = list(client.map(CAT, inputs, window=20))
    assert [result.stdout for result in results] == [f"input {number}".encode() for number in range(300)]
    assert [result.index for result in results] == list(range(300))


def test_inputs_are_arguments_bytes_or_options(client: Client) -> None:
    args = wat.wasm(wat.ARGS)
    results = list(client.map(args, [["a"], b"", {"args": ["b"], "timeout": 5}]))
    assert b"a" in results[0].stdout
    assert b"b" in results[2].stdout
    sums = client.map(ADD, [[str(number), "1"] for number in range(20)], invoke="add", ordered=False)
    assert sorted(result.value for result in sums) == list(range(1, 21))


def test_a_map_raises_a_failure_in_its_turn_and_cancels_the_rest(client: Client) -> None:
    inputs = [{"timeout": 30.0 if number else 0.2, "job_id": f"map-{number}"} for number in range(4)]
    results = client.map(LOOP, inputs, window=4)
    with pytest.raises(errors.DeadlineExceeded):
        next(results)
    for number in range(1, 4):
        with pytest.raises(errors.Cancelled):
            client.job(f"map-{number}").result(timeout=20)


def test_closing_the_client_ends_a_map_that_was_left_half_way(cluster: Cluster) -> None:
    inputs = [{"timeout": 30.0 if number else 0.2, "job_id": f"left-{number}"} for number in range(3)]
    with Client(cluster.address) as client:
        results = client.map(LOOP, inputs, window=3, check=False)
        next(results)
    assert list(results) == []
    with Client(cluster.address) as client:
        for number in range(1, 3):
            with pytest.raises(errors.Cancelled):
                client.job(f"left-{number}").result(timeout=20)


def test_each_thread_has_a_client_of_its_own(cluster: Cluster) -> None:
    outputs: list[bytes] = []

    def use(number: int) -> None:
        with Client(cluster.address) as client:
            outputs.extend(client.run(CAT, stdin=str(number)).stdout for _ in range(10))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(str(number).encode() for number in range(4) for _ in range(10))


def test_a_client_does_not_outlive_a_fork(client: Client) -> None:
    client.run(HELLO)
    pid = os.fork()
    if pid == 0:
        try:
            client.run(HELLO)
        except RuntimeError as error:
            os._exit(7 if "fork" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert client.run(HELLO).stdout == b"hello\n"


def test_an_interrupt_in_the_middle_of_a_request_leaves_no_half_of_it_behind(client: Client) -> None:
    # given
    client.run(HELLO)
    link = client._live()
    send = link._send

    def interrupted(frame: bytes, flags: int) -> None:
        if frame:
            raise KeyboardInterrupt
        send(frame, flags)

    link._send = interrupted  # type: ignore[assignment]  # a signal never comes at the very moment that a test wants
    # when
    with pytest.raises(KeyboardInterrupt):
        client.run(HELLO)
    # then
    assert client.run(HELLO).stdout == b"hello\n"


def test_the_workers_are_listed(client: Client) -> None:
    found = client.cluster()
    assert [worker.name for worker in found.workers] == ["worker-1"]
    assert found.workers[0].slots == 2


def test_a_waiting_client_outlives_a_restart_of_the_broker(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    results: list[bytes] = []

    def use() -> None:
        with Client(cluster.address) as client:
            results.append(client.run(HELLO).stdout)  # no worker yet: it waits
            results.append(client.run(HELLO).stdout)

    try:
        broker = cluster.start_broker()
        thread = threading.Thread(target=use)
        thread.start()
        with Client(cluster.address) as watcher:
            wait_for(lambda: watcher.cluster().queued == 1, "the job is queued")
            broker.kill()
            cluster.services.clear()
            again = cluster.command("broker", "--bind", cluster.address)
            cluster.services.append(Service("broker-again", again, cluster.env, tmp_path / "logs"))
            cluster.start_worker("--slots", "1")
            thread.join(40)
            assert results == [b"hello\n", b"hello\n"]
            assert len(watcher.workers()) == 1
        cluster.stop()
    finally:
        cluster.kill()

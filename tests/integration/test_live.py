"""What a running job writes and reads, by the Python client."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import Client
from minilambda.client.live import Chunk
from minilambda.errors import BadRequest, Conflict, NotFound
from tests import wat
from tests.cluster import Cluster, running_cluster, wait_for

CONVERSE = wat.wasm(wat.CONVERSE)


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.connect() as made:
        yield made


def heard(chunks: Iterator[Chunk], size: int) -> bytes:
    """So much of what a job writes; what comes with the last of it must not be more."""
    data = b""
    while len(data) < size:
        data += next(chunks).data
    assert len(data) == size, data
    return data


def test_a_conversation_with_a_running_job(client: Client) -> None:
    # given
    job = client.submit(CONVERSE, interactive=True)
    chunks = job.output()
    # when
    assert heard(chunks, 6) == b"ready\n"
    job.write(b"first\n")
    assert heard(chunks, 6) == b"first\n"
    assert not job.status().done
    job.write(b"\x00\xff")
    assert heard(chunks, 2) == b"\x00\xff"
    job.close_stdin()
    # then
    assert next(chunks) == Chunk("stderr", b"bye\n", 0, 1)
    assert list(chunks) == []
    result = job.result()
    assert (result.stdout, result.stderr) == (b"ready\nfirst\n\x00\xff", b"bye\n")
    with pytest.raises(Conflict):
        job.write(b"more")


def test_input_before_the_job_and_from_several_hands(cluster: Cluster, client: Client) -> None:
    job = client.submit(CONVERSE, stdin=b"body ", interactive=True)
    job.write(b"one ")
    with cluster.connect() as other:
        same = other.job(job.id)
        same.write(b"two ")
        same.write(b"three")
    job = client.job(job.id)
    job.write(bytes(200_000))
    job.close_stdin()
    assert job.result().stdout == b"ready\nbody one two three" + bytes(200_000)


def test_a_run_tells_its_output_as_it_comes_and_takes_answers(client: Client) -> None:
    # given
    chunks: list[Chunk] = []

    def answer(chunk: Chunk) -> None:
        chunks.append(chunk)
        if chunk.data == b"ready\n":
            client.job("told").write(b"answer")
        elif chunk.data == b"answer":
            client.job("told").close_stdin()

    # when
    result = client.run(CONVERSE, on_output=answer, interactive=True, job_id="told")
    # then
    assert result.stdout == b"ready\nanswer"
    assert [(each.stream, each.data) for each in chunks] == [
        ("stdout", b"ready\n"),
        ("stdout", b"answer"),
        ("stderr", b"bye\n"),
    ]


def test_what_hears_a_run_may_end_it(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        client.run(CONVERSE, on_output=lambda chunk: 1 // 0, interactive=True, job_id="unheard")
    wait_for(lambda: client.job("unheard").status().state == "cancelled", "the job is cancelled")
    assert client.run(wat.wasm(wat.HELLO)).stdout == b"hello\n"


def test_much_output_arrives_whole_and_in_order(client: Client) -> None:
    chunks: list[Chunk] = []
    result = client.run(wat.wasm(wat.FLOOD), on_output=chunks.append, output_limit="8M", check=False)
    assert len(result.stdout) == 8 << 20
    assert b"".join(each.data for each in chunks) == result.stdout
    assert all(each.offset + len(each.data) == after.offset for each, after in itertools.pairwise(chunks))
    assert b"".join(each.data for each in client.job(result.job_id).output()) == result.stdout


def test_one_may_look_at_what_there_is_now(client: Client) -> None:
    job = client.submit(CONVERSE, interactive=True)
    assert heard(job.output(), 6) == b"ready\n"
    assert [each.data for each in job.output(follow=False)] == [b"ready\n"]
    assert not job.status().done
    job.close_stdin()
    job.result()
    assert [each.data for each in job.output(follow=False)] == [b"ready\n", b"bye\n"]


def test_one_may_hear_what_comes_from_now_on(cluster: Cluster, client: Client) -> None:
    # given
    job = client.submit(CONVERSE, interactive=True)
    assert heard(job.output(), 6) == b"ready\n"
    later: queue.Queue[Chunk] = queue.Queue()

    def hear() -> None:
        with cluster.connect() as other:
            for chunk in other.job(job.id).output(from_start=False):
                later.put(chunk)

    thread = threading.Thread(target=hear)
    thread.start()
    # when the job writes until something is heard of it
    wait_for(lambda: job.write(b".") or not later.empty(), "something is heard")
    job.close_stdin()
    thread.join(20)
    # then
    chunks = list(later.queue)
    assert chunks[0].offset >= 6
    assert b"ready" not in b"".join(each.data for each in chunks)
    assert chunks[-1].data == b"bye\n"


def test_a_job_that_takes_no_input_says_so(client: Client) -> None:
    job = client.submit(CONVERSE)
    with pytest.raises(BadRequest):
        job.write(b"x")
    with pytest.raises(NotFound):
        client.job("nobody").write(b"x")
    with pytest.raises(NotFound):
        next(client.job("nobody").output())


def test_who_leaves_early_leaves_the_job_running(client: Client) -> None:
    job = client.submit(CONVERSE, interactive=True)
    for chunk in job.output():
        assert chunk.data == b"ready\n"
        break
    assert not job.status().done
    job.close_stdin()
    assert job.result().stderr == b"bye\n"


def test_a_broker_that_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    with running_cluster(tmp_path, broker=state) as cluster, cluster.connect() as client:
        # given
        job = client.submit(CONVERSE, interactive=True)
        chunks = job.output()
        assert heard(chunks, 6) == b"ready\n"
        # when
        cluster.lose(cluster.service("broker"))
        cluster.restart_broker(*state)
        job.write(b"again")
        # then
        assert heard(chunks, 5) == b"again"
        job.close_stdin()
        assert [each.data for each in chunks] == [b"bye\n"]

"""The asyncio client against a real broker and a real worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilambda import AsyncClient, AsyncJob, Client, errors
from tests import wat
from tests.cluster import Cluster
from tests.integration.guests import CAT, HELLO, LOOP, SLEEP, padded, slow_cat

ADD = wat.wasm(wat.ADD)
ARGS = wat.wasm(wat.ARGS)

Use = Callable[[Callable[[AsyncClient], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def use(cluster: Cluster) -> Use:
    """Runs a coroutine in a loop of its own, with a client."""

    def run(body: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with AsyncClient(cluster.address) as client:
                await body(client)

        asyncio.run(asyncio.wait_for(main(), 50))

    return run


async def until_running(client: AsyncClient, job_id: str) -> AsyncJob:
    """Wait until the job is at a worker."""
    while job_id not in [each.job for each in await client.jobs("running")]:
        await asyncio.sleep(0.005)
    return client.job(job_id)


def assert_cancelled(cluster: Cluster, *job_ids: str) -> None:
    with Client(cluster.address) as client:
        for job_id in job_ids:
            with pytest.raises(errors.Cancelled):
                client.job(job_id).result(timeout=20)


def test_many_tasks_share_one_connection_and_no_thread(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        threads = threading.active_count()
        jobs = [client.run(CAT, stdin=str(number)) for number in range(300)]
        results = await asyncio.gather(*jobs)
        assert [result.stdout for result in results] == [str(number).encode() for number in range(300)]
        assert threading.active_count() == threads

    use(body)


def test_the_names_of_the_blocking_client_are_coroutines(use: Use, tmp_path: Path) -> None:
    async def body(client: AsyncClient) -> None:
        path = tmp_path / "hello.wasm"
        path.write_bytes(HELLO)
        for module in (path, str(path), HELLO, await client.module(path), (await client.module(path)).digest):
            assert (await client.run(module)).stdout == b"hello\n"
        assert b"one" in (await client.run(ARGS, ["one"])).stdout
        assert await client.call(ADD, "add", 2, -3) == -1
        assert [worker.name for worker in await client.workers()] == ["worker-1"]
        assert (await client.cluster()).workers[0].slots == 2
        assert (await client.limits()).principal == "local"
        job = await client.submit(HELLO)
        assert (await job.result(timeout=20)).stdout == b"hello\n"
        assert (await client.job(job.id).status()).done
        assert job.id in [each.job for each in await client.jobs()]

    use(body)


def test_a_module_goes_in_pieces_and_its_progress_is_told(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        seen: list[tuple[int, int]] = []
        handle = await client.upload(padded(2_500_000), progress=lambda sent, size: seen.append((sent, size)))
        assert [sent for sent, _ in seen] == [0, 2**20, 2 * 2**20]
        assert handle.digest in [each.module for each in await client.modules()]
        results = await asyncio.gather(*(client.run(padded(3_000_000)) for _ in range(5)))
        assert {result.stdout for result in results} == {b"padded\n"}

    use(body)


def test_a_progress_that_raises_ends_the_upload_and_nothing_else(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        other = asyncio.create_task(client.run(CAT, stdin=b"x"))
        with pytest.raises(KeyError):
            await client.upload(padded(2_600_000), progress=lambda *_: {}["no such"])
        assert (await other).ok
        assert (await client.run(padded(2_600_000))).stdout == b"padded\n"

    use(body)


def test_tasks_that_begin_together_read_a_large_file_once(use: Use, tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    path.write_bytes(padded(2 * 1024 * 1024))

    async def body(client: AsyncClient) -> None:
        results = await asyncio.gather(*(client.run(path) for _ in range(20)), client.module(path), client.module(path))
        assert all(result.ok for result in results[:20])
        assert results[20] is results[21]

    use(body)


def test_a_failure_is_raised_with_the_result_in_it(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await client.run(LOOP, timeout=0.2)
        assert caught.value.result is not None
        assert (await client.run(wat.wasm(wat.DIVIDE), check=False)).error is not None
        with pytest.raises(FileNotFoundError):
            await client.run("no-such-file.wasm")
        with pytest.raises(errors.NotFound):
            await client.job("no-such-job").status()

    use(body)


def test_cancelling_a_task_cancels_its_job(use: Use, cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        task = asyncio.ensure_future(client.run(SLEEP, timeout=60, job_id="async-task"))
        await until_running(client, "async-task")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(errors.Cancelled):
            await client.job("async-task").result(timeout=20)

    use(body)


def test_many_jobs_are_cancelled_some_at_a_time(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        tasks = [asyncio.ensure_future(client.run(SLEEP, timeout=60)) for _ in range(600)]
        while (await client.cluster()).queued < 500:
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert 0 < len(client.link()._partings) <= 256
        while (await client.cluster()).queued or client.link()._partings:
            await asyncio.sleep(0.005)
        assert (await client.run(HELLO)).ok

    use(body)


def test_a_run_that_is_not_waited_for_is_cancelled(use: Use, cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            await client.run(SLEEP, timeout=30, wait=0.1, job_id="async-impatient")

    use(body)
    assert_cancelled(cluster, "async-impatient")


def test_waiting_for_a_result_may_be_given_up_and_the_job_goes_on(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        job = await client.submit(slow_cat(300), stdin="later")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job.result(), 0.05)
        with pytest.raises(TimeoutError, match=job.id):
            await job.result(timeout=0.01)
        assert (await job.result(timeout=20)).stdout == b"later"

    use(body)


def test_a_map_yields_in_order_or_as_they_end(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        inputs = (f"input {number}".encode() for number in range(200))
        results = [result async for result in client.map(CAT, inputs, window=20)]
        assert [result.stdout for result in results] == [f"input {number}".encode() for number in range(200)]
        assert [result.index for result in results] == list(range(200))
        slow = [{"args": [], "timeout": 0.3}, *({"timeout": 0.05} for _ in range(3))]
        ends = [result.index async for result in client.map(LOOP, slow, ordered=False, check=False)]
        assert sorted(ends) == [0, 1, 2, 3]
        assert ends[0] != 0

    use(body)


def test_a_map_takes_no_more_inputs_than_its_window_ahead(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        taken = 0

        def inputs() -> Iterator[bytes]:
            nonlocal taken
            while True:
                taken += 1
                yield b"x"

        seen = 0
        async with contextlib.aclosing(client.map(CAT, inputs(), window=8)) as results:
            async for _ in results:
                seen += 1
                assert taken <= seen + 8
                if seen == 50:
                    break

    use(body)


def test_a_map_takes_inputs_that_come_one_by_one(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        told: asyncio.Queue[bytes | None] = asyncio.Queue()
        told.put_nowait(b"first")

        async def inputs() -> AsyncIterator[bytes]:
            while (item := await told.get()) is not None:
                yield item

        found = []
        async for result in client.map(CAT, inputs()):
            found.append(result.stdout)
            told.put_nowait(b"second" if len(found) == 1 else None)  # it waits for a result before it goes on
        assert found == [b"first", b"second"]

    use(body)


def test_a_map_raises_what_its_inputs_raise(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        def plain() -> Iterator[bytes]:
            yield b"x"
            raise LookupError("no more")

        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            raise LookupError("no more")

        for inputs in (plain(), slow()):
            with pytest.raises(LookupError):
                _ = [result async for result in client.map(CAT, inputs)]

    use(body)


def test_leaving_a_map_cancels_what_still_runs(use: Use, cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        inputs = [{"timeout": 30.0 if number else 0.2, "job_id": f"async-map-{number}"} for number in range(4)]
        with pytest.raises(errors.DeadlineExceeded):
            async for _ in client.map(LOOP, inputs, window=4):
                pass

    use(body)
    assert_cancelled(cluster, *(f"async-map-{number}" for number in range(1, 4)))


def test_closing_a_client_ends_and_cancels_what_waits(use: Use, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.address) as client:
            task = asyncio.ensure_future(client.run(SLEEP, timeout=60, job_id="async-closed"))
            await until_running(client, "async-closed")
        with pytest.raises(RuntimeError, match="closed"):
            await task
        with pytest.raises(RuntimeError, match="closed"):
            await client.run(HELLO)

    asyncio.run(main())
    assert_cancelled(cluster, "async-closed")


def test_a_client_serves_one_loop_after_another_but_not_two_at_a_time(cluster: Cluster) -> None:
    client = AsyncClient(cluster.address)

    async def hello() -> bytes:
        return (await client.run(HELLO)).stdout

    assert [asyncio.run(hello()) for _ in range(3)] == [b"hello\n"] * 3
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert first.run_until_complete(hello()) == b"hello\n"
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run_until_complete(hello())
        first.run_until_complete(client.close())
    finally:
        first.close()
        second.close()


def test_a_client_does_not_outlive_a_fork(cluster: Cluster) -> None:
    async def main() -> int:
        async with AsyncClient(cluster.address) as client:
            await client.run(HELLO)
            pid = os.fork()
            if pid == 0:
                try:
                    await client.run(HELLO)
                except RuntimeError as error:
                    os._exit(7 if "fork" in str(error) else 8)
                os._exit(9)
            assert (await client.run(HELLO)).stdout == b"hello\n"
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert asyncio.run(main()) == 7


def test_no_broker_is_told_in_time() -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:9", connect_timeout=0.2) as client:
            results = await asyncio.gather(*(client.run(HELLO) for _ in range(3)), return_exceptions=True)
            assert [type(result) for result in results] == [errors.Unreachable] * 3

    asyncio.run(main())


def test_waiting_tasks_outlive_a_restart_of_the_broker(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)

    async def main() -> None:
        async with AsyncClient(cluster.address) as client:
            tasks = [asyncio.ensure_future(client.run(CAT, stdin=str(number))) for number in range(20)]
            while (await client.cluster()).queued < 20:
                await asyncio.sleep(0.005)
            broker.kill()
            cluster.services.clear()
            cluster.restart_broker()
            cluster.start_worker("--slots", "1")
            results = await asyncio.wait_for(asyncio.gather(*tasks), 40)
            assert [result.stdout for result in results] == [str(number).encode() for number in range(20)]

    try:
        broker = cluster.start_broker()
        asyncio.run(main())
        cluster.stop()
    finally:
        cluster.kill()


def test_output_comes_while_the_job_runs_and_input_goes_in(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        job = await client.submit(wat.wasm(wat.CONVERSE), interactive=True, timeout=60)
        heard = b""
        output = job.output()
        for word in (b"one\n", b"two\n"):
            await job.write(word)
            while not heard.endswith(word):
                heard += (await asyncio.wait_for(anext(output), 20)).data
        await job.close_stdin()
        rest = [chunk async for chunk in output]
        assert [(chunk.stream, chunk.data) for chunk in rest] == [("stderr", b"bye\n")]
        result = await job.result(timeout=20)
        assert (result.stdout, result.stderr) == (heard, b"bye\n") == (b"ready\none\ntwo\n", b"bye\n")
        again = [chunk async for chunk in client.job(job.id).output()]
        assert b"".join(chunk.data for chunk in again if chunk.stream == "stdout") == heard

    use(body)


def test_a_run_tells_its_output_as_it_comes(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        pieces: list[bytes] = []
        result = await client.run(CAT, stdin=b"x" * 200_000, on_output=lambda chunk: pieces.append(chunk.data))
        assert b"".join(pieces) == result.stdout == b"x" * 200_000
        with pytest.raises(LookupError):
            await client.run(CAT, stdin=b"x", on_output=lambda chunk: {}[chunk])

        def stop(_: object) -> None:
            raise asyncio.CancelledError

        others = [asyncio.create_task(client.run(CAT, stdin=b"x")) for _ in range(20)]
        with pytest.raises(asyncio.CancelledError):
            await client.run(CAT, stdin=b"x", on_output=stop)
        assert all(result.ok for result in await asyncio.gather(*others))
        assert (await client.run(HELLO)).stdout == b"hello\n"

    use(body)


def test_functions_are_deployed_called_and_rolled_back(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        first = await client.deploy("async-greet", wat.wasm(wat.printing("one\n")))
        second = await client.deploy("async-greet", wat.wasm(wat.printing("two\n")))
        assert (await client.run_function("async-greet")).stdout == b"two\n"
        assert (await client.set_alias("async-greet", "live")).version == first.version
        assert (await client.run_function("async-greet")).stdout == b"one\n"
        job = await client.submit_function(str(second))
        assert (await job.result(timeout=20)).stdout == b"two\n"
        await client.deploy("async-add", ADD, invoke="add")
        assert await client.call_function("async-add", 2, 3) == 5
        assert {"async-greet", "async-add"} <= {each.function for each in await client.functions()}
        for name in ("async-greet", "async-add"):
            await client.undeploy(name)
        with pytest.raises(errors.NotFound):
            await client.run_function("async-greet")

    use(body)


def test_leaving_the_output_leaves_the_job_alone(use: Use) -> None:
    async def body(client: AsyncClient) -> None:
        job = await client.submit(wat.wasm(wat.CONVERSE), interactive=True, timeout=60)
        await job.write(b"one\n")
        async with contextlib.aclosing(job.output()) as output:
            async for _ in output:
                break
        await job.close_stdin()
        assert (await job.result(timeout=20)).ok

    use(body)


def test_the_public_names_are_imported_when_they_are_used() -> None:
    check = "import minilambda, sys; assert 'asyncio' not in sys.modules; minilambda.AsyncClient; minilambda.Executor"
    subprocess.run([sys.executable, "-c", check], check=True)

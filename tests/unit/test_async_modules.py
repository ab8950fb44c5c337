"""How the tasks of an event loop find their modules."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from minilambda.client.async_modules import AsyncModules
from minilambda.errors import ModuleTooLarge

LARGE = 3 * 1024 * 1024  # bytes; read in steps


class Broker:
    """Says how large a module may be, when it is let, and counts how often it was asked."""

    def __init__(self, largest: float = 1e12, failure: Exception | None = None) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self._largest, self._failure = largest, failure

    async def __call__(self) -> float:
        self.asked += 1
        await self.answer.wait()
        if self._failure is not None:
            raise self._failure
        return self._largest


def in_loop(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(asyncio.wait_for(main(), 20))


def large_file(folder: Path) -> Path:
    path = folder / "large.wasm"
    path.write_bytes(os.urandom(1024) * (LARGE // 1024))
    return path


def test_a_small_file_is_read_at_once_and_the_broker_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "small.wasm"
    path.write_bytes(b"small")

    async def body() -> None:
        modules, broker = AsyncModules(), Broker()
        handles = await asyncio.gather(*(modules.find(path, broker) for _ in range(50)))
        assert {id(each) for each in handles} == {id(handles[0])}  # each reading would make another
        assert (handles[0].size, broker.asked) == (5, 0)

    in_loop(body)


def test_tasks_that_want_a_large_file_at_a_time_read_it_once(tmp_path: Path) -> None:
    path = large_file(tmp_path)

    async def body() -> None:
        modules, broker = AsyncModules(), Broker()
        tasks = [asyncio.ensure_future(modules.find(path, broker)) for _ in range(50)]
        await asyncio.sleep(0)
        broker.answer.set()
        handles = await asyncio.gather(*tasks)
        assert {id(each) for each in handles} == {id(handles[0])}
        assert (handles[0].size, broker.asked) == (LARGE, 1)

    in_loop(body)


def test_if_the_task_that_reads_is_cancelled_another_reads(tmp_path: Path) -> None:
    path = large_file(tmp_path)

    async def body() -> None:
        modules, broker = AsyncModules(), Broker()
        tasks = [asyncio.ensure_future(modules.find(path, broker)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[3].cancel()
        broker.answer.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each).__name__ for each in ends] == [
            "CancelledError",
            "Module",
            "Module",
            "CancelledError",
            "Module",
        ]
        assert ends[1] is ends[2] is ends[4]
        assert broker.asked == 2

    in_loop(body)


@pytest.mark.parametrize("failure", [None, ConnectionError("no broker")])
def test_why_a_large_file_was_not_taken_is_told_to_all_who_wait(tmp_path: Path, failure: Exception | None) -> None:
    path = large_file(tmp_path)
    with path.open("r+b") as file:
        file.truncate(300 * 1024 * 1024)  # sparse: too large to be read unasked

    async def body() -> None:
        modules, broker = AsyncModules(), Broker(1000, failure)
        tasks = [asyncio.ensure_future(modules.find(path, broker)) for _ in range(5)]
        await asyncio.sleep(0)
        broker.answer.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in ends} == {ModuleTooLarge if failure is None else ConnectionError}
        assert broker.asked == 1

    in_loop(body)


def test_whoever_wants_a_file_that_was_replaced_meanwhile_gets_the_new_one(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    old = path.read_bytes()

    async def body() -> None:
        modules, broker = AsyncModules(), Broker()
        broker.answer.set()
        first = asyncio.ensure_future(modules.find(path, broker))
        while not broker.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # it has opened the file
        (tmp_path / "new").write_bytes(old + b"more")
        os.replace(tmp_path / "new", path)
        assert not first.done()
        second = await modules.find(path, broker)
        assert second.size == LARGE + 4
        assert (await first).size == LARGE

    in_loop(body)


def test_a_pipe_is_read_by_the_task_that_names_it() -> None:
    async def body() -> None:
        modules, broker = AsyncModules(), Broker()
        broker.answer.set()
        outlet, inlet = os.pipe()
        try:
            os.write(inlet, b"piped")
            os.close(inlet)
            found = await modules.find(f"/dev/fd/{outlet}", broker)
        finally:
            os.close(outlet)
        assert found.read(0, 5) == b"piped"

    in_loop(body)


def test_a_loop_that_ended_in_the_middle_of_a_file_leaves_it_to_the_next(tmp_path: Path) -> None:
    path, modules = large_file(tmp_path), AsyncModules()
    loop = asyncio.new_event_loop()
    left = loop.create_task(modules.find(path, Broker()))
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.close()

    async def body() -> None:
        broker = Broker()
        broker.answer.set()
        assert (await modules.find(path, broker)).size == LARGE

    in_loop(body)
    assert not left.done()
    left.get_coro().close()
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # it is left on purpose

"""One client of a kind, in a process of its own. Started by ``clients.py``."""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from lines import serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minilambda import AsyncClient, Client, Executor

_INPUT: Any = ()


class Load:
    """Runs a module many times, each way a client has for that. All give the number of jobs that went well."""

    def __init__(self, address: str) -> None:
        self._address = f"tcp://{address}"

    def measure(self, way: str, module: str, count: int, window: int) -> dict[str, float]:
        """Seconds for ``count`` jobs, at most ``window`` at a time, and the memory that they took, bytes."""
        run: Callable[[str, int, int], int] = getattr(self, way)
        run(module, 50, window)
        before = _peak_bytes()
        begun = time.perf_counter()
        done = run(module, count, window)
        took = time.perf_counter() - begun
        if done != count:
            raise ValueError(f"{done} of {count} jobs went well")
        return {"seconds": took, "bytes": max(0, _peak_bytes() - before)}

    def client_map(self, module: str, count: int, window: int) -> int:
        with Client(self._address) as client:
            return sum(each.ok for each in client.map(module, itertools.repeat(_INPUT, count), window=window))

    def async_map(self, module: str, count: int, window: int) -> int:
        async def main() -> int:
            async with AsyncClient(self._address) as client:
                results = client.map(module, itertools.repeat(_INPUT, count), window=window)
                return sum([each.ok async for each in results])

        return asyncio.run(main())

    def async_tasks(self, module: str, count: int, window: int) -> int:
        """Each job awaited by a task: ``window`` tasks share the work."""

        async def main() -> int:
            async with AsyncClient(self._address) as client:
                numbers = iter(range(count))

                async def task() -> int:
                    return sum([(await client.run(module)).ok for _ in numbers])

                return sum(await asyncio.gather(*(task() for _ in range(min(window, count)))))

        return asyncio.run(main())

    def executor_map(self, module: str, count: int, window: int) -> int:
        with Executor(self._address, window=window, max_pending=2 * window) as executor:
            return sum(each.ok for each in executor.map(module, itertools.repeat(_INPUT, count)))

    def executor_submit(self, module: str, count: int, window: int) -> int:
        """All submitted, then taken as they complete."""
        with Executor(self._address, window=window, max_pending=count) as executor:
            return sum(each.result().ok for each in as_completed([executor.submit(module) for _ in range(count)]))


def _peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    serve({}, {"measure": Load(sys.argv[1]).measure})

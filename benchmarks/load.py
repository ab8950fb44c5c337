"""One client that makes load, in a process of its own. Started by ``throughput.py`` and ``memory.py``."""

from __future__ import annotations

import collections
import sys
import threading
import time
from pathlib import Path
from typing import Any

import zmq
from by_hand import HandClient
from lines import serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minilambda import Client


class Load:
    """A client of each kind, to one broker."""

    def __init__(self, address: str) -> None:
        self._address = f"tcp://{address}"
        self._client = Client(self._address)

    def one_by_one(self, module: str, count: int, stdin: int, expected: int) -> float:
        """``Client.run`` in a loop; seconds. ``stdin`` and ``expected`` output are in bytes."""
        content = bytes(stdin)
        begun = time.perf_counter()
        for _ in range(count):
            _check(self._client.run(module, stdin=content).stdout, expected)
        return time.perf_counter() - begun

    def pipelined(self, module: str, count: int, window: int, stdin: int, expected: int) -> float:
        """``Client.map``; seconds."""
        inputs: Any = [bytes(stdin)] * count
        begun = time.perf_counter()
        for result in self._client.map(module, inputs, window=window):
            _check(result.stdout, expected)
        return time.perf_counter() - begun

    def detached(self, module: str, count: int, window: int) -> float:
        """Jobs handed over with ``detach``, then their results fetched, both pipelined by hand; seconds."""
        context = zmq.Context()
        client = HandClient(context, self._address, Path(module).read_bytes())
        client.upload()
        begun = time.perf_counter()
        jobs = [client.send(detach=True) for _ in range(min(window, count))]
        for _ in range(count):
            client.receive()
            if len(jobs) < count:
                jobs.append(client.send(detach=True))
        waiting = collections.deque(jobs)
        for _ in range(min(window, count)):
            client.fetch(waiting.popleft())
        for _ in range(count):
            reply = client.receive()
            if reply["type"] != "result" or reply["result"]["state"] != "completed":
                raise ValueError(f"a detached job gave {reply}")
            if waiting:
                client.fetch(waiting.popleft())
        took = time.perf_counter() - begun
        client.close()
        context.term()
        return took

    def hold(self, module: str, count: int) -> int:
        """Begin ``count`` jobs that no worker takes, by ``Client.map``, and keep them waiting until the end."""

        def wait() -> None:
            with Client(self._address) as client:
                next(client.map(module, [()] * count, window=count), None)

        threading.Thread(target=wait, daemon=True).start()
        return count


def _check(output: bytes, expected: int) -> None:
    if len(output) != expected:
        raise ValueError(f"a job gave {len(output)} bytes of output, not {expected}")


def main() -> None:
    load = Load(sys.argv[1])
    serve(
        {},
        {"one_by_one": load.one_by_one, "pipelined": load.pipelined, "detached": load.detached, "hold": load.hold},
    )


if __name__ == "__main__":
    main()

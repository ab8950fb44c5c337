"""The least that a broker could be, started by ``hops.py``: it passes on what comes, and does nothing else.

The first message tells which of the two ends is the worker; after that each message goes to the other end.
"""

from __future__ import annotations

import zmq
from lines import serve


def main() -> None:
    router = zmq.Context.instance().socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")

    def forward(count: int) -> int:
        """Meet both ends, then pass on ``count`` messages."""
        ends: list[bytes] = []
        while len(ends) < 2:
            frames = router.recv_multipart()
            ends.append(frames[0])
        other = {ends[0]: ends[1], ends[1]: ends[0]}
        for end in ends:
            router.send_multipart([end, b"", b"welcome"])
        for _ in range(count):
            frames = router.recv_multipart()
            frames[0] = other[frames[0]]
            router.send_multipart(frames)
        return count

    serve({"address": f"tcp://127.0.0.1:{port}"}, {"forward": forward})


if __name__ == "__main__":
    main()

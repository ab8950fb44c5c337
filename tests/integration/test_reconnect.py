"""A waiting client whose broker goes away asks the next one at once, not only after its usual patience."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import zmq

from minilambda import Client
from tests.broker_peers import frames, parse
from tests.cluster import wait_for
from tests.integration.guests import HELLO

ROUNDS = 30  # brokers that come and go; a request that gets lost between two of them is a matter of microseconds
SOON_MS = 4_000  # a new broker hears of the job so soon, milliseconds; what is sent again for silence comes after 30 s

WELCOME = {
    "broker": "stand-in",
    "principal": "local",
    "versions": [1],
    "features": [],
    "max_module_bytes": 2**20,
    "max_stdin_bytes": 2**20,
    "max_request_bytes": 2**20,
    "resend_ms": 30_000,
    "max_wait_ms": 30_000,
}


class StandIn:
    """A broker that hears one request for a job and is gone, again and again."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self._context = context
        self.address = ""
        self.open()

    def open(self) -> None:
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        wait_for(self._bind, "the address is free again")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _bind(self) -> bool:
        try:
            self._socket.bind(self.address or "tcp://127.0.0.1:0")
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            return False
        return True

    def close(self) -> None:
        self._socket.close()

    def hears_run(self) -> tuple[list[bytes], dict[str, Any]]:
        """The next request for a job, and where it came from; greetings are answered."""
        while True:
            assert self._socket.poll(SOON_MS), "the client did not ask again"
            envelope, request = self._next()
            if request["type"] == "run":
                return envelope, request
            self._socket.send_multipart([*envelope, *frames("welcome", request=request["request"], **WELCOME)])

    def answers(self, envelope: list[bytes], request: dict[str, Any]) -> None:
        result = {"state": "completed", "exit_code": 0}
        fields = {"request": request["request"], "job": request["job"], "result": result}
        self._socket.send_multipart([*envelope, *frames("result", {"stdout": b"at last"}, **fields)])

    def _next(self) -> tuple[list[bytes], dict[str, Any]]:
        parts = self._socket.recv_multipart()
        end = parts.index(b"") + 1
        return parts[:end], parse(parts[end:])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_client_asks_every_new_broker_at_once(pipelined: bool) -> None:
    # given
    found: list[bytes] = []

    def wait() -> None:
        with Client(broker.address) as client:
            results = client.map(HELLO, [[]]) if pipelined else [client.run(HELLO)]
            found.extend(result.stdout for result in results)

    with zmq.Context() as context:
        broker = StandIn(context)
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            # when
            for _ in range(ROUNDS):
                broker.hears_run()
                broker.close()
                broker.open()
            # then
            while thread.is_alive():  # it may have asked more than once, and hears the answer to the last
                broker.answers(*broker.hears_run())
                thread.join(0.2)
        finally:
            broker.close()
    assert found == [b"at last"]

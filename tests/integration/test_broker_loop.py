"""The broker's loop waits in a plain ``recv``: nothing that comes in may be left lying there."""

from __future__ import annotations

import threading
import time
from hashlib import sha256
from typing import Any

import msgpack
import pytest
import zmq

from minilambda.broker.server import AT_ONCE, MANY, Server
from minilambda.broker.transport import WAKING
from minilambda.messages import JobSpec, Run
from minilambda.settings import BrokerSettings
from minilambda.wire import VERSION, encode

PATIENCE = 20.0
"""An answer takes so long at most, seconds: without one the loop has gone to sleep on it."""

EMPTY = b"\0asm\1\0\0\0"

PEERS, WINDOW, REQUESTS = 4, 16, 1500


def ask(endpoint: str, requests: int, window: int) -> list[int]:
    """The numbers of the answers to ``requests`` requests, ``window`` of them on their way at a time."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.rcvtimeo = int(PATIENCE * 1000)
    socket.linger = 0
    try:
        socket.connect(endpoint)
        answered: list[int] = []
        for number in range(requests):
            socket.send_multipart([b"", msgpack.packb({"v": VERSION, "type": "hello", "request": number})])
            if number >= window:
                answered.append(msgpack.unpackb(socket.recv_multipart()[1])["request"])
        for _ in range(min(window, requests)):
            answered.append(msgpack.unpackb(socket.recv_multipart()[1])["request"])
        return answered
    finally:
        socket.close()
        context.term()


@pytest.fixture
def server() -> Server:
    return Server(BrokerSettings(), "tcp://127.0.0.1:0")


def serving(server: Server) -> threading.Thread:
    thread = threading.Thread(target=server.serve)
    thread.start()
    return thread


def ended(server: Server, thread: threading.Thread) -> bool:
    """Stop the server; whether it did within the patience."""
    server.stop()
    thread.join(PATIENCE)
    server.close()
    return not thread.is_alive()


def test_no_request_is_left_lying_while_others_come_and_the_loop_is_woken(server: Server) -> None:
    thread = serving(server)
    done = threading.Event()
    answers: list[list[int]] = []

    def wake() -> None:
        while not done.is_set():
            server._transport.wake()
            time.monotonic()

    waker = threading.Thread(target=wake)
    peers = [
        threading.Thread(target=lambda window=window: answers.append(ask(server.endpoint, REQUESTS, window)))
        for window in (1, *[WINDOW] * (PEERS - 1))
    ]
    for each in (waker, *peers):
        each.start()
    for each in peers:
        each.join()
    done.set()
    waker.join()
    assert ended(server, thread)
    assert answers == [list(range(REQUESTS))] * PEERS


def test_a_loop_that_waits_ends_when_it_is_told_to(server: Server) -> None:
    server._max_sleep = PATIENCE * 10
    thread = serving(server)
    assert ask(server.endpoint, 1, 1) == [0]
    assert ended(server, thread)


def test_every_wake_is_heard_however_they_fall_together(server: Server) -> None:
    server._max_sleep = PATIENCE * 10
    heard = threading.Event()
    server._hear_disk = lambda now: heard.set()  # type: ignore[method-assign]
    thread = serving(server)
    for _ in range(2000):
        heard.clear()
        server._transport.wake()
        assert heard.wait(PATIENCE)
    assert ended(server, thread)


def test_a_stranger_with_the_name_of_the_waker_is_not_heard(server: Server) -> None:
    thread = serving(server)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.setsockopt(zmq.ROUTING_ID, WAKING)
    socket.connect(server.endpoint)
    socket.send_multipart([b"", msgpack.packb({"v": VERSION, "type": "hello", "request": 1})])
    assert ask(server.endpoint, 10, 1) == list(range(10))
    assert not socket.poll(0)
    socket.close()
    context.term()
    server._transport.wake()
    assert ended(server, thread)


def test_under_load_messages_are_answered_several_at_a_time_and_in_their_order(server: Server) -> None:
    taken: list[int] = []
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger, socket.rcvtimeo = 0, int(PATIENCE * 1000)
    socket.connect(server.endpoint)
    for number in range(MANY):
        run = Run(number, f"{number:032x}", JobSpec(f"sha256:{sha256(EMPTY).hexdigest()}"), detach=True, wasm=EMPTY)
        socket.send_multipart([b"", *encode(run)])
    for number in range(MANY, 200):
        socket.send_multipart([b"", msgpack.packb({"v": VERSION, "type": "hello", "request": number})])
    several = server._take_several

    def watched(received: Any, now: float) -> None:
        taken.append(server._late)
        several(received, now)
        taken.append(server._late)

    server._take_several = watched  # type: ignore[method-assign]
    thread = serving(server)
    answers = [msgpack.unpackb(socket.recv_multipart()[1]) for _ in range(200)]
    assert [answer["request"] for answer in answers] == list(range(200))
    assert any(after - before == AT_ONCE for before, after in zip(taken[::2], taken[1::2], strict=True))
    socket.close()
    context.term()
    assert ended(server, thread)

"""The agent's socket: a loop that sleeps on its descriptor misses no message, however they come."""

from __future__ import annotations

import os
import random
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from minilambda.worker.dealer import Dealer
from minilambda.worker.entry import Entry

PATIENCE_S = 20.0
ROUNDS = 1_500


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as made:
        yield made


class Broker(threading.Thread):
    """A peer that sends bursts, waits for most of the answers, and goes on at once. The last of a burst says "go"."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.answered = 0

    def run(self) -> None:
        with self._socket:
            route, *_hello = self._socket.recv_multipart()
            owed = 0
            for _ in range(ROUNDS):
                burst = self._random.choice([1, 1, 1, 2, 3, 7])
                for number in range(1, burst + 1):
                    self._socket.send_multipart([route, b"", b"go" if number == burst else b"wait", b"body" * number])
                for _ in range(owed + burst - self._random.randrange(min(burst, 3))):
                    self._hear()
                    owed -= 1
                owed += burst
            for _ in range(owed):
                self._hear()
            self._socket.send_multipart([route, b"", b"end"])
            self._hear()  # what is on its way when a connection ends may be lost

    def _hear(self) -> None:
        try:
            assert self._socket.recv_multipart()[1:] == [b"", b"answer", b"body"]
        except zmq.Again:
            raise AssertionError(f"no answer after {self.answered}") from None
        self.answered += 1


def serve(dealer: Dealer) -> int:
    """Takes messages and answers them as the agent's loop does, and counts them.

    It takes one in a turn. What must be answered is known to a doorbell only, as an outcome is to a runner's channel.
    """
    heard, owed, ended = 0, 0, False
    doorbell = os.eventfd(0)
    with select.epoll() as epoll, os.fdopen(doorbell):
        epoll.register(dealer.fd, select.EPOLLIN)
        epoll.register(doorbell, select.EPOLLIN)
        while not (ended and not owed):
            waiting = dealer.waiting()
            ready = {fd for fd, _ in epoll.poll(0.0 if waiting else PATIENCE_S)}
            assert ready or waiting, f"asleep for {PATIENCE_S:g} s after {heard} messages"
            if doorbell in ready:
                os.eventfd_read(doorbell)
                while owed:
                    assert dealer.send([b"answer", b"body"])
                    owed -= 1
            if waiting or dealer.fd in ready:
                frames = dealer.receive()
                if frames:
                    heard, owed, ended = heard + 1, owed + 1, frames[1] == b"end"
                    if frames[1] != b"wait":
                        os.eventfd_write(doorbell, 1)
    return heard


@pytest.mark.parametrize("seed", [1, 2])
def test_a_loop_that_sleeps_on_the_descriptor_misses_no_message(
    context: zmq.Context[zmq.Socket[bytes]], seed: int
) -> None:
    # given
    broker = Broker(context, seed)
    dealer = Dealer(context, broker.endpoint, Entry(broker.endpoint))
    broker.start()
    try:
        connected(dealer)
        # when
        heard = serve(dealer)
        # then
        broker.join(PATIENCE_S)
        assert heard == broker.answered > ROUNDS
    finally:
        dealer.close(1000)
        broker.join()


def connected(dealer: Dealer) -> None:
    """Says hello as soon as there is a connection."""
    while not dealer.send([b"hello"]):
        select.select([], [], [], 0.01)


def test_a_message_is_sent_whole_or_not_at_all(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    # given: nobody there
    endpoint = f"ipc://{tmp_path}/broker"
    dealer = Dealer(context, endpoint, Entry(endpoint))
    with context.socket(zmq.ROUTER) as broker:
        broker.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        try:
            # when / then
            assert not dealer.send([b"one", b"two"])
            assert not dealer.waiting()
            assert dealer.receive() == []
            # when somebody is
            broker.bind(endpoint)
            connected(dealer)
            assert dealer.send([b"one", b"two", b"three"])
            # then
            assert broker.recv_multipart()[1:] == [b"", b"hello"]
            assert broker.recv_multipart()[1:] == [b"", b"one", b"two", b"three"]
        finally:
            dealer.close(0)

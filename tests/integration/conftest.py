"""Fixtures of the tests that speak to a broker in this process over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from minilambda.broker.server import Server
from minilambda.settings import BrokerSettings
from tests.broker_peers import Net, Peer, Worker


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(BrokerSettings(heartbeat=0.5, liveness=2.0), "tcp://127.0.0.1:0")
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()
    made.core.check()
    made.close()


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()


@pytest.fixture
def peer(net: Net, server: Server) -> Callable[..., Peer]:
    return lambda *args, **options: Peer(net, server.endpoint, *args, **options)


@pytest.fixture
def worker(net: Net, server: Server) -> Callable[..., Worker]:
    return lambda *args, **options: Worker(net, server.endpoint, *args, **options)

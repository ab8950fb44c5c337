"""What every socket of minilambda is set to."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import zmq

from minilambda import sockets


@pytest.fixture
def socket() -> zmq.Socket[bytes]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as made:
        sockets.common_options(made, "tcp://127.0.0.1:1")
        yield made


def test_a_vanished_peer_is_found_out_by_the_kernel_within_half_a_minute(socket: zmq.Socket[bytes]) -> None:
    idle, interval, count = (
        socket.getsockopt(option) for option in (zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT)
    )
    assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1
    assert 0 < idle + interval * count <= 30
    assert 0 < socket.getsockopt(zmq.TCP_MAXRT) <= 30_000


def test_no_connection_has_a_timer_of_its_own_in_libzmq(socket: zmq.Socket[bytes]) -> None:
    assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 0
    assert socket.getsockopt(zmq.HEARTBEAT_TTL) == 0


def test_a_process_may_have_as_many_connections_as_the_system_allows() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import resource as r; from minilambda.sockets import allow_connections as a; "
    code += f"r.setrlimit(r.RLIMIT_NOFILE, (64, {most})); a(); print(r.getrlimit(r.RLIMIT_NOFILE)[0])"
    assert int(subprocess.check_output([sys.executable, "-c", code])) == most

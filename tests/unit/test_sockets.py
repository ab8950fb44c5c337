"""What every socket of minilambda is set to."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

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


def test_an_interrupt_while_a_socket_is_made_leaves_none_behind() -> None:
    """At each line that runs while it is made: a socket that is left open would keep its context from ending."""
    at, interrupted = 0, True
    while interrupted:
        at += 1
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        interrupted = interrupt_the_making(context, at)
        ending = threading.Thread(target=context.destroy, kwargs={"linger": 0}, daemon=True)
        ending.start()
        ending.join(10)
        assert not ending.is_alive(), f"interrupted at step {at}"
    assert at > 10


def interrupt_the_making(context: zmq.Context[zmq.Socket[bytes]], at: int) -> bool:
    """Make a socket and raise at a step of it; whether there was such a step."""
    steps = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        if "zmq" not in frame.f_code.co_filename:
            return None
        steps += 1
        if steps == at:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        made = sockets.new_socket(context, zmq.DEALER)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    made.close(linger=0)
    return False

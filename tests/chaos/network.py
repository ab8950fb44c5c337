"""A network of the chaos's own, in which workers can be parted from the broker.

Everything happens in one unnamed network namespace that the chaos itself lives in, and one more for each worker. They
vanish with the last process in them, so nothing is left behind whatever kills the chaos.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import wait_for

INSIDE = "CHAOS_NETWORK"
"""Set in the environment of a chaos that has a network of its own."""

BRIDGE = "10.77.0.1"
NOBODY = "02:00:00:00:00:01"  # a hardware address that nobody has: what is sent there is lost

_NEWNET = 0x40000000  # CLONE_NEWNET

_JOIN = """until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up && ip addr add "$0/24" dev eth0 && ip link set eth0 up && exec "$@" """


def why_not() -> str:
    """What this machine lacks for a network of our own; "" when nothing."""
    missing = [name for name in ("unshare", "ip", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here"
    probe = "ip link add p0 type veth peer name p1 && ip link add b0 type bridge"
    tried = subprocess.run([*_unshare(), "sh", "-c", probe], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else (tried.stderr.strip().splitlines() or ["not allowed"])[-1]


def enter() -> None:
    """Start this program again in a network of its own; does not return."""
    arguments = [*_unshare(), sys.executable, *sys.orig_argv[1:]]
    os.execvpe(arguments[0], arguments, {**os.environ, INSIDE: "1"})


def inside() -> bool:
    """Whether this process was started by ``enter``."""
    return INSIDE in os.environ


@contextlib.contextmanager
def own_network() -> Iterator[Network]:
    """Move this thread, and what it starts, into a network of its own for a while. Only for root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", encoding="utf-8") as before:
        if libc.unshare(_NEWNET):
            raise OSError(ctypes.get_errno(), "no network namespace of our own")
        try:
            yield Network()
        finally:
            libc.setns(before.fileno(), _NEWNET)


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


class Network:
    """A bridge with the broker's address, and a cable to each worker that can be cut."""

    def __init__(self) -> None:
        _run("ip link set lo up")
        # With an address of its own: else it takes that of a cable, and another one as cables come and go.
        _run("ip link add br0 address 02:00:00:00:00:10 type bridge")
        _run(f"ip addr add {BRIDGE}/24 dev br0")
        _run("ip link set br0 up")

    def command(self, number: int, command: list[str]) -> list[str]:
        """The command, to be started behind a cable; ``plug`` it in when it runs."""
        return ["unshare", "--net", "sh", "-c", _JOIN, _address(number), *command]

    def plug(self, number: int, pid: int) -> None:
        """Connect a worker that was started with ``command``."""
        ours = os.readlink("/proc/self/ns/net")
        place = Path(f"/proc/{pid}/ns/net")
        wait_for(lambda: os.readlink(place) != ours, "the worker has a network of its own")
        _run(f"ip link add v{number} type veth peer name eth0 netns {pid}")
        _run(f"ip link set v{number} master br0")
        _run(f"ip link set v{number} up")

    def cut(self, number: int, pid: int, way: str) -> None:
        """Lose what is sent ``both`` ways, only what goes ``to`` the worker, or only what comes ``from`` it."""
        if way == "both":
            _run(f"ip link set v{number} down")
        elif way == "to":
            _run(f"ip neigh replace {_address(number)} lladdr {NOBODY} dev br0 nud permanent")
        else:
            _run(f"nsenter -t {pid} -n ip neigh replace {BRIDGE} lladdr {NOBODY} dev eth0 nud permanent")

    def slow(self, number: int, pid: int, megabits: int) -> None:
        """Let so much through in each direction, megabits a second."""
        shape = f"root tbf rate {megabits}mbit burst 256kb latency 100ms"
        _run(f"tc qdisc add dev v{number} {shape}")
        _run(f"nsenter -t {pid} -n tc qdisc add dev eth0 {shape}")

    def sent(self, number: int) -> int:
        """Bytes that went to the worker so far."""
        shown = _run(f"ip -s -j link show v{number}")
        return int(json.loads(shown)[0]["stats64"]["tx"]["bytes"])

    def heal(self, number: int, pid: int) -> None:
        """Mend what was cut; of a worker that is gone there is nothing to mend."""
        for command in (
            f"ip link set v{number} up",
            f"ip neigh del {_address(number)} dev br0",
            f"nsenter -t {pid} -n ip neigh del {BRIDGE} dev eth0",
        ):
            subprocess.run(command.split(), capture_output=True, check=False)


def _address(number: int) -> str:
    return f"10.77.0.{number % 250 + 2}"


def _run(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout

"""Many workers in one process: each has a socket of its own, speaks the real protocol and does each job at once.

Started by ``scale_broker.py``. Socket options, heartbeats, patience and the pauses between registrations are those of
the real agent (``sockets``, ``worker.link``); the jobs are not run. It reads one word a line from stdin, ``status`` or
``quit``, and answers ``status`` with one JSON object.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import resource
import select
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgpack
import zmq

from minilambda import sockets
from minilambda.wire import VERSION
from minilambda.worker.link import Link

RETRY_S = 0.05  # what could not be sent is tried again so often, as by the agent
RESULT = {"state": "completed", "exit_code": 0, "tier": "warm", "usage": {"load_ms": 0.1, "run_ms": 0.4}}


class Worker:
    """One of them: its socket, its tie to the broker and what it could not send yet."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.link = Link(random.random)
        self.socket: zmq.Socket[bytes]
        self.fd = -1
        self.due = 0.0  # when the crowd looks at it next, seconds
        self.outbox: list[bytes] = []


class Crowd:
    """The workers of this process, in one loop."""

    def __init__(self, endpoint: str, prefix: str, count: int, slots: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self._endpoint = endpoint
        sockets.seed_libzmq()
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 2 * count + 16)  # a socket that is closed takes a moment to go
        self._epoll = select.epoll()
        self._epoll.register(0, select.EPOLLIN)
        self._by_fd: dict[int, Worker] = {}
        self._timers: list[tuple[float, int, Worker]] = []
        self._number = 0  # of the last timer
        self._workers = [Worker(f"{prefix}{number}", slots) for number in range(count)]
        self.registered = 0  # workers that have a session
        self.last = 0.0  # when the last registration was answered, seconds
        self.sessions = 0  # registrations answered
        self.reports = self.jobs = 0  # sent, done
        for worker in self._workers:
            self._connect(worker)
            worker.link.begin(time.monotonic())
            self._schedule(worker)

    def serve(self) -> None:
        """Live until told to quit, or until nobody is there to tell."""
        while True:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due, _, worker = heapq.heappop(self._timers)
                if due == worker.due:
                    self._tick(worker, now)
                    self._schedule(worker)
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 1.0
            for fd, _ in self._epoll.poll(wait):
                if fd == 0:
                    if not self._order():
                        return
                elif fd in self._by_fd:
                    self._receive(self._by_fd[fd])

    def _order(self) -> bool:
        for word in os.read(0, 4096).decode().split() or ["quit"]:
            if word == "quit":
                return False
            keys = ("registered", "last", "sessions", "reports", "jobs")
            print(json.dumps({key: getattr(self, key) for key in keys}), flush=True)
        return True

    def _connect(self, worker: Worker) -> None:
        if worker.fd >= 0:
            self._epoll.unregister(worker.fd)
            del self._by_fd[worker.fd]
            worker.socket.close(linger=0)
        worker.socket = self._context.socket(zmq.DEALER)
        sockets.common_options(worker.socket, self._endpoint)
        sockets.connecting_options(worker.socket)
        worker.socket.connect(self._endpoint)
        worker.fd = worker.socket.getsockopt(zmq.FD)
        worker.outbox.clear()
        self._by_fd[worker.fd] = worker
        # Edge-triggered, as ZeroMQ's descriptors are: after each send and receive everything is taken from the socket.
        self._epoll.register(worker.fd, select.EPOLLIN | select.EPOLLET)

    # --- time ---

    def _schedule(self, worker: Worker) -> None:
        due = worker.link.next_deadline() or 0.0
        if worker.outbox:
            due = min(due, time.monotonic() + RETRY_S)
        if due != worker.due:
            worker.due = due
            self._number += 1
            heapq.heappush(self._timers, (due, self._number, worker))

    def _tick(self, worker: Worker, now: float) -> None:
        worker.due = 0.0
        link = worker.link
        if link.silent(now):
            self._lost(worker, now, soon=False)
            self._connect(worker)
        if link.session == 0 and link.register_at is not None and now >= link.register_at:
            worker.outbox.clear()
            self._say(worker, "register", worker=worker.name, name=worker.name, slots=worker.slots)
            link.registering((), now)
        elif link.report_at is not None and now >= link.report_at:
            self._report(worker, now)
        elif worker.outbox:
            self._flush(worker)
        self._receive(worker)

    def _report(self, worker: Worker, now: float) -> None:
        self.reports += 1
        self._say(worker, "report", session=worker.link.session, queue=0, seen=worker.link.seen)
        worker.link.reported(now)

    def _lost(self, worker: Worker, now: float, soon: bool) -> None:
        self.registered -= worker.link.session != 0
        worker.link.lost(now, soon)

    # --- messages ---

    def _say(self, worker: Worker, kind: str, /, **fields: Any) -> None:
        worker.outbox.append(msgpack.packb({"v": VERSION, "type": kind, **fields}))
        self._flush(worker)

    def _flush(self, worker: Worker) -> None:
        while worker.outbox:
            try:
                worker.socket.send_multipart([b"", worker.outbox[0]], zmq.NOBLOCK)
            except zmq.Again:
                return
            del worker.outbox[0]

    def _receive(self, worker: Worker) -> None:
        while True:
            try:
                frames = worker.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._hear(worker, msgpack.unpackb(frames[1]), time.monotonic())
        self._schedule(worker)

    def _hear(self, worker: Worker, message: dict[str, Any], now: float) -> None:
        link, kind = worker.link, message["type"]
        link.heard = now
        if kind == "dispatch" and message["session"] == link.session:
            link.seen = message["sequence"]
            self.jobs += 1
            words = {"session": link.session, "ref": message["ref"], "queue": 0, "seen": link.seen}
            bodies = [("stdout", b"Hello, WebAssembly\n")]
            self._say(worker, "done", **words, result=RESULT, bodies=bodies)
            link.reported(now)
        elif kind == "registered":
            times = (message["heartbeat_ms"] / 1000, message["liveness_ms"] / 1000, message["result_keep_ms"] / 1000)
            if message["session"] == link.session:
                return  # the answer to a registration that was sent twice
            self.registered += link.session == 0
            self.sessions += 1
            self.last = now
            link.registered(message["session"], *times, now)
            self._report(worker, now)
        elif kind == "register_again" and link.session:
            self._lost(worker, now, soon=True)


def main() -> None:
    endpoint, prefix, count, slots = sys.argv[1:]
    Crowd(endpoint, prefix, int(count), int(slots)).serve()
    os._exit(0)  # thousands of sockets take their time to close in order


if __name__ == "__main__":
    main()

"""The broker's core alone, driven through the codec: what does a job cost with many workers, or in a long queue?

Started by ``scale.py``, one process for each question, so that memory is measured from a clean start. It prints one
JSON object. There is no socket, so nothing but the broker's own work is in the times: decode, decide, encode, timers.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minilambda.broker.core import Core
from minilambda.broker.events import Received, Send
from minilambda.messages import (
    CLIENT_MESSAGES,
    WORKER_MESSAGES,
    Dispatch,
    Done,
    JobResult,
    JobSpec,
    Message,
    Recall,
    Register,
    Registered,
    Report,
    Result,
    Returned,
    Run,
    Usage,
)
from minilambda.settings import BrokerSettings
from minilambda.wire import by_name, decode, encode

ACCEPTED = by_name(CLIENT_MESSAGES + WORKER_MESSAGES)
MODULES = 20  # different ones in use
TURN = 5  # jobs that are begun, then ended, while the clock runs
BLOCK = 10  # turns of one world, until another has its own; half as many before, off the record
BUSY = 0.6  # share of all slots that is taken, in the question about many workers
RESULTS = 25_000  # kept, then forgotten: what 83 jobs a second leave behind in the 300 s that they are kept
STEP_S = 1e-4  # virtual time between two messages, seconds
CLIENT = (b"client", b"")
ELSEWHERE = bytes(16 << 20)  # what something else reads; it has to be larger than the caches of one core
RESULT = Result("completed", 0, usage=Usage(load_ms=0.1, run_ms=0.4, cpu_ms=0.4, peak_memory_bytes=65_536), tier="warm")

Frames = list[bytes]


class World:
    """One core with workers, all played from here."""

    def __init__(self, workers: int, seed: int, queue: int = 0, own: bool = False) -> None:
        self.random = random.Random(seed)
        # The bounds of the queue are not the question, and nobody is lost for silence while the clock here jumps.
        # No result gets so old that it is acknowledged by itself: workers with few jobs would cause more words.
        bounds = {"max_queued": queue + 10_000, "max_queued_bytes": 16 << 30, "liveness": 1e6, "heartbeat": 1e5}
        self.core = Core(BrokerSettings(result_ttl=2 * RESULTS * STEP_S, **bounds), "bench", 1)
        self._own = own  # each job has arguments and limits of its own
        self.now = 1.0  # seconds
        self.spent_ns = 0  # processor time of the broker's work
        self.longest_ns = 0  # of one message
        self.jobs = 0  # submitted so far
        self.running: list[Dispatch] = []  # at workers
        self.seen: dict[int, int] = {}  # session to its last dispatch
        self.load: dict[int, int] = {}  # session to jobs there
        self.ended = 0  # results that the client got
        self.routes: dict[int, tuple[bytes, ...]] = {}  # session to its worker's route
        self.slots = sum(self._worker(number) for number in range(workers))
        bodies = [b"\0asm" + bytes([number]) * 400 for number in range(MODULES)]
        self._modules = ["sha256:" + hashlib.sha256(body).hexdigest() for body in bodies]
        for module, body in zip(self._modules, bodies, strict=True):  # from then on the hash is enough
            self.take(CLIENT, self._run(module, body))
        while self.running:
            self.take(*self.done())

    def _worker(self, number: int) -> int:
        slots = self.random.choice((1, 2, 4, 8))  # nodes differ, so loads do
        name = f"{number:032x}"
        message = Register(name, f"worker-{number}", slots, "0.1.0", "host", 4242)
        (answer,) = self.take((name.encode(), b""), encode(message))
        assert isinstance(answer, Registered)
        self.seen[answer.session] = self.load[answer.session] = 0
        self.routes[answer.session] = (name.encode(), b"")
        return slots

    # --- the broker's work, timed ---

    def take(self, route: tuple[bytes, ...], frames: Frames) -> list[Message]:
        """One message goes in, its consequences come out encoded. This, and nothing else, is on the clock."""
        core = self.core
        self.now += STEP_S
        begun = time.thread_time_ns()
        message = decode(frames, ACCEPTED, 1 << 25)
        actions = core.handle(Received(route, "local", message), self.now)
        actions += core.tick(self.now)
        core.next_deadline()
        sends = [action for action in actions if isinstance(action, Send)]
        for send in sends:
            encode(send.message)
        spent = time.thread_time_ns() - begun
        self.spent_ns += spent
        self.longest_ns = max(self.longest_ns, spent)
        messages = [send.message for send in sends]
        for each in messages:
            self._note(each)
        return messages

    def _note(self, message: Message) -> None:
        if isinstance(message, Dispatch):
            self.running.append(message)
            self.seen[message.session] = message.sequence
            self.load[message.session] += 1
        elif isinstance(message, JobResult):
            self.ended += 1
        elif isinstance(message, Recall):
            self._give_back(message)

    def _give_back(self, recall: Recall) -> None:
        """A worker lets go of a job that has waited there for as long as the queue took to fill; off the clock."""
        self.running = [dispatch for dispatch in self.running if dispatch.ref != recall.ref]
        session = recall.session
        self.load[session] -= 1
        returned = Returned(session, recall.ref, self.load[session], self.seen[session], False)
        for action in self.core.receive(self.routes[session], "local", returned, self.now):
            if isinstance(action, Send):
                self._note(action.message)

    # --- peers ---

    def _run(self, module: str, wasm: bytes = b"") -> Frames:
        self.jobs += 1
        job = f"{self.random.getrandbits(128):032x}"
        spec = JobSpec(module, args=("--number", str(self.jobs)), timeout_ms=5000) if self._own else JobSpec(module)
        return encode(Run(self.jobs, job, spec, wasm=wasm))

    def run(self) -> Frames:
        """A request for a new job."""
        return self._run(self.random.choice(self._modules))

    def done(self) -> tuple[tuple[bytes, ...], Frames]:
        """The end of a running job, drawn at random, as its worker tells it."""
        at = self.random.randrange(len(self.running))
        self.running[at], self.running[-1] = self.running[-1], self.running[at]
        job = self.running.pop()
        session = job.session
        self.load[session] -= 1
        done = Done(session, job.ref, self.load[session], self.seen[session], RESULT, stdout=b"Hello, WebAssembly\n")
        return self.routes[session], encode(done)

    def teach(self) -> None:
        """Let each worker run a job of each module: none has to be sent one later, however many workers there are."""
        for module in self._modules:
            for _ in range(len(self.routes)):  # the least loaded is taken: each gets one
                self.take(CLIENT, self._run(module))
            while self.running:
                self.take(*self.done())

    def settle(self) -> None:
        """Run jobs until the broker keeps as many results as it ever will."""
        for _ in range(RESULTS // TURN):
            self.turn()

    def turn(self, cold: bool = False) -> float:
        """``TURN`` jobs come in and as many end; the broker's processor time for each, microseconds.

        ``cold``: before each message something else has used the processor's caches, off the clock.
        """
        before = self.spent_ns
        for number in range(2 * TURN):
            route, frames = (CLIENT, self.run()) if number < TURN else self.done()
            if cold:
                ELSEWHERE.count(b"x")
            self.take(route, frames)
        return (self.spent_ns - before) / TURN / 1e3


def like_the_broker() -> None:
    """The collector of garbage as the broker's process sets it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)


def workers(sizes: list[int], turns: int) -> dict[str, Any]:
    """Cost of a job with so many workers, and how it compares with the first size, whose turns come right before."""
    worlds = {size: World(size, seed=size) for size in sizes}
    for world in worlds.values():
        world.teach()
        for _ in range(int(BUSY * world.slots)):
            world.take(CLIENT, world.run())
        world.settle()
    like_the_broker()
    warm = _Costs(sizes)
    for _ in range(turns // BLOCK):
        for size in warm.order():
            for _ in range(BLOCK // 2):
                worlds[size].turn()  # its own memory is in the caches again, as far as it ever is
            warm.add(size, statistics.median(worlds[size].turn() for _ in range(BLOCK)))
    cold = _Costs(sizes)
    for _ in range(turns // 8):
        for size in cold.order():
            cold.add(size, worlds[size].turn(cold=True))
    reports = {size: _report_us(world) for size, world in worlds.items()}
    rows = [
        {
            "workers": size,
            "jobs": len(warm.of[size]) * BLOCK * TURN,
            "us": round(statistics.median(warm.of[size]), 2),
            "times": round(warm.times(size), 3),
            "mean_us": round(statistics.fmean(warm.of[size]), 2),
            "cold_us": round(statistics.median(cold.of[size]), 2),
            "cold_times": round(cold.times(size), 3),
            "report_us": round(reports[size], 2),
        }
        for size in sizes
    ]
    return {"rows": rows}


class _Costs:
    """What the turns of each size took, microseconds, each beside a turn of the first size.

    Others use the machine and its caches at times. Neighbours in time meet the same of that, so they are compared.
    """

    def __init__(self, sizes: list[int]) -> None:
        self.of: dict[int, list[float]] = {size: [] for size in sizes}
        self._ratios: dict[int, list[float]] = {size: [] for size in sizes}
        self._first = sizes[0]

    def order(self) -> list[int]:
        """The sizes in the order of their turns: the first one before each of the others."""
        return [each for size in self.of if size != self._first for each in (self._first, size)]

    def add(self, size: int, cost: float) -> None:
        self.of[size].append(cost)
        self._ratios[size].append(cost / self.of[self._first][-1])

    def times(self, size: int) -> float:
        """What a job costs with so many workers, in what it costs with the first number: median of the pairs."""
        return statistics.median(self._ratios[size])


def _report_us(world: World) -> float:
    """What the report of an idle worker costs, and the answer to it, microseconds."""
    sessions = list(world.seen)
    costs = []
    for _ in range(1000):
        session = world.random.choice(sessions)
        frames = encode(Report(session, world.load[session], world.seen[session]))
        before = world.spent_ns
        world.take(world.routes[session], frames)
        costs.append((world.spent_ns - before) / 1e3)
    return statistics.median(costs)


def queue(size: int, turns: int, own: bool) -> dict[str, Any]:
    """Cost of a job that comes into a queue of ``size``, cost of one that leaves it, memory of those that wait."""
    world = World(4, seed=1, queue=size, own=own)
    for _ in range(3 * world.slots):  # the workers are full from now on
        world.take(CLIENT, world.run())
    like_the_broker()
    memory, first = _resident(), world.jobs
    world.spent_ns = world.longest_ns = 0
    for _ in range(size):
        world.take(CLIENT, world.run())
    accept_us, longest_ms = world.spent_ns / size / 1e3, world.longest_ns / 1e6
    each = (_resident() - memory) / (world.jobs - first)
    costs = [world.turn() for _ in range(turns + turns // 10)][turns // 10 :]
    return {
        "queued": len(world.core.queue),
        "jobs": turns * TURN,
        "accept_us": round(accept_us, 2),
        "longest_ms": round(longest_ms, 2),
        "us": round(statistics.median(costs), 2),
        "mean_us": round(statistics.fmean(costs), 2),
        "bytes_per_job": round(each),
    }


def _resident() -> int:
    """Resident memory of this process now, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    order = json.loads(sys.argv[1])
    question = {"workers": workers, "queue": queue}[order.pop("ask")]
    print(json.dumps(question(**order)))


if __name__ == "__main__":
    main()

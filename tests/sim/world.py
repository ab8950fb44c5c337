"""A virtual clock, one source of chance, and a network of connections that can be slow, cut or silent.

Everything that happens in a simulation is a call on this clock, and every choice is drawn from one seeded generator, so
a seed reproduces a run exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


class World:
    """The clock, the chance and the story of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 1000.0  # seconds; not 0, so that a forgotten default shows
        self.random = random.Random(seed)
        self.skew = 0.0  # wall time minus the virtual one, seconds
        self.steps = 0
        self.story: deque[str] = deque(maxlen=4000)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), call))

    def after(self, delay: float, call: Callable[[], None]) -> None:
        self.at(self.now + delay, call)

    def tell(self, line: str) -> None:
        self.story.append(f"{self.now:10.4f} {line}")

    def run_until(self, done: Callable[[], bool], limit: float) -> None:
        """Lets time pass until ``done``. Raises ``AssertionError`` with the clock at ``limit``."""
        while not done():
            assert self._heap, f"seed {self.seed}: nothing is left to happen"
            when, _, call = heapq.heappop(self._heap)
            self.now = when
            assert self.now < limit, f"seed {self.seed}: not done after {self.now:.1f} virtual seconds"
            self.steps += 1
            call()

    def story_of(self, word: str) -> str:
        """The lines of the story that name a job or a node."""
        return "\n".join(line for line in self.story if word in line)


@dataclass(eq=False)
class Connection:
    """One connection to the broker: in order in each direction, until it is cut; then what is on its way is lost."""

    world: World
    to_broker: Callable[[Connection, list[bytes]], None]
    to_peer: Callable[[Connection, list[bytes]], None]
    routing_id: bytes
    alive: bool = True  # the broker can send to it
    silent: frozenset[bool] = frozenset()  # directions in which packets vanish, and nobody is told
    slow: float = 0.0  # added to each delay, seconds
    _free: dict[bool, float] = field(default_factory=dict)  # per direction: when the last message arrives, seconds

    def send(self, up: bool, frames: list[bytes]) -> bool:
        """Sends towards the broker (``up``) or the peer. False: it is known to be gone."""
        if not self.alive:
            return False
        delay = self.world.random.expovariate(1 / 0.0005) + self.slow
        arrival = max(self.world.now + delay, self._free.get(up, 0.0))
        self._free[up] = arrival
        self.world.at(arrival, lambda: self._arrive(up, frames))
        return True

    def _arrive(self, up: bool, frames: list[bytes]) -> None:
        if self.alive and up not in self.silent:
            (self.to_broker if up else self.to_peer)(self, frames)

    def cut(self) -> None:
        self.alive = False

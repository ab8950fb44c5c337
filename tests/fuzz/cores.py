"""Both cores behind the decoder."""

from __future__ import annotations

from tests.fuzz.broker_core import BrokerFuzz
from tests.fuzz.mutation import Mutator
from tests.fuzz.worker_core import WorkerFuzz


def fuzz(mutator: Mutator, steps: int) -> None:
    """One life of each core, of that many steps."""
    for durable in (False, True):
        broker = BrokerFuzz(Mutator(mutator.random), durable)
        for _ in range(steps):
            broker.step()
        broker.finish()
    worker = WorkerFuzz(Mutator(mutator.random))
    for _ in range(steps):
        worker.step()
    worker.end()

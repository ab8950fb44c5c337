"""A worker that writes down each start of a guest before it happens: what ran, whatever anybody says later.

``python -m tests.chaos.witness FILE [options of minilambda-worker]``. It is the real worker in all else.
"""

from __future__ import annotations

import json
import os
import sys
import time

from minilambda.cli import worker
from minilambda.worker.jobs import Job
from minilambda.worker.slots import Slot, Slots


def main(path: str, arguments: list[str]) -> int:
    """Run the worker; each start is a line in the file, which survives SIGKILL."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    run = Slots.run

    def witnessed(slots: Slots, slot: Slot, job: Job, component: bool, now: float) -> None:
        line = [time.monotonic(), "started", job.ref.job, job.ref.attempt, job.retried]
        os.write(file, json.dumps(line).encode() + b"\n")
        run(slots, slot, job, component, now)

    Slots.run = witnessed  # type: ignore[method-assign]
    return worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""A result whose bodies are still on their way from its worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minilambda.messages import Result, body_handle

if TYPE_CHECKING:
    from minilambda.broker.jobs import Job

BODIES = ("stdout", "stderr", "value", "collected")
"""The bodies of a result."""

MAX_RESULT_BYTES = 256 * 1024 * 1024
"""The most that all bodies of one result may have together, bytes."""

STALL = 120.0
"""A result that makes no progress for so long is given up, seconds."""


@dataclass(slots=True, eq=False)
class Arrival:
    """What is here of a result, and what is missing."""

    job: Job
    result: Result
    bodies: dict[str, bytes]  # by name, those that are here
    missing: dict[str, tuple[str, int]]  # handle to body name and size in bytes


def arrival(job: Job, result: Result, bodies: dict[str, bytes], withheld: dict[str, int]) -> Arrival:
    """The result of a job that names bodies as withheld. Names that no body has are ignored."""
    missing = {body_handle(job.ref, name): (name, withheld[name]) for name in BODIES if withheld.get(name)}
    return Arrival(job, result, bodies, missing)

"""What is told of a job that has ended, to those who keep logs and traces: all but its input and output. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minilambda.messages import Result

if TYPE_CHECKING:
    from minilambda.broker.jobs import Job

NOBODY, TRACED, ALL = 0, 1, 2
"""Of which jobs a core gives an account: none, those with a trace, every one."""


@dataclass(slots=True)
class Account:
    """A job that has ended. Times are monotonic seconds."""

    principal: str
    job: str
    result: Result
    module: str  # digest
    group: str
    function: str  # "" unless called as one
    losses: int  # workers lost with it
    accepted_at: float  # seconds
    dispatched_at: float  # when the latest attempt was given to a worker, seconds; 0.0: never
    ended_at: float  # seconds
    story: tuple[tuple[float, str], ...]  # (seconds, event), the latest ones
    traceparent: str  # of its caller; "": none


def account_of(job: Job, result: Result) -> Account:
    """The account of a job that has ended with that result."""
    return Account(
        job.key[0],
        job.key[1],
        result,
        job.spec.module,
        job.spec.group,
        job.function,
        job.losses,
        job.accepted_at,
        job.dispatched_at if job.attempt else 0.0,
        job.ended_at,
        tuple(job.story),
        job.traceparent,
    )

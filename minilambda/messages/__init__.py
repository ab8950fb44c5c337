"""Every message of the protocol, as values that nobody changes (see ``parts``).

A message's wire name is in ``TYPE``; its fields are the header's keys, and the fields of type ``Body`` follow the
header as frames. Fields with a default may be left out of a header. ``docs/protocol.md`` is the reference for people;
these files and ``wire`` are what the code goes by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilambda.messages.client import (
    CLIENT_MESSAGES,
    REPLIES,
    Accepted,
    Cancel,
    GetResult,
    GetStatus,
    Hello,
    JobList,
    JobResult,
    JobStatus,
    ListJobs,
    ListModules,
    ListWorkers,
    ModuleList,
    Put,
    Refused,
    Reply,
    Request,
    Run,
    RunAgain,
    Stored,
    Welcome,
    WorkerList,
)
from minilambda.messages.parts import (
    TERMINAL,
    Body,
    ErrorInfo,
    JobRef,
    JobSpec,
    Message,
    Refs,
    Result,
    Rows,
    State,
    Tier,
    Usage,
)

if TYPE_CHECKING:
    from minilambda.messages.worker import (
        BROKER_MESSAGES,
        WORKER_MESSAGES,
        Acknowledge,
        Beat,
        Chunk,
        Dispatch,
        Done,
        Fetch,
        FromBroker,
        FromWorker,
        Goodbye,
        Recall,
        Register,
        RegisterAgain,
        Registered,
        Report,
        Returned,
        Stop,
        body_handle,
    )

__all__ = [
    "BROKER_MESSAGES",
    "CLIENT_MESSAGES",
    "REPLIES",
    "TERMINAL",
    "WORKER_MESSAGES",
    "Accepted",
    "Acknowledge",
    "Beat",
    "Body",
    "Cancel",
    "Chunk",
    "Dispatch",
    "Done",
    "ErrorInfo",
    "Fetch",
    "FromBroker",
    "FromWorker",
    "GetResult",
    "GetStatus",
    "Goodbye",
    "Hello",
    "JobList",
    "JobRef",
    "JobResult",
    "JobSpec",
    "JobStatus",
    "ListJobs",
    "ListModules",
    "ListWorkers",
    "Message",
    "ModuleList",
    "Put",
    "Recall",
    "Refs",
    "Refused",
    "Register",
    "RegisterAgain",
    "Registered",
    "Reply",
    "Report",
    "Request",
    "Result",
    "Returned",
    "Rows",
    "Run",
    "RunAgain",
    "State",
    "Stop",
    "Stored",
    "Tier",
    "Usage",
    "Welcome",
    "WorkerList",
    "body_handle",
]


def __getattr__(name: str) -> object:
    """The messages between the broker and its workers, made when they are first used: a client does without them."""
    if name not in __all__:
        raise AttributeError(f"module 'minilambda.messages' has no attribute {name!r}")
    from minilambda.messages import worker  # noqa: PLC0415

    globals()[name] = found = getattr(worker, name)
    return found

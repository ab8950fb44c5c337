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
    Run,
    RunAgain,
    Stored,
    Welcome,
    WorkerList,
)
from minilambda.messages.functions import (
    LIVE,
    Call,
    Deploy,
    Deployed,
    FunctionList,
    ListFunctions,
    SetAlias,
    Undeploy,
)
from minilambda.messages.live import Credit, Follow, Followed, Input, Output, Taken, Unfollow
from minilambda.messages.overview import ClientList, GetOverview, ListClients, Overview
from minilambda.messages.parts import (
    TERMINAL,
    Body,
    ErrorInfo,
    FromBroker,
    FromWorker,
    JobRef,
    JobSpec,
    Message,
    Refs,
    Reply,
    Request,
    Result,
    Rows,
    State,
    Tier,
    Usage,
)

if TYPE_CHECKING:
    from minilambda.messages.relay import Allow, Fed, Feed, Unwatch, Watch, Written
    from minilambda.messages.worker import (
        BROKER_MESSAGES,
        WORKER_MESSAGES,
        Acknowledge,
        Beat,
        Chunk,
        Dispatch,
        Done,
        Fetch,
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
    "LIVE",
    "REPLIES",
    "TERMINAL",
    "WORKER_MESSAGES",
    "Accepted",
    "Acknowledge",
    "Allow",
    "Beat",
    "Body",
    "Call",
    "Cancel",
    "Chunk",
    "ClientList",
    "Credit",
    "Deploy",
    "Deployed",
    "Dispatch",
    "Done",
    "ErrorInfo",
    "Fed",
    "Feed",
    "Fetch",
    "Follow",
    "Followed",
    "FromBroker",
    "FromWorker",
    "FunctionList",
    "GetOverview",
    "GetResult",
    "GetStatus",
    "Goodbye",
    "Hello",
    "Input",
    "JobList",
    "JobRef",
    "JobResult",
    "JobSpec",
    "JobStatus",
    "ListClients",
    "ListFunctions",
    "ListJobs",
    "ListModules",
    "ListWorkers",
    "Message",
    "ModuleList",
    "Output",
    "Overview",
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
    "SetAlias",
    "State",
    "Stop",
    "Stored",
    "Taken",
    "Tier",
    "Undeploy",
    "Unfollow",
    "Unwatch",
    "Usage",
    "Watch",
    "Welcome",
    "WorkerList",
    "Written",
    "body_handle",
]


def __getattr__(name: str) -> object:
    """The messages between the broker and its workers, made when they are first used: a client does without them."""
    if name not in __all__:
        raise AttributeError(f"module 'minilambda.messages' has no attribute {name!r}")
    from minilambda.messages import relay, worker  # noqa: PLC0415

    globals()[name] = found = getattr(relay if hasattr(relay, name) else worker, name)
    return found

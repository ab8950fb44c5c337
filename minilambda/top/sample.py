"""What was learned of a cluster at one moment. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minilambda.client.functions import FunctionInfo
from minilambda.client.listings import ClientInfo, Cluster, JobInfo, Overview

LISTS = ("jobs", "workers", "clients", "functions")
"""The lists that there are, and tabs of the same names."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The answers to one round of questions. None: not asked, or refused."""

    at: float  # when it was complete, seconds of any clock that does not go back
    overview: Overview | None = None
    cluster: Cluster | None = None
    jobs: list[JobInfo] | None = None
    clients: list[ClientInfo] | None = None
    functions: list[FunctionInfo] | None = None
    asked: str = ""  # the state or code of the jobs; "": all were asked for
    own_only: bool = False  # the jobs are those of this key, as it may not see others
    refused: dict[str, str] = field(default_factory=dict)  # "overview" or a list's name to the broker's sentence
    greeting: str = ""  # name and version of the broker's software
    principal: str = ""  # who the broker takes us for

    def rows(self, name: str) -> list[Any] | None:
        """The rows of a list; None where they are not known."""
        if name == "workers":
            return None if self.cluster is None else self.cluster.workers
        found: list[Any] | None = getattr(self, name)
        return found

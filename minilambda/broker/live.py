"""Who follows the output of which jobs, and the input that is on its way to them. Plain data, and its indexes.

Nothing is here of a job that nobody follows and whose input is all there at its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from minilambda.broker.events import Route
from minilambda.broker.jobs import InvariantError, Job, JobKey
from minilambda.errors import Busy

MAX_FOLLOWERS = 64
"""Followers of one job; the one that was there first makes room for another."""

MAX_FOLLOWS = 256
"""Jobs that one connection follows, at most."""


FOLLOW_EVERY, AT_ONCE = 1 / MAX_FOLLOWERS, 2 * MAX_FOLLOWERS
"""A job at a worker can be followed anew every so many seconds, and so often at once: the worker hears of each."""


@dataclass(slots=True, eq=False)
class Follower:
    """One ``follow`` that has not been answered."""

    job: Job
    route: Route
    request: int  # of the ``follow``
    credit: int  # so much more may be sent, bytes
    attempt: int  # that the offsets are about; 0: whichever comes first
    stdout: int  # all before this offset is sent, bytes
    stderr: int  # likewise
    number: int = 0  # as the job's worker knows it; another one for each worker
    owed: int = 0  # of the credit, what that worker has not been told of, bytes
    caught_up: bool = False  # it was told that it has all that there was when it came

    def offset(self, stream: str) -> int:
        return self.stdout if stream == "stdout" else self.stderr

    def sent(self, stream: str, size: int) -> None:
        """So much of a stream goes to the client."""
        self.credit -= size
        if stream == "stdout":
            self.stdout += size
        else:
            self.stderr += size

    def turn_to(self, attempt: int) -> None:
        """From now on it gets the output of this attempt: from the beginning, unless it has some of it."""
        if self.attempt not in (0, attempt):
            self.stdout = self.stderr = 0
        self.attempt = attempt


@dataclass(slots=True)
class Pending:
    """An ``input`` that is at the worker and has not been answered."""

    route: Route
    request: int
    number: int  # of the ``feed``
    offset: int  # of its data, bytes
    end: int  # of its data, bytes
    eof: bool  # all input ends there


@dataclass(slots=True, eq=False)
class Live:
    """What there is of one job."""

    job: Job
    followers: list[Follower] = field(default_factory=list)  # the oldest first
    received: int = 0  # so much of the input has reached the guest's pipe, as far as known, bytes
    ends: int | None = None  # where the input ends, bytes; None: nobody has said so
    pending: Pending | None = None

    @property
    def idle(self) -> bool:
        """Nothing is left to remember."""
        return not self.followers and self.pending is None and not self.received and self.ends is None


def pace(job: Job, now: float) -> None:
    """Another follower, of whom the job's worker is to hear. Raises ``Busy`` where that is too often."""
    begin = max(job.followed_to, now)
    wait = begin - now - (AT_ONCE - 1) * FOLLOW_EVERY
    if wait > 0:
        raise Busy("The job is followed anew too often.", wait)
    job.followed_to = begin + FOLLOW_EVERY


class LiveJobs:
    """Every ``Live`` by its job, every follower by its connection and by its number."""

    def __init__(self) -> None:
        self.jobs: dict[JobKey, Live] = {}
        self._by_number: dict[int, Follower] = {}  # those that a worker has been told of
        self._by_connection: dict[bytes, dict[int, Follower]] = {}  # then by request
        self._last = 0  # number that was given last, to a follower or a ``feed``

    def of(self, job: Job) -> Live:
        """What there is of a job, made if there is nothing; ``tidy`` ends what stays empty."""
        live = self.jobs.get(job.key)
        if live is None:
            live = self.jobs[job.key] = Live(job)
        return live

    def tidy(self, live: Live) -> None:
        if live.idle:
            self.jobs.pop(live.job.key, None)

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def add(self, follower: Follower) -> list[Follower]:
        """Answers all followers of its job. Raises ``Busy`` where its connection follows too much."""
        mine = self._by_connection.setdefault(follower.route[0], {})
        if len(mine) >= MAX_FOLLOWS:
            raise Busy(f"This connection follows {MAX_FOLLOWS} jobs; it can't follow more.")
        mine[follower.request] = follower
        followers = self.of(follower.job).followers
        followers.append(follower)
        return followers

    def remove(self, follower: Follower) -> None:
        live = self.jobs[follower.job.key]
        live.followers.remove(follower)
        self.tidy(live)
        self.unnumber(follower)
        mine = self._by_connection[follower.route[0]]
        del mine[follower.request]
        if not mine:
            del self._by_connection[follower.route[0]]

    def number(self, follower: Follower) -> None:
        """Give it a number by which no worker has known it."""
        self.unnumber(follower)
        follower.number = self.next_number()
        self._by_number[follower.number] = follower

    def unnumber(self, follower: Follower) -> None:
        self._by_number.pop(follower.number, None)
        follower.number = 0

    def find(self, connection: bytes, request: int) -> Follower | None:
        return self._by_connection.get(connection, {}).get(request)

    def numbered(self, number: int) -> Follower | None:
        return self._by_number.get(number)

    def of_connection(self, connection: bytes) -> list[Follower]:
        return list(self._by_connection.get(connection, {}).values())

    def __iter__(self) -> Iterator[Follower]:
        return (follower for live in self.jobs.values() for follower in live.followers)

    def check(self, jobs: dict[JobKey, Job]) -> None:
        """Raise ``InvariantError`` where the indexes disagree, or something belongs to no job that there is."""
        followers = list(self)
        if {each.number: each for each in followers if each.number} != self._by_number:
            raise InvariantError("the numbers of the followers disagree with the followers")
        by_connection = {
            (name, request): each for name, of in self._by_connection.items() for request, each in of.items()
        }
        if by_connection != {(each.route[0], each.request): each for each in followers}:
            raise InvariantError("the connections of the followers disagree with the followers")
        for key, live in self.jobs.items():
            job = live.job
            if jobs.get(key) is not job or live.idle or len(live.followers) > MAX_FOLLOWERS:
                raise InvariantError(job.tell("it is followed or fed, and should not be"))
            if live.pending is not None and (job.worker is None or not job.spec.stream):
                raise InvariantError(job.tell("input is on its way to nobody"))
            for each in live.followers:
                if each.job is not job or each.credit < 0 or (each.number and job.worker is None):
                    raise InvariantError(job.tell("a follower of it is not as it should be"))
                if job.ended and each.credit:
                    raise InvariantError(job.tell("it has ended, and a follower has not been told all that it may be"))

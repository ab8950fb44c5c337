"""The workers that are connected, each with one session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minilambda.broker.events import Route
from minilambda.errors import Forbidden
from minilambda.transfers import Puller

if TYPE_CHECKING:
    from minilambda.broker.arrivals import Arrival
    from minilambda.broker.jobs import Job, JobKey
    from minilambda.messages import JobRef, Register


@dataclass(slots=True, eq=False)
class Worker:
    """One session of one worker. Times are monotonic seconds."""

    id: str  # the worker's own, the same in all its sessions
    session: int  # number of this registration
    route: Route  # where it is
    name: str
    slots: int  # guests at a time
    version: str
    host: str
    pid: int
    draining: bool  # takes no new jobs
    puller: Puller  # asks for the missing bodies
    queue: int  # its queue length as of the dispatch ``seen``, jobs
    seen_at: float  # last sign of life, seconds
    moved_at: float  # last piece of a body that came, seconds
    seen: int = 0  # sequence number of the last dispatch that it has told of
    dispatched: int = 0  # sequence number of the last dispatch sent
    reachable: bool = True  # False once a message could not be sent
    doubted: bool = False  # it contradicted itself and was told to register again
    pending: int = 0  # dispatches that wait for the disk, and have no number yet
    saved: int = 0  # number of the write that knows the worker
    done: int = 0  # jobs ended, earlier sessions included
    jobs: dict[JobKey, Job] = field(default_factory=dict)  # dispatched and unfinished, in order of dispatch
    arrivals: dict[str, Arrival] = field(default_factory=dict)  # results on their way, by handle of each missing body
    settled: tuple[JobRef, ...] = ()  # results that are safe, of which it has not been told
    settled_at: float = 0.0  # when the first of these ended, seconds
    expected: int = 0  # how long all of ``jobs`` will keep a slot together, microseconds
    load: int = 0  # jobs that it has or is about to get; the scheduler's own
    takes: bool = False  # counted as taking jobs; the scheduler's own
    free: int = 0  # slots counted as free; the scheduler's own
    place: float | None = None  # bucket that it belongs into, load relative to slots; the scheduler's own
    bucket: float | None = None  # bucket that it is in; the scheduler's own
    stuck: bool = False  # what waits there waits too long, so it gets no more than its slots take; the scheduler's own
    # The fields above are together because each job needs them: they share lines of the processor's caches.
    registered_at: float = 0.0  # when it last asked for this session, seconds
    waits_since: float = 0.0  # when the last job that must wait for a slot was given to it, seconds
    principal: str = "local"  # whose key it has shown
    walls: str = ""  # around its guests, in a few words; "": it said nothing
    leaving: dict[JobKey, Job] = field(default_factory=dict)  # finished there, the result on its way
    warm: dict[str, None] = field(default_factory=dict)  # digests of modules that it got, oldest first
    artifacts: tuple[str, ...] = ()  # modules that it had when it registered, by its word, and need not be sent

    @property
    def state(self) -> str:
        """What it does, for people."""
        return "draining" if self.draining else "lost" if not self.reachable else "busy" if self.load else "idle"

    @property
    def takes_jobs(self) -> bool:
        return self.reachable and not self.draining and not self.doubted

    def needs(self, digest: str) -> bool:
        """Whether a job that it has and has not finished needs this module or file."""
        return any(job.spec.module == digest or digest in job.files for job in self.jobs.values())

    def take(self, job: Job) -> None:
        """The job is here, from now on."""
        self.jobs[job.key] = job
        self.expected += job.expected

    def let_go(self, job: Job) -> bool:
        """The job is not among ``jobs`` any more; whether it was."""
        if self.jobs.pop(job.key, None) is None:
            return False
        self.expected -= job.expected
        return True

    def measure(self) -> int:
        """The queue length now: what the worker said, and what was sent since. Never less than is known of."""
        said, known = self.queue + self.dispatched + self.pending - self.seen, len(self.jobs)
        return said if said > known else known

    def believes(self, queue: int, seen: int) -> bool:
        """Whether a statement of queue length agrees with what was sent. Jobs can't vanish, nor arrive unsent."""
        sent = self.dispatched + self.pending
        return self.seen <= seen <= self.dispatched and queue + sent - seen >= len(self.jobs)

    def asks_again(self, route: Route, message: Register) -> bool:
        """Whether a registration asks once more for the session that was given, since the answer was slow to come.

        Another session would make that answer worthless: where thousands of workers come at once, all would ask again.
        """
        unheard = self.seen_at == self.registered_at and message.ended != self.session
        return unheard and self.route == route and self.slots == message.slots and self.reachable and not self.doubted


class Registry:
    """Workers by session, by id and by connection."""

    def __init__(self, session_start: int) -> None:
        self._next = session_start  # number of the next session
        self.sessions: dict[int, Worker] = {}
        self.by_id: dict[str, Worker] = {}
        self.by_connection: dict[bytes, Worker] = {}

    def __len__(self) -> int:
        return len(self.sessions)

    def new_session(self) -> int:
        self._next += 1
        return self._next - 1

    def add(self, worker: Worker, principal: str = "local") -> None:
        worker.principal = principal
        self.sessions[worker.session] = worker
        self.by_id[worker.id] = worker
        self.by_connection[worker.route[0]] = worker

    def by_key(self, worker_id: str, principal: str) -> Worker | None:
        """The worker of an id. Raises ``Forbidden`` where another principal has registered it."""
        worker = self.by_id.get(worker_id)
        if worker is not None and worker.principal != principal:
            raise Forbidden("Another key has registered a worker with this id.")
        return worker

    def remove(self, worker: Worker) -> None:
        del self.sessions[worker.session]
        del self.by_id[worker.id]
        del self.by_connection[worker.route[0]]

    def find(self, route: Route, session: int) -> Worker | None:
        """The worker of a session, if the session belongs to that connection."""
        worker = self.sessions.get(session)
        return worker if worker is not None and worker.route[0] == route[0] else None

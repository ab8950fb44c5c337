"""A whole cluster on a virtual clock: one broker, many workers, clients with work, and trouble, from one seed."""

from __future__ import annotations

from dataclasses import dataclass

from minilambda.settings import BrokerSettings, Limits, WorkerSettings
from tests.sim.followers import FollowerNode
from tests.sim.nodes import Behaviour, BrokerNode, ClientNode, Ledger, WorkerNode
from tests.sim.world import Connection, World

BOTH_WAYS = frozenset({True, False})

LIMITS = Limits(timeout=8.0, memory_bytes=2**20, output_bytes=2**20)


@dataclass(frozen=True)
class Plan:
    """What a run is made of. The troubles happen at random times while the jobs come in."""

    workers: int = 8
    clients: int = 3
    jobs: int = 120
    seconds: float = 20.0  # how long jobs and troubles come in, virtual
    crashes: int = 0  # workers killed (and replaced by new ones)
    cuts: int = 0  # connections that break, of workers and clients
    silences: int = 0  # connections on which packets vanish
    slow: int = 0  # connections with a second of delay for a while
    stops: int = 0  # workers stopped and continued, some for longer than the liveness bound
    drains: int = 0  # workers told to drain (and replaced)
    cancels: int = 0  # jobs cancelled
    poison: int = 0  # jobs that kill their worker
    restarts: int = 0  # broker crashes, after each of which it begins again on what its disk has
    jumps: int = 0  # the wall clock jumps
    sync: float = 0.002  # how long the disk takes, on average, seconds
    detached: float = 0.4  # share of the jobs whose client does not wait
    followed: float = 0.1  # share of the jobs that somebody follows
    inline: int = 256 * 1024  # modules and inputs above this are fetched, bytes


class Cluster:
    """One run of a plan."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.world, self.plan = World(seed), plan
        self.ledger = Ledger()
        settings = BrokerSettings(inline_bytes=plan.inline, max_wait=5.0, max_queued=80)
        self.broker = BrokerNode(self.world, settings, plan.sync)
        self.workers: list[WorkerNode] = []
        self._numbers = 0
        for _ in range(plan.workers):
            self.add_worker()
        wasm = [b"\0asm" + bytes([n]) * self.world.random.choice((100, 5_000, 400_000)) for n in range(plan.clients)]
        self.clients = [ClientNode(self.world, self.broker, self.ledger, body) for body in wasm]
        self.followers = [FollowerNode(self.world, self.broker, self.ledger) for _ in range(2)]
        self.behaviours: dict[str, Behaviour] = {}
        self.retries: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.promised: set[str] = set()  # detached jobs
        self._plan_jobs()
        self._plan_troubles()

    def add_worker(self) -> None:
        self._numbers += 1
        slots = self.world.random.choice((1, 2, 4))
        settings = WorkerSettings(slots=slots, default=LIMITS, grace=3.0)
        self.workers.append(WorkerNode(self.world, self.broker, self.ledger, self._numbers, settings))

    # --- the plan ---

    def _plan_jobs(self) -> None:
        chance = self.world.random
        for number in range(self.plan.jobs):
            job = f"job-{number}"
            kinds = ("run",) * 12 + ("sleep", "crash")
            kind = "poison" if number < self.plan.poison else chance.choice(kinds)
            behaviour = Behaviour(kind, chance.choice((0.001, 0.01, 0.1, 0.5, 5.0)))
            self.behaviours[job] = behaviour
            self.retries[job] = chance.choice((0, 1, 2, 5))
            client = chance.choice(self.clients)
            spec = {
                "retries": self.retries[job],
                "group": chance.choice(("", "a", "b")),
                "priority": chance.choice((0, 5)),
            }
            detach = chance.random() < self.plan.detached
            if detach:
                self.promised.add(job)
            self._sometime(lambda c=client, j=job, b=behaviour, d=detach, s=spec: c.submit(j, b, d, **s))
            if chance.random() < self.plan.followed:
                follower = chance.choice(self.followers)
                self._sometime(lambda f=follower, j=job: f.follow(j))
            if number >= self.plan.jobs - self.plan.cancels:
                self.cancelled.add(job)
                self._sometime(lambda c=client, j=job: c.cancel(j))

    def _plan_troubles(self) -> None:
        plan = self.plan
        for count, trouble in (
            (plan.crashes, self._crash),
            (plan.cuts, self._cut),
            (plan.silences, self._silence),
            (plan.slow, self._slow),
            (plan.stops, self._stop),
            (plan.drains, self._drain),
            (plan.restarts, self._restart),
            (plan.jumps, self._jump),
        ):
            for _ in range(count):
                self._sometime(trouble)
        self._keep_alive()

    def _sometime(self, call: object) -> None:
        self.world.after(self.world.random.uniform(0, self.plan.seconds), call)  # type: ignore[arg-type]

    def _keep_alive(self) -> None:
        """A supervisor: workers that are gone are replaced, within a second."""
        living = [worker for worker in self.workers if worker.alive]
        self.workers = living
        for _ in range(self.plan.workers - len(living)):
            self.add_worker()
        self.world.after(1.0, self._keep_alive)

    # --- troubles ---

    def _some_worker(self) -> WorkerNode | None:
        living = [worker for worker in self.workers if worker.alive]
        return self.world.random.choice(living) if living else None

    def _crash(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            silent = self.world.random.random() < 0.5  # no FIN: the broker is not told
            connection = worker.connection
            worker.crash()
            if silent:
                connection.alive, connection.silent = True, BOTH_WAYS

    def _cut(self) -> None:
        node = self.world.random.choice([*self.clients, *self.followers, *(w for w in self.workers if w.alive)])
        self.world.tell(f"cut {getattr(node, 'name', 'a client')}")
        node.cut()

    def _silence(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            self.world.tell(f"{worker.name} falls silent")
            worker.connection.silent = self.world.random.choice((BOTH_WAYS, frozenset({True}), frozenset({False})))
            # The packets are gone for good: when the network heals, it is on another connection.
            self.world.after(self.world.random.uniform(0.5, 9.0), lambda c=worker.connection: self._heal(worker, c))

    def _heal(self, worker: WorkerNode, connection: Connection) -> None:
        if worker.connection is connection:
            worker.cut()
        connection.cut()

    def _slow(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            connection = worker.connection
            connection.slow = 1.0
            self.world.after(3.0, lambda: setattr(connection, "slow", 0.0))

    def _stop(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            worker.stop(self.world.random.uniform(0.5, 9.0))

    def _drain(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            worker.drain()

    def _restart(self) -> None:
        self.broker.crash(self.world.random.choice((0.01, 0.5, 3.0)))

    def _jump(self) -> None:
        self.world.skew += self.world.random.choice((-86_400.0, -5.0, 5.0, 3_600.0))

    # --- the run, and the verdict ---

    def run(self) -> None:
        """Runs until every job is answered and everything is at rest, then checks the ledger."""
        end = self.world.now + self.plan.seconds
        self.world.run_until(lambda: self.world.now >= end, limit=end + 60)
        self.world.run_until(self._at_rest, limit=end + 400)
        self.check_ledger()

    def _at_rest(self) -> bool:
        if any(client.pending for client in self.clients) or not all(each.at_rest for each in self.followers):
            return False
        living = [worker for worker in self.workers if worker.alive]
        return not any(worker.core.execution.jobs or worker.core.finished for worker in living)

    def check_ledger(self) -> None:
        """Raises ``AssertionError`` with the story of the job that broke a promise."""
        answers = self.ledger.answers
        for job, behaviour in self.behaviours.items():
            told = answers.get(job, [])
            why = f"seed {self.world.seed}, {job} ({behaviour}): {told}\n{self.world.story_of(job + ' ')}"
            assert told, f"no answer: {why}"
            assert len(set(told)) == 1, f"different answers: {why}"
            state, code, exit_code, _attempt, stdout = told[0]
            assert self.ledger.begun(job) <= self._allowed(job), f"ran too often: {why}"
            if state == "completed":
                assert behaviour.kind == "run", why
                assert (exit_code, stdout) == (0, job.encode()), why
            else:
                assert code in self._possible(job, behaviour), why
        for ref, starts in self.ledger.starts.items():
            # A restarted broker counts the attempts of a waiting job, which no journal has, from 1 again.
            again = self.plan.restarts if ref.job not in self.promised else 0
            assert starts <= 1 + again, f"seed {self.world.seed}: {ref} began {starts} times"
        for follower in self.followers:
            follower.check()
        assert not self.broker.core.queue, "jobs are left in the queue"

    def _allowed(self, job: str) -> int:
        """How often a job may begin. What a waiting job has lost before a restart of the broker is forgotten by it."""
        forgets = self.plan.restarts if self.retries[job] and job not in self.promised else 0
        return (1 + self.retries[job]) * (1 + forgets)

    def _possible(self, job: str, behaviour: Behaviour) -> set[object]:
        troubled = self.plan.crashes or self.plan.cuts or self.plan.silences or self.plan.stops or self.plan.poison
        codes: set[object] = {"worker_lost", "poisoned"} if troubled or self.plan.drains else set()
        if self.plan.restarts and not self.retries[job]:
            codes.add("worker_lost")  # a request was lost with the broker, and nobody knows whether it ran
        if job in self.cancelled:
            codes.add("cancelled")
        codes |= {"sleep": {"deadline_exceeded"}, "crash": {"runner_crashed"}}.get(behaviour.kind, set())
        return codes

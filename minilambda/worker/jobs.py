"""A job at a worker: its phases and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from minilambda.errors import MinilambdaError
from minilambda.messages import JobRef, JobSpec
from minilambda.settings import Limits, WorkerSettings
from minilambda.worker.events import Outcome

PHASES: dict[str, frozenset[str]] = {
    "fetching": frozenset({"preparing", "done"}),  # its stdin, values or files are on their way
    "preparing": frozenset({"ready", "running", "done"}),  # the module has no artifact here yet, as far as known
    "ready": frozenset({"running", "preparing", "done"}),  # waits for a slot
    "running": frozenset({"preparing", "done"}),  # a runner has it; back when its artifact was no good
    "done": frozenset(),
}
"""Phase to the phases that may follow."""


NOTHING: frozenset[str] = frozenset()


class InvariantError(MinilambdaError):
    """A state machine was asked for something that can't be: a defect of ours, never of a peer."""

    code = "internal"
    sentence = "minilambda met a state that can't be."


@dataclass(slots=True)
class Job:
    """One attempt of one job, from its dispatch to its result."""

    ref: JobRef  # principal, job id, attempt
    spec: JobSpec  # what to run
    limits: Limits  # the job's own, the worker's defaults filled in, within the ceilings
    module_size: int  # of the wasm bytes
    received: float  # when the dispatch arrived, seconds
    stdin: bytes = b""  # whole, once it has arrived
    values: bytes = b""  # whole, once they have arrived
    missing: frozenset[str] = NOTHING  # names of bodies that are on their way; "files" for all of these
    phase: str = "preparing"  # one of PHASES; "fetching" while something is missing
    fetched: float = 0.0  # time spent on its bodies and its module's bytes, seconds
    compiled: float = 0.0  # time spent compiling for it, seconds
    compiler: str = ""  # whose artifact it runs on; "" before it has one
    overflowed: Outcome | None = None  # how it ended on a shallow stack, while it waits for code that needs less
    tier: str = "disk"  # "compiled", "disk" or "warm", as far as known
    started: float = 0.0  # when the order went to the runner, seconds
    ending: str = ""  # why its runner is being killed: "deadline", "cancelled", "output", "stale" or "drain"
    tree: str = ""  # names the tree of its files; "": it has nothing to do with files, and no runner of its own
    retried: bool = False  # its artifact was no good once already

    def move(self, phase: str) -> None:
        """To the next phase. Raises ``InvariantError`` when it can't follow."""
        if phase not in PHASES[self.phase]:
            raise InvariantError(f"{self.ref.job}/{self.ref.attempt} can't go from {self.phase} to {phase}.")
        self.phase = phase

    @property
    def begun(self) -> bool:
        """Its guest may have started."""
        return self.phase == "running"


def limits_for(spec: JobSpec, settings: WorkerSettings) -> Limits:
    """The limits of a job: what it asks for, or the defaults, and never above the ceilings."""
    default, ceiling = settings.default, settings.ceiling
    if not (spec.timeout_ms or spec.memory_bytes or spec.output_bytes):
        return default  # which settings see to be within the ceilings
    return Limits(
        timeout=min(spec.timeout_ms / 1000 or default.timeout, ceiling.timeout),
        memory_bytes=min(spec.memory_bytes or default.memory_bytes, ceiling.memory_bytes),
        output_bytes=min(spec.output_bytes or default.output_bytes, ceiling.output_bytes),
    )

"""Settings of the broker and the worker: frozen, validated once, handed down whole.

Sizes are in bytes and times in seconds, unless a name says otherwise.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from minilambda.notation import GIB, KIB, MIB, BadSetting

COMPILERS: dict[str, tuple[str, ...]] = {
    "tiered": ("cranelift", "winch"),
    "cranelift": ("cranelift",),
    "winch": ("winch",),
}
"""What a worker's choice of a compiler means: whose artifacts it uses, the fastest code first. The last one makes a
new module's first artifact, since it is the quickest to compile."""

WALLS = ("best", "required")
"""What a worker does where a wall around guests can't be raised: say so and serve, or refuse to."""


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """What each principal may have, at most; 0 for as much as there is."""

    queued: int = 0  # jobs that wait
    running: int = 0  # jobs at workers; more wait in the queue
    stored_bytes: int = 0  # modules
    compile_seconds: float = 0.0  # of compiling in an hour, for modules that no worker has had


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How a broker behaves."""

    heartbeat: float = 1.0  # a worker reports at least so often, seconds
    liveness: float = 5.0  # a worker that is silent for so long is lost, seconds
    prefetch: int = 2  # jobs of any length that a worker may hold beyond its slots; 0: none, short ones neither
    prefetch_time: float = 0.005  # jobs that will be done after so long it may hold in any case, seconds
    recall_after: float = 0.005  # an unstarted job is recalled for a free worker after so long, seconds
    max_losses: int = 3  # a job that lost so many workers is poisoned
    max_queued: int = 100_000  # jobs in the queue; more are refused as busy
    max_queued_bytes: int = 512 * MIB  # input of all jobs that have not ended; more is refused as busy
    max_module_bytes: int = 256 * MIB
    max_stdin_bytes: int = 16 * MIB
    max_request_bytes: int = 32 * MIB  # all bodies of one request together
    store_bytes: int = 2 * GIB  # modules kept; least recently used goes first
    result_ttl: float = 300.0  # a result is kept for so long after the job's end, seconds
    results_bytes: int = 256 * MIB  # results kept; the oldest goes first
    result_keep: float = 60.0  # a worker keeps an unacknowledged result for so long, seconds
    inline_bytes: int = 256 * KIB  # a module or an input up to this size rides along with a dispatch
    window_bytes: int = MIB  # pieces on their way between the broker and one worker, at most
    resend: float = 10.0  # a waiting client sends its request again after so long, seconds
    max_wait: float = 30.0  # the longest wait of one ``get_result``, seconds
    busy_retry: float = 0.5  # what a refused client is told to wait, seconds
    quotas: QuotaSettings = QuotaSettings()
    awake: float | None = None  # processors don't sleep for so long after a job's step, seconds; None: see ``Awake``

    def __post_init__(self) -> None:
        _positive(self)
        if self.liveness < 2 * self.heartbeat:
            raise BadSetting(f"liveness ({self.liveness:g} s) must be at least twice heartbeat ({self.heartbeat:g} s).")
        if self.max_request_bytes < self.max_stdin_bytes:
            raise BadSetting("max_request_bytes must be at least max_stdin_bytes.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job gets when it asks for nothing, or the most that it can ask for."""

    timeout: float  # wall time from the guest's start, seconds
    memory_bytes: int  # all memories and tables of the guest together
    output_bytes: int  # stdout and stderr together


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves."""

    slots: int = 1  # guests at a time
    default: Limits = Limits(timeout=30.0, memory_bytes=256 * MIB, output_bytes=4 * MIB)
    ceiling: Limits = Limits(timeout=3600.0, memory_bytes=4 * GIB, output_bytes=64 * MIB)
    compile_timeout: float = 120.0  # wall time of one compilation, at most, seconds; small modules get less
    compile_memory_bytes: int = 4 * GIB  # data segment of the compiler process
    compiler: str = "tiered"  # one of COMPILERS
    compilers: int = (
        2  # compilations that jobs wait for at a time, one kept for small modules; and one nobody waits for
    )
    grace: float = 10.0  # running jobs get so long to finish when the worker drains, seconds
    kill_after: float = 0.1  # a guest that outlives its deadline by so long is killed, seconds
    look_every: float = 0.1  # how often the output of a running guest is measured, seconds
    modules_per_runner: int = 16  # loaded modules that a runner keeps; least recently used goes first
    cache_bytes: int = 8 * GIB  # artifacts on disk, and as much again for files; least recently used goes first
    scratch_bytes: int = 256 * MIB  # the most that a job may ask for as its ``/tmp``; 0: none
    files_bytes: int = GIB  # all files of one job together, at most
    collect_bytes: int = 64 * MIB  # all files that one job brings back together, at most
    walls: str = "best"  # one of WALLS
    fresh_runner: bool = False  # each job gets a process of its own
    awake: float | None = None  # as the broker's

    def __post_init__(self) -> None:
        _positive(self)
        for name in ("timeout", "memory_bytes", "output_bytes"):
            if getattr(self.default, name) > getattr(self.ceiling, name):
                raise BadSetting(f"the default of {name} is above its ceiling.")
        if self.compiler not in COMPILERS:
            raise BadSetting(f"the compiler must be one of {', '.join(COMPILERS)}, not {self.compiler!r}.")
        if self.walls not in WALLS:
            raise BadSetting(f"walls must be one of {', '.join(WALLS)}, not {self.walls!r}.")

    @property
    def runners(self) -> int:
        """Runner processes at a time: where each serves one job only, the next one is ready before it is needed."""
        return 2 * self.slots if self.fresh_runner else self.slots


_MAY_BE_0 = ("prefetch", "grace", "scratch_bytes", "awake")


def _positive(settings: BrokerSettings | WorkerSettings) -> None:
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if type(value) in (int, float) and value < (0 if item.name in _MAY_BE_0 else 1e-9):
            raise BadSetting(f"{item.name} must be positive, not {value:g}.")

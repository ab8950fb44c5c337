"""What the agent's core and the processes under it say to each other: plain values, no I/O.

The core emits orders (``RunOrder``, ``CompileOrder``), ``worker.processes`` carries them out and reports
with the events at the end of this file. Artifacts and outputs are named here, never held.

These are values: nobody changes one that has been made. Those that every job takes are tuples or dataclasses that are
not frozen, since a frozen one takes several times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CORRUPT = "corrupt"
"""In place of a code: the module's bytes do not have the hash that names them, and no compiler will change that."""


class RunOrder(NamedTuple):
    """One run of one guest, complete: a runner needs nothing else but the artifact. It travels as it is."""

    digest: str  # the module, "sha256:" and 64 hex digits
    component: bool  # the artifact is a component, not a core module
    load: bool  # the runner does not hold the module yet: the artifact's descriptor comes along
    evict: tuple[str, ...]  # digests that the runner must drop before it loads this one
    args: tuple[str, ...]  # guest arguments after argv[0]; with ``invoke``, the parameters as text
    env: tuple[tuple[str, str], ...]  # the guest's whole environment
    invoke: str | None  # exported function to call; None runs the command (``_start`` or ``wasi:cli/run``)
    values: bytes | None  # msgpack list of the typed parameters of ``invoke``; None: parse ``args``
    stdin: bytes  # the guest's whole standard input
    timeout_ms: int  # wall time from the guest's start, milliseconds
    memory_bytes: int  # all memories and tables of the guest together, bytes
    output_bytes: int  # stdout and stderr together, bytes; also the bound of ``value``
    unknown_imports: str  # "error": refuse to link; "trap": trap when one is called
    compiler: str = "cranelift"  # whose artifact it is: "cranelift" or "winch"


class HomeOrder(NamedTuple):
    """What the process of one job with files is to have, and what the job brings back."""

    tree: str  # name of the tree of its files; for the processes, the path of that
    scratch: int  # size of its ``/tmp``, bytes; 0: none
    output_bytes: int  # stdout and stderr together, bytes
    collect: tuple[str, ...]  # paths in the guest of what is brought back
    collect_bytes: int  # of all that is brought back together, at most, bytes


class Collected(NamedTuple):
    """What was brought back of a guest's files."""

    files: bytes = b""  # msgpack map of paths to contents, nil for a path where there is nothing; empty: too much
    problem: str = ""  # why it is too much, for people


@dataclass(slots=True)
class CompileOrder:
    """One compilation of one module, in a process of its own."""

    digest: str  # the module, "sha256:" and 64 hex digits
    timeout_ms: int  # wall time of the compiler process, milliseconds
    memory_bytes: int  # data segment of the compiler process, bytes
    compiler: str = "cranelift"  # "cranelift" or "winch"
    background: bool = False  # nobody waits for it: it stands back for all that someone waits for


class Outcome(NamedTuple):
    """How one run ended."""

    code: str | None  # wire code of the failure; None: the guest ran to its end
    message: str  # one sentence for people; empty when code is None
    exit_code: int | None  # the guest's own; None when it was ended, or for ``invoke``
    value: bytes | None  # msgpack of what ``invoke`` returned; None otherwise
    stdout: bytes
    stderr: bytes
    trap: str | None  # wasmtime's name of the trap, as in "integer_divide_by_zero"
    backtrace: str | None  # wasm frames, innermost first, one a line; at most 8 KiB
    load_ms: float  # artifact to module in the runner's memory, milliseconds; 0.0 when it was there
    run_ms: float  # from the guest's start (instantiation included) to its end, milliseconds
    cpu_ms: float  # processor time of the runner during the run, milliseconds
    peak_memory_bytes: int  # guest memory at its largest, bytes


# --- events: what the processes report to the agent's core ------------------------------------------


@dataclass(slots=True)
class RunnerReady:
    """The runner of a slot is primed and waits for an order."""

    slot: int


@dataclass(slots=True)
class RunnerFinished:
    """The runner of a slot ended a run and waits for the next order."""

    slot: int
    outcome: Outcome
    bad_artifact: bool = False  # the guest did not start: the artifact can't be loaded and must be made again
    collected: Collected | None = None  # None: nothing was to be brought back


@dataclass(slots=True)
class RunnerDied:
    """The runner of a slot is gone: killed by the agent, by the kernel, or by its guest."""

    slot: int
    how: str  # for people, as in "killed by SIGKILL" or "exited with 1"
    stdout: bytes  # what the guest had written by then, bytes
    stderr: bytes
    starved: bool = False  # the kernel ended it, for it needed more memory than a runner may have
    unsupported: bool = False  # it was never made: what its job asks for can't be here; ``how`` says why
    collected: Collected | None = None  # None: nothing was to be brought back


@dataclass(slots=True)
class OutputSeen:
    """How much a running guest has written so far; answers a look at a slot."""

    slot: int
    size: int  # stdout and stderr together, bytes


@dataclass(slots=True)
class Measured:
    """How much a running guest has written to each stream so far."""

    slot: int
    stdout: int  # bytes
    stderr: int


@dataclass(slots=True)
class OutputRead:
    """A piece of what a running guest has written; empty where it is not there any more."""

    slot: int
    follower: int  # for whom it was read
    stream: str  # "stdout" or "stderr"
    offset: int  # bytes
    data: bytes


@dataclass(slots=True)
class Poured:
    """So much of a ``Pour`` is in the pipe, or went where nobody reads any more."""

    slot: int
    size: int  # bytes


@dataclass(slots=True)
class CompileFinished:
    """A compilation ended. The artifact is held by the processes' layer under its digest
    and compiler when code is None."""

    digest: str
    compiler: str  # as in the order
    code: str | None  # "invalid_module", "compile_limit", "internal" or CORRUPT; None: the artifact is there
    message: str  # one sentence; empty when code is None
    component: bool  # the artifact is a component, not a core module
    size: int  # of the artifact, bytes
    compile_ms: float  # milliseconds


ProcessEvent = RunnerReady | RunnerFinished | RunnerDied | OutputSeen | Measured | OutputRead | Poured | CompileFinished

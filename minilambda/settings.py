"""Settings of the broker and the worker: frozen, validated once, handed down whole.

Sizes are in bytes and times in seconds, unless a name says otherwise.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from minilambda.errors import MinilambdaError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

DEFAULT_ADDRESS = "127.0.0.1:8080"

COMPILERS: dict[str, tuple[str, ...]] = {
    "tiered": ("cranelift", "winch"),
    "cranelift": ("cranelift",),
    "winch": ("winch",),
}
"""What a worker's choice of a compiler means: whose artifacts it uses, the fastest code first. The last one makes a
new module's first artifact, since it is the quickest to compile."""


class BadSetting(MinilambdaError):
    code = "bad_setting"
    sentence = "A setting has a value that it can't have."


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
    prefetch: int = 2  # jobs that a worker may hold beyond its slots, at most
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
    cache_bytes: int = 8 * GIB  # artifacts on disk; least recently used goes first

    def __post_init__(self) -> None:
        _positive(self)
        for name in ("timeout", "memory_bytes", "output_bytes"):
            if getattr(self.default, name) > getattr(self.ceiling, name):
                raise BadSetting(f"the default of {name} is above its ceiling.")
        if self.compiler not in COMPILERS:
            raise BadSetting(f"the compiler must be one of {', '.join(COMPILERS)}, not {self.compiler!r}.")


def _positive(settings: BrokerSettings | WorkerSettings) -> None:
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, (int, float)) and value < (0 if item.name in ("prefetch", "grace") else 1e-9):
            raise BadSetting(f"{item.name} must be positive, not {value:g}.")


# --- texts that people write -------------------------------------------------------------------------

_UNITS = {
    "": 1,
    "b": 1,
    "k": KIB,
    "kb": KIB,
    "kib": KIB,
    "m": MIB,
    "mb": MIB,
    "mib": MIB,
    "g": GIB,
    "gb": GIB,
    "gib": GIB,
}
_TIMES = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")

MAX_SIZE = 2**48
"""The largest size that can be asked for, bytes."""

MAX_DURATION = 366 * 24 * 3600.0
"""The longest time that can be asked for, seconds."""


def parse_size(text: str) -> int:
    """Bytes of a text such as ``512k``, ``64M`` or ``1.5GiB`` (binary units). Raises ``BadSetting``."""
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise BadSetting(f"{text!r} is not a size; write bytes, or a number with K, M or G.")
    size = float(match[1]) * _UNITS[match[2]]
    if size > MAX_SIZE:
        raise BadSetting(f"{text[:40]!r} is more than the {MAX_SIZE // GIB}G that can be asked for.")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds of a text such as ``5``, ``250ms``, ``2m`` or ``1h``. Raises ``BadSetting``."""
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or match[2] not in _TIMES:
        raise BadSetting(f"{text!r} is not a duration; write seconds, or a number with ms, s, m or h.")
    seconds = float(match[1]) * _TIMES[match[2]]
    if seconds > MAX_DURATION:
        raise BadSetting(f"{text[:40]!r} is more than the {MAX_DURATION / 3600:.0f}h that can be asked for.")
    return seconds


def parse_count(text: str, what: str, low: int = 0, high: int = 2**31) -> int:
    """A whole number within bounds. Raises ``BadSetting`` naming ``what``."""
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", text.strip()) or not low <= int(text) <= high:
        raise BadSetting(f"{what} must be a whole number from {low} to {high}, not {text!r}.")
    return int(text)


def endpoint(text: str) -> str:
    """The ZeroMQ endpoint of an address: ``HOST:PORT``, ``tcp://HOST:PORT``, ``[IPV6]:PORT`` or ``ipc://PATH``.

    Port 0 stands for any free port when binding. Raises ``BadSetting`` with what to write instead.
    """
    address = text.strip()
    if not address.isprintable():  # nor is what was not UTF-8
        raise BadSetting(f"{text!r} is not an address: it has characters that can't be printed.")
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "tcp", address
    if scheme in ("http", "https", "ws", "wss"):
        host = rest.split("/", 1)[0]
        raise BadSetting(f"minilambda speaks ZeroMQ, not HTTP: write {host} or tcp://{host}.")
    if scheme == "ipc":
        if not rest or len(rest.encode()) > 100:
            raise BadSetting("ipc:// needs a path of at most 100 bytes.")
        return f"ipc://{rest}"
    if scheme != "tcp":
        raise BadSetting(f"{scheme}:// is not a transport here; write HOST:PORT, tcp://HOST:PORT or ipc://PATH.")
    match = re.fullmatch(r"(\[[A-Za-z0-9:.%_-]+\]|[A-Za-z0-9._-]+|\*):([0-9]{1,5})", rest)
    if match is None or int(match[2]) > 65535:
        more = "" if rest.isascii() else " A host with other letters than a to z is written in its ASCII form, xn--…."
        raise BadSetting(
            f"{text!r} is not an address; write HOST:PORT (IPv6 as [HOST]:PORT), tcp://HOST:PORT or ipc://PATH.{more}"
        )
    return f"tcp://{match[1]}:{match[2]}"


def peer_endpoint(text: str) -> str:
    """The endpoint of an address to connect to: as ``endpoint``, but it has to name one place."""
    found = endpoint(text)
    if found.startswith("tcp://*:") or re.fullmatch("tcp://.*:0+", found):
        raise BadSetting(f"{text!r} is an address to listen on; to connect, write the host and the port of the broker.")
    return found

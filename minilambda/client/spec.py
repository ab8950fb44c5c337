"""What a caller asks for, as a job's specification."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import msgpack

from minilambda.client.files import DirLike, FileLike, check_path, together
from minilambda.errors import BadArguments
from minilambda.fields import MAX_COLLECTED
from minilambda.messages import JobSpec
from minilambda.notation import MAX_DURATION, MAX_SIZE, MIB, parse_size
from minilambda.paths import refusal


class RunOptions(TypedDict, total=False):
    """How to run a job. What is left out has the default of the broker or the worker."""

    stdin: bytes | str  # the guest's whole standard input; text becomes UTF-8
    env: Mapping[str, str]  # the guest's whole environment; nothing of the caller's is passed on
    invoke: str  # exported function to call, ``args`` being its parameters as text
    timeout: float  # wall time from the guest's start, seconds
    queue_timeout: float  # longest wait for a worker, seconds
    memory: int | str  # all memories and tables of the guest together, bytes or text such as "64M"
    output_limit: int | str  # stdout and stderr together, bytes or text
    retries: int  # runs again at most so often after a lost worker
    priority: int  # -100 to 100; higher goes first, within one group
    group: str  # the broker is fair between the groups of one principal
    unknown_imports: str  # "error", or "trap": link them, and trap when one is called
    if_no_workers: str  # "wait", or "fail": refuse with ``NoWorkers``
    interactive: bool  # standard input goes on after ``stdin`` while the job runs; such a job is never run again
    files: Mapping[str, FileLike]  # absolute path in the guest to a path here, bytes or a handle; read-only there
    dirs: Mapping[str, DirLike]  # absolute path in the guest to a folder here, whose files are there, read-only
    scratch: int | str  # size of a ``/tmp`` that the guest can write to, bytes or text such as "16M"
    collect: Sequence[str]  # paths of files and folders in ``/tmp`` that come back; without ``scratch`` it is 64 MiB
    job_id: str  # the job's id; sending the same job again under its id does not run it again
    traceparent: str  # W3C trace context of the caller, for a broker that sends spans


def job_spec(module: str, args: Sequence[str | os.PathLike[str]], options: RunOptions) -> JobSpec:
    """The specification of a job. Raises ``TypeError`` or ``ValueError`` for options that no broker would take.

    ``files`` and ``dirs`` must be as ``Files.ready`` makes them.
    """
    if isinstance(args, (str, bytes)):
        raise TypeError("args must be a list of texts, not one text.")
    given: dict[str, Any] = {}
    for name, value in options.items():
        if name in _APART:
            continue
        if name not in _FIELDS:
            raise TypeError(f"{name!r} is not an option of a run.")
        field, read = _FIELDS[name]
        given[field] = read(name, value)
    if "files" in options or "dirs" in options or "collect" in options:
        _place(given, options)
    return JobSpec(module, tuple([os.fspath(arg) for arg in args]), **given)


def stdin_bytes(options: RunOptions) -> bytes:
    """The guest's standard input."""
    stdin = options.get("stdin", b"")
    if isinstance(stdin, str):
        return stdin.encode()
    if isinstance(stdin, (bytes, bytearray, memoryview)):
        return bytes(stdin)
    raise TypeError(f"stdin must be bytes or text, not {type(stdin).__name__}.")


def typed_values(values: Sequence[Any]) -> bytes:
    """The parameters of an exported function, as the protocol carries them. Raises ``BadArguments``."""
    try:
        return bytes(msgpack.packb(list(values)))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadArguments(f"The parameters can't be sent: {error}.") from None


def _place(given: dict[str, Any], options: RunOptions) -> None:
    """What the options say of files."""
    files = given["files"] = together(options.get("files"), options.get("dirs"))
    collect = given.get("collect", ())
    if collect and not given.get("scratch"):
        given["scratch"] = SCRATCH_BYTES
    problem = refusal(files, given.get("scratch", 0), collect)
    if problem:
        raise ValueError(problem)


def _paths(name: str, paths: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(paths, (str, bytes)):
        raise TypeError(f"{name} must be a list of paths, not one path.")
    found = tuple(paths or ())
    for path in found:
        check_path(path)
    if len(found) > MAX_COLLECTED:
        raise ValueError(f"{name} can have {MAX_COLLECTED} paths, not {len(found)}; name their folder instead.")
    return found


def _as_it_is(_: str, value: Any) -> Any:
    return value


def _texts(_: str, value: Mapping[str, str] | None) -> dict[str, str]:
    return dict(value or {})


def _millis(name: str, seconds: float | None) -> int:
    if seconds is None:
        return 0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}.")
    if seconds > MAX_DURATION:
        raise ValueError(f"{name} must be at most {MAX_DURATION:.0f} seconds, not {seconds!r}.")
    return max(1, round(seconds * 1000))


def _size(name: str, size: int | str | None) -> int:
    if size is None:
        return 0
    number = parse_size(size) if isinstance(size, str) else size
    if type(number) is not int or number <= 0:
        raise ValueError(f"{name} must be a positive number of bytes, not {size!r}.")
    if number > MAX_SIZE:
        raise ValueError(f"{name} must be at most {MAX_SIZE} bytes.")
    return number


_APART = frozenset({"stdin", "job_id", "traceparent", "files", "dirs"})
"""Options that are not part of the specification, or not as they are."""

SCRATCH_BYTES = 64 * MIB
"""Size of the scratch of a job that wants something back and does not say how much it may write, bytes."""

_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "env": ("env", _texts),
    "invoke": ("invoke", _as_it_is),
    "unknown_imports": ("unknown_imports", _as_it_is),
    "timeout": ("timeout_ms", _millis),
    "queue_timeout": ("queue_timeout_ms", _millis),
    "memory": ("memory_bytes", _size),
    "output_limit": ("output_bytes", _size),
    "retries": ("retries", _as_it_is),
    "priority": ("priority", _as_it_is),
    "group": ("group", _as_it_is),
    "if_no_workers": ("if_no_workers", _as_it_is),
    "interactive": ("stream", _as_it_is),
    "scratch": ("scratch", _size),
    "collect": ("collect", _paths),
}
"""Option to the field of the specification, and what makes a value of the field of it."""

"""Functions as a client has them: the requests about them, for every kind of client, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, cast

from minilambda.client.spec import RunOptions, job_spec, stdin_bytes
from minilambda.messages import Call, Deploy, Deployed, FunctionList, JobSpec, SetAlias

if TYPE_CHECKING:
    import os


class CallOptions(TypedDict, total=False):
    """How to call a function. What is left out is as its version has it."""

    stdin: bytes | str  # the guest's whole standard input; text becomes UTF-8
    env: Mapping[str, str]  # variables that go over those of the version
    invoke: str  # exported function to call
    timeout: float  # wall time from the guest's start, seconds
    group: str  # the broker is fair between the groups of one principal
    traceparent: str  # W3C trace context of the caller, for a broker that sends spans
    job_id: str  # the job's id; sending the same call again under its id does not run it again


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """One version of a function, which never changes. As text it is what calls it: ``NAME@VERSION``."""

    function: str
    version: int  # from 1; 0: all of them, where they are gone
    alias: str = ""  # that names it now, where the request was about one

    def __str__(self) -> str:
        return f"{self.function}@{self.version}"


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function that the broker knows: the version that is called, or one of its versions."""

    function: str
    version: int
    module: str  # "sha256:" and 64 hex digits
    aliases: tuple[str, ...]  # that name this version
    age_ms: int  # since the version was made, milliseconds
    shared: bool  # everybody may call it
    principal: str  # whose it is
    invoke: str = ""  # exported function that it calls; "" runs the command
    versions: int = 1  # that there are


def deploy_request(function: str, spec: JobSpec, options: RunOptions, alias: str, shared: bool) -> Deploy:
    """The request that makes a version, of a specification that these options have made.

    Raises ``ValueError`` for options that a version can't have.
    """
    apart = [name for name in ("stdin", "job_id", "traceparent", "interactive") if options.get(name)]
    if apart:
        raise ValueError(f"{apart[0]!r} is for a job, not for a function.")
    return Deploy(0, function, spec, alias, shared)


def call_request(
    job_id: str,
    reference: str,
    args: Sequence[str | os.PathLike[str]] | None,
    options: CallOptions,
    values: bytes = b"",
    detach: bool = False,
) -> Call:
    """The request that calls a function. Raises ``TypeError`` or ``ValueError`` for one that no broker would take."""
    unknown = options.keys() - CallOptions.__optional_keys__
    if unknown:
        raise TypeError(f"{min(unknown)!r} is not an option of a call.")
    given = cast(RunOptions, options)
    spec = job_spec("", args or (), given)
    return Call(
        0,
        options.get("job_id") or job_id,
        reference,
        None if args is None else spec.args,
        spec.env,
        spec.invoke,
        spec.timeout_ms,
        spec.group,
        detach,
        traceparent=options.get("traceparent") or "",
        stdin=stdin_bytes(given),
        values=values,
    )


def alias_request(function: str, alias: str, version: int, known: Sequence[FunctionInfo]) -> SetAlias:
    """The request that moves an alias to a version, or to the one before by 0.

    ``known`` are the versions of the function: a roll-back names the one that it leaves, so that one which is sent
    again goes back once.
    """
    if version:
        return SetAlias(0, function, alias, version)
    return SetAlias(0, function, alias, leaving=next((each.version for each in known if alias in each.aliases), 0))


def version_of(reply: Deployed) -> FunctionVersion:
    """The version in a broker's reply."""
    return FunctionVersion(reply.function, reply.version, reply.alias)


def function_infos(reply: FunctionList) -> list[FunctionInfo]:
    """The list in a broker's reply; what the broker leaves out is empty."""
    return [_function_info(row) for row in reply.functions]


def _function_info(row: Mapping[str, Any]) -> FunctionInfo:
    aliases = row.get("aliases", ())
    return FunctionInfo(
        function=str(row.get("function", "")),
        version=_number(row, "version"),
        module=str(row.get("module", "")),
        aliases=tuple(map(str, aliases)) if isinstance(aliases, (list, tuple)) else (),
        age_ms=_number(row, "age_ms"),
        shared=bool(row.get("shared", False)),
        principal=str(row.get("principal", "")),
        invoke=str(row.get("invoke", "")),
        versions=_number(row, "versions"),
    )


def _number(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key, 0)
    return int(value) if isinstance(value, (int, float)) else 0

"""Messages about functions: modules that the broker keeps under a name, in numbered versions.

A *version* is a whole job specification, module included; it never changes. An *alias* is a name for one version and
may be moved. A function is called as ``NAME``, which is the alias ``live``, ``NAME@VERSION`` or ``NAME@ALIAS``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from minilambda.fields import Count, Flag, JobId, Label, Millis, TextMap, Texts, pattern
from minilambda.messages.parts import Body, JobSpec, Message, Reply, Request, Rows

Name = Annotated[str, pattern(r"[A-Za-z][A-Za-z0-9_-]{0,63}", "a letter and up to 63 of A-Z a-z 0-9 _ -")]
Reference = Annotated[
    str, pattern(r"[A-Za-z][A-Za-z0-9_-]{0,63}(@[A-Za-z0-9_-]{1,64})?", "NAME, NAME@VERSION or NAME@ALIAS")
]

LIVE = "live"
"""The alias that is called where none is named."""

# --- client to broker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Deploy(Request):
    """Make a version. One with the specification of the newest version is that version."""

    TYPE: ClassVar[str] = "deploy"
    function: Name
    spec: JobSpec  # what a call runs, unless it says otherwise
    alias: Label = LIVE  # moved to the version; "": none is
    shared: Flag = False  # everybody may call it; for an admin, where there are keys
    wasm: Body = b""  # the module's bytes; empty when the broker has them


@dataclass(slots=True, unsafe_hash=True)
class SetAlias(Request):
    """Move an alias to a version, or to the one before: a roll-back. Answered with ``deployed``."""

    TYPE: ClassVar[str] = "set_alias"
    function: Name
    alias: Name
    version: Count = 0  # 0: the version that it named before this one
    leaving: Count = 0  # with ``version`` 0: only where it names this one, so that it goes back once if sent twice
    drop: Flag = False  # there is no such alias any more


@dataclass(slots=True, unsafe_hash=True)
class Undeploy(Request):
    """Forget one version that no alias names, or the whole function. Jobs of it go on."""

    TYPE: ClassVar[str] = "undeploy"
    function: Name
    version: Count = 0  # 0: all


@dataclass(slots=True, unsafe_hash=True)
class ListFunctions(Request):
    """The sender's functions, and those that are shared."""

    TYPE: ClassVar[str] = "list_functions"
    function: Label = ""  # only this one, with all its versions; "": all
    principal: Label = ""  # whose, for an admin; "*": everybody's; "": the sender's own and those that are shared


@dataclass(slots=True, unsafe_hash=True)
class Call(Request):
    """Run a function. What is left out is as its version has it. Answered as a ``run`` is."""

    TYPE: ClassVar[str] = "call"
    job: JobId
    function: Reference
    args: Texts | None = None
    env: TextMap = field(default_factory=dict)  # these go over those of the version
    invoke: Label | None = None
    timeout_ms: Millis = 0
    group: Label = ""
    detach: Flag = False
    again: Flag = False  # this job was sent before, so a worker may have had it
    traceparent: Label = ""  # as in ``run``
    stdin: Body = b""
    values: Body = b""


# --- broker to client --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Deployed(Reply):
    TYPE: ClassVar[str] = "deployed"
    function: Name
    version: Count  # that was made, that the alias names now, or that is gone; 0: all are
    alias: Label = ""  # that names it now


@dataclass(slots=True, unsafe_hash=True)
class FunctionList(Reply):
    TYPE: ClassVar[str] = "functions"
    functions: Rows  # maps of function, version, module, aliases (texts), age_ms, shared, principal, invoke, versions


REQUESTS: tuple[type[Message], ...] = (Deploy, SetAlias, Undeploy, ListFunctions, Call)
REPLIES: tuple[type[Message], ...] = (Deployed, FunctionList)

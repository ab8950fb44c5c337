"""What the blocking client can do with functions: modules that the broker keeps under a name, in versions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from minilambda.client.job import Job
from minilambda.client.requests import QUICK, Requests
from minilambda.client.spec import RunOptions, typed_values
from minilambda.messages import (
    LIVE,
    Call,
    Deployed,
    FunctionList,
    ListFunctions,
    Reply,
    Request,
    Run,
    SetAlias,
    Undeploy,
)

if TYPE_CHECKING:
    import os

    from typing_extensions import Unpack

    from minilambda.client.attended import Attended, OnOutput
    from minilambda.client.functions import CallOptions, FunctionInfo, FunctionVersion
    from minilambda.client.link import Link
    from minilambda.client.modules import Module, ModuleLike
    from minilambda.client.results import RunResult


class FunctionMethods(ABC):
    """The methods. A function is called as ``NAME``, its alias ``live``, as ``NAME@VERSION`` or as ``NAME@ALIAS``."""

    _requests: Requests

    # --- calls ----------------------------------------------------------------------------------------

    def run_function(
        self,
        reference: str,
        args: Sequence[str | os.PathLike[str]] | None = None,
        *,
        check: bool = True,
        wait: float | None = None,
        on_output: OnOutput | None = None,
        **options: Unpack[CallOptions],
    ) -> RunResult:
        """Call a function and wait for its result, as ``run`` does with a module; what is left out is as its version
        has it. Raises ``NotFound`` for a function, a version or an alias that is not there.
        """
        by: Link | Attended = self.link()
        if on_output is not None:
            from minilambda.client.attended import Attended  # noqa: PLC0415 - few programs need it

            by = Attended(self.link(), on_output, None)
        return self._run(None, self._call(reference, args, options), check, wait, by)

    def call_function(self, reference: str, *values: Any, **options: Unpack[CallOptions]) -> Any:
        """Call a function with typed values and return its value, as ``call`` does; its version names the export."""
        request = self._call(reference, (), options, typed_values(values))
        return self._run(None, request, True, None, self.link()).value

    def submit_function(
        self, reference: str, args: Sequence[str | os.PathLike[str]] | None = None, **options: Unpack[CallOptions]
    ) -> Job:
        """Call a function and return at once; the job goes on without this client."""
        request = self._call(reference, args, options, detach=True)
        self.link().perform(request)
        return self.job(request.job)

    def _call(
        self,
        reference: str,
        args: Sequence[str | os.PathLike[str]] | None,
        options: CallOptions,
        values: bytes = b"",
        detach: bool = False,
    ) -> Call:
        from minilambda.client.functions import call_request  # noqa: PLC0415

        return call_request(self._requests.job_id(), reference, args, options, values, detach)

    # --- versions and aliases -------------------------------------------------------------------------

    def deploy(
        self,
        function: str,
        module: ModuleLike,
        args: Sequence[str | os.PathLike[str]] = (),
        *,
        alias: str = LIVE,
        shared: bool = False,
        **options: Unpack[RunOptions],
    ) -> FunctionVersion:
        """Make a version of a function, which runs the module with these arguments and options unless a call says
        otherwise, and move ``alias`` to it ("": none). With ``shared`` everybody may call it; that is for an admin.

        The version that is there already is taken where the newest one is the same. Input does not belong to a version.
        """
        from minilambda.client.functions import deploy_request, version_of  # noqa: PLC0415

        handle = self._find(module)
        request = deploy_request(function, self._requests.spec(handle, args, options), options, alias, shared)
        return version_of(cast(Deployed, self.link().perform(request, handle)))

    def set_alias(self, function: str, alias: str, version: int = 0) -> FunctionVersion:
        """Let an alias name a version, or by 0 the one that it named before: a roll-back. Returns what it names now.

        Raises ``NotFound``, and ``Conflict`` where there is nothing to go back to.
        """
        from minilambda.client.functions import alias_request, version_of  # noqa: PLC0415

        request = alias_request(function, alias, version, () if version else self.functions(function))
        return version_of(cast(Deployed, self.ask(request)))

    def drop_alias(self, function: str, alias: str) -> FunctionVersion:
        """Forget an alias. Returns the version that it named. Raises ``NotFound``."""
        from minilambda.client.functions import version_of  # noqa: PLC0415

        return version_of(cast(Deployed, self.ask(SetAlias(0, function, alias, drop=True))))

    def undeploy(self, function: str, version: int = 0) -> None:
        """Forget a version that no alias names, or by 0 the whole function. Jobs of it go on.

        Raises ``NotFound``, and ``Conflict`` where an alias names the version.
        """
        self.ask(Undeploy(0, function, version))

    def functions(self, function: str = "", principal: str = "") -> list[FunctionInfo]:
        """One's own functions and those that are shared, each as it is called; or all versions of one, newest first.

        An admin may ask for those of another ``principal``, or of everybody by ``"*"``.
        """
        from minilambda.client.functions import function_infos  # noqa: PLC0415

        return function_infos(cast(FunctionList, self.ask(ListFunctions(0, function, principal))))

    # --- what a client has ----------------------------------------------------------------------------

    @abstractmethod
    def link(self) -> Link:
        """The connection."""

    @abstractmethod
    def ask(self, message: Request, patience: float = QUICK) -> Reply:
        """One request and its reply."""

    @abstractmethod
    def job(self, job_id: str, principal: str = "") -> Job:
        """The handle of a job."""

    @abstractmethod
    def _find(self, module: ModuleLike) -> Module:
        """The handle of a module."""

    @abstractmethod
    def _run(
        self, module: Module | None, request: Run | Call, check: bool, wait: float | None, by: Link | Attended
    ) -> RunResult:
        """A job from start to end; it is cancelled where its caller does not wait for that."""

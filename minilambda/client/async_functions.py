"""What the asyncio client can do with functions; ``FunctionMethods`` as coroutines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from minilambda.client.async_job import AsyncJob
from minilambda.client.functions import (
    CallOptions,
    FunctionInfo,
    FunctionVersion,
    alias_request,
    call_request,
    deploy_request,
    function_infos,
    version_of,
)
from minilambda.client.live import Chunk
from minilambda.client.requests import QUICK, Requests
from minilambda.client.results import finished
from minilambda.client.spec import RunOptions, typed_values
from minilambda.messages import (
    LIVE,
    Call,
    Deployed,
    FunctionList,
    JobResult,
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

    from minilambda.client.async_link import AsyncLink
    from minilambda.client.modules import Module, ModuleLike
    from minilambda.client.results import RunResult


class AsyncFunctionMethods(ABC):
    """The methods. A function is called as ``NAME``, its alias ``live``, as ``NAME@VERSION`` or as ``NAME@ALIAS``."""

    _requests: Requests

    # --- calls ----------------------------------------------------------------------------------------

    async def run_function(
        self,
        reference: str,
        args: Sequence[str | os.PathLike[str]] | None = None,
        *,
        check: bool = True,
        wait: float | None = None,
        on_output: Callable[[Chunk], object] | None = None,
        **options: Unpack[CallOptions],
    ) -> RunResult:
        """Call a function and wait for its result, as ``run`` does with a module; what is left out is as its version
        has it. Raises ``NotFound`` for a function, a version or an alias that is not there.
        """
        request = call_request(self._requests.job_id(), reference, args, options)
        return finished(await self._reply(request, None, wait, on_output), check)

    async def call_function(self, reference: str, *values: Any, **options: Unpack[CallOptions]) -> Any:
        """Call a function with typed values and return its value, as ``call`` does; its version names the export."""
        request = call_request(self._requests.job_id(), reference, (), options, typed_values(values))
        return finished(await self._reply(request), True).value

    async def submit_function(
        self, reference: str, args: Sequence[str | os.PathLike[str]] | None = None, **options: Unpack[CallOptions]
    ) -> AsyncJob:
        """Call a function and return at once; the job goes on without this client."""
        request = call_request(self._requests.job_id(), reference, args, options, detach=True)
        await self.link().perform(request)
        return self.job(request.job)

    # --- versions and aliases -------------------------------------------------------------------------

    async def deploy(
        self,
        function: str,
        module: ModuleLike,
        args: Sequence[str | os.PathLike[str]] = (),
        *,
        alias: str = LIVE,
        shared: bool = False,
        **options: Unpack[RunOptions],
    ) -> FunctionVersion:
        """Make a version of a function, and move ``alias`` to it, as ``Client.deploy`` does."""
        handle, options = await self.module(module), await self._ready(options)
        request = deploy_request(function, self._requests.spec(handle, args, options), options, alias, shared)
        return version_of(cast(Deployed, await self.link().perform(request, handle)))

    async def set_alias(self, function: str, alias: str, version: int = 0) -> FunctionVersion:
        """Let an alias name a version, or by 0 the one that it named before: a roll-back. Returns what it names now.

        Raises ``NotFound``, and ``Conflict`` where there is nothing to go back to.
        """
        request = alias_request(function, alias, version, () if version else await self.functions(function))
        return version_of(cast(Deployed, await self.ask(request)))

    async def drop_alias(self, function: str, alias: str) -> FunctionVersion:
        """Forget an alias. Returns the version that it named. Raises ``NotFound``."""
        return version_of(cast(Deployed, await self.ask(SetAlias(0, function, alias, drop=True))))

    async def undeploy(self, function: str, version: int = 0) -> None:
        """Forget a version that no alias names, or by 0 the whole function. Jobs of it go on.

        Raises ``NotFound``, and ``Conflict`` where an alias names the version.
        """
        await self.ask(Undeploy(0, function, version))

    async def functions(self, function: str = "", principal: str = "") -> list[FunctionInfo]:
        """One's own functions and those that are shared, as ``Client.functions`` tells them."""
        return function_infos(cast(FunctionList, await self.ask(ListFunctions(0, function, principal))))

    # --- what a client has ----------------------------------------------------------------------------

    @abstractmethod
    def link(self) -> AsyncLink:
        """The connection."""

    @abstractmethod
    async def ask(self, message: Request, patience: float = QUICK) -> Reply:
        """One request and its reply."""

    @abstractmethod
    def job(self, job_id: str, principal: str = "") -> AsyncJob:
        """The handle of a job."""

    @abstractmethod
    async def module(self, module: ModuleLike) -> Module:
        """The handle of a module."""

    @abstractmethod
    async def _ready(self, options: RunOptions) -> RunOptions:
        """The options with their files found."""

    @abstractmethod
    def _reply(
        self,
        request: Run | Call,
        module: Module | None = None,
        wait: float | None = None,
        on_output: Callable[[Chunk], object] | None = None,
    ) -> Awaitable[JobResult]:
        """The end of a job, which is cancelled where nobody waits for it. Not a coroutine, which jobs would hold."""

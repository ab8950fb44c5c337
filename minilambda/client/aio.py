"""The client for programs that use asyncio."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import zmq

from minilambda.client.async_functions import AsyncFunctionMethods
from minilambda.client.async_job import AsyncJob
from minilambda.client.async_link import AsyncLink
from minilambda.client.async_lists import AsyncLists
from minilambda.client.async_live import attended
from minilambda.client.async_mapping import AsyncPipeline
from minilambda.client.async_modules import AsyncModules
from minilambda.client.calls import Patience
from minilambda.client.connection import Progress
from minilambda.client.live import Chunk
from minilambda.client.mapping import Input
from minilambda.client.modules import Module, ModuleLike
from minilambda.client.requests import QUICK, Requests, upload
from minilambda.client.results import RunResult, finished
from minilambda.client.spec import RunOptions, typed_values
from minilambda.curve import load_peer_keys
from minilambda.messages import Call, JobResult, Reply, Request, Run
from minilambda.notation import DEFAULT_ADDRESS, endpoint
from minilambda.sockets import seed_libzmq

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncClient(AsyncFunctionMethods, AsyncLists):
    """A connection to a broker for the tasks of one event loop.

    It has the names of ``Client``, as coroutines; all tasks share one connection and any number of jobs may be under
    way. It takes the same arguments, connects when it is first used, and comes back and raises as ``Client`` does.
    Cancelling a task that waits for a job cancels the job.

    It belongs to the loop that it is first used in, and to the process that made it. Once that loop is closed it can be
    used in another.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        connect_timeout: float = 5.0,
        lost_timeout: float = 60.0,
        busy_timeout: float = 30.0,
        key: str | os.PathLike[str] | None = None,
        server_key: str | os.PathLike[str] | None = None,
    ) -> None:
        self.endpoint: str = endpoint(address)
        self._patience = Patience(connect_timeout, lost_timeout, busy_timeout, random.random())
        self._keys = load_peer_keys(key, server_key)
        self._process = os.getpid()
        self._modules = AsyncModules()
        self._requests = Requests()
        self._context: zmq.Context[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that the connection belongs to
        self._link: AsyncLink | None = None
        self._closed = False

    async def __aenter__(self) -> AsyncClient:
        self._live()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._link is None or os.getpid() != self._process:
            return
        context, loop = self._context, self._link.loop
        end = partial(_abandon, self._link, context)
        if loop.is_running():
            loop.call_soon_threadsafe(end)
        else:
            end()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.endpoint}{' closed' if self._closed else ''}>"

    async def close(self) -> None:
        """Close the connection. Jobs that were submitted go on; those that somebody waits for are cancelled."""
        if self._closed or os.getpid() != self._process:
            return
        link = None if self._link is None else self._live()
        self._closed, self._link = True, None
        try:
            if link is not None:
                await link.leave()
        finally:
            if self._context is not None:
                self._context.destroy(linger=0)  # it would wait for ever for a socket that is left open

    # --- jobs -----------------------------------------------------------------------------------------

    async def run(
        self,
        module: ModuleLike,
        args: Sequence[str | os.PathLike[str]] = (),
        *,
        check: bool = True,
        wait: float | None = None,
        on_output: Callable[[Chunk], object] | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Run a module and wait for its result.

        ``options`` are those of ``RunOptions``. A job that failed or was cancelled raises the class of
        ``minilambda.errors`` that says why, with the result in its ``result``; with ``check=False`` it is returned.
        A guest that exits with another code than 0 is a completed job and raises nothing. After ``wait`` seconds
        the job is cancelled and ``TimeoutError`` raised; it is cancelled with the task, too.

        ``on_output`` is called with each ``Chunk`` that the guest writes, as it writes it; the result has the whole all
        the same. What it raises cancels the job and comes out here.
        """
        handle, options = await self.module(module), await self._ready(options)
        request = self._requests.run(handle, args, options)
        return finished(await self._reply(request, handle, wait, on_output), check)

    async def call(self, module: ModuleLike, export: str, *values: Any, **options: Unpack[RunOptions]) -> Any:
        """Call an exported function with typed values and return its value; raises as ``run`` does.

        The values are those of ``Client.call``.
        """
        handle, options = await self.module(module), await self._ready(options)
        options["invoke"] = export
        request = self._requests.run(handle, (), options, typed_values(values))
        return finished(await self._reply(request, handle), True).value

    async def submit(
        self, module: ModuleLike, args: Sequence[str | os.PathLike[str]] = (), **options: Unpack[RunOptions]
    ) -> AsyncJob:
        """Hand a job to the broker and return at once; the job goes on without this client."""
        handle, options = await self.module(module), await self._ready(options)
        request = self._requests.run(handle, args, options, detach=True)
        await self._live().perform(request, handle)
        return AsyncJob(self, request.job)

    def job(self, job_id: str, principal: str = "") -> AsyncJob:
        """The handle of a job by its id, whoever submitted it; an admin's client names the principal of another's."""
        return AsyncJob(self, job_id, principal)

    async def map(
        self,
        module: ModuleLike,
        inputs: Iterable[Input] | AsyncIterable[Input],
        *,
        window: int = 64,
        ordered: bool = True,
        check: bool = True,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[RunResult, None]:
        """Run one module over many inputs at a time, and yield the results as they come: ``async for … in map(…)``.

        It is ``Client.map``, on the client's own connection. The inputs may be an asynchronous iterable too. Leaving
        the loop early leaves jobs running until the generator is closed; ``contextlib.aclosing`` does that at once.
        """
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}.")
        handle, options = await self.module(module), await self._ready(options)

        def job(item: Input) -> Run:
            return self._requests.of_input(handle, item, options)

        pipeline = AsyncPipeline(self._live(), handle, window, ordered)
        async for result in pipeline.run(inputs, job, check):
            yield result

    # --- modules --------------------------------------------------------------------------------------

    async def module(self, module: ModuleLike) -> Module:
        """The handle of a module, without sending it. A large file is read in steps between which other tasks go on.

        Raises ``OSError`` for a file that can't be read, and ``ModuleTooLarge`` for a very large one that this broker
        does not take.
        """
        return await self._modules.find(module, self._largest)

    async def upload(self, module: ModuleLike, progress: Progress | None = None) -> Module:
        """Give the broker a module ahead of the first job, if it lacks it, and return its handle.

        ``progress(sent, size)`` is called as the bytes go, both in bytes.
        """
        handle = await self.module(module)
        link, put = self._live(), upload(handle)
        if progress is not None:
            link.progress[handle.digest] = progress
        try:
            await link.perform(put, handle)
        finally:
            link.progress.pop(handle.digest, None)
        return handle

    async def ask(self, message: Request, patience: float = QUICK) -> Reply:
        """One request and its reply, for what has no method of its own. ``patience`` is in seconds."""
        return await self._live().perform(message, patience=patience)

    def link(self) -> AsyncLink:
        """The connection, for what has no method of its own."""
        return self._live()

    def new_job_id(self) -> str:
        """An id that no other job has."""
        return self._requests.job_id()

    # --- inside ---------------------------------------------------------------------------------------

    async def _ready(self, options: RunOptions) -> RunOptions:
        """Whole folders may have to be read for the options: that is done in a thread, and other tasks go on."""
        if "files" in options or "dirs" in options:
            return await asyncio.to_thread(self._requests.files.ready, options)
        return options

    def _reply(
        self,
        request: Run | Call,
        module: Module | None = None,
        wait: float | None = None,
        on_output: Callable[[Chunk], object] | None = None,
    ) -> Awaitable[JobResult]:
        if on_output is not None:
            return attended(self._live(), request, module, wait, on_output)
        return cast("Awaitable[JobResult]", self._live().perform(request, module, wait))

    async def _largest(self) -> float:
        """The largest module that the broker takes, bytes."""
        return (self._live().core.welcome or await self.limits()).max_module_bytes

    def _live(self) -> AsyncLink:
        if os.getpid() != self._process:
            raise RuntimeError("This client was made before a fork; make one in each process.")
        loop = asyncio.get_running_loop()
        if self._link is None or loop is not self._loop:
            self._check()
            self._link = self._open(loop)
        return self._link

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("This client is closed.")
        if self._link is not None and self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("This client belongs to another event loop; make one in each loop.")

    def _open(self, loop: asyncio.AbstractEventLoop) -> AsyncLink:
        if self._context is None:
            seed_libzmq()
            self._context = zmq.Context()
        if self._link is not None:
            self._link.close()  # its loop is closed
        self._loop = loop
        return AsyncLink(loop, self._context, self.endpoint, self._patience, self._keys)


def _abandon(link: AsyncLink, context: zmq.Context[Any] | None) -> None:
    """End the connection of a client that nobody has any more: a context would wait for its sockets for ever."""
    link.close()
    if context is not None:
        context.destroy(linger=0)

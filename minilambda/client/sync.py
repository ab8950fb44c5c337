"""The blocking client: what most Python programs use."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import zmq

from minilambda.client.calls import Patience
from minilambda.client.function_methods import FunctionMethods
from minilambda.client.job import Job
from minilambda.client.link import Link
from minilambda.client.mapping import Input, Pipeline
from minilambda.client.modules import Module, ModuleLike, Modules
from minilambda.client.requests import QUICK, Requests, upload
from minilambda.client.results import RunResult, finished
from minilambda.client.spec import RunOptions, typed_values
from minilambda.curve import load_peer_keys
from minilambda.errors import MinilambdaError
from minilambda.messages import (
    Call,
    Cancel,
    Hello,
    JobList,
    ListJobs,
    ListModules,
    ListWorkers,
    ModuleList,
    Reply,
    Request,
    Run,
    Welcome,
    WorkerList,
)
from minilambda.messages.overview import ClientList, GetOverview, ListClients
from minilambda.messages.overview import Overview as OverviewReply
from minilambda.notation import DEFAULT_ADDRESS, endpoint
from minilambda.sockets import seed_libzmq

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minilambda.client.attended import Attended, OnOutput
    from minilambda.client.listings import ClientInfo, Cluster, JobInfo, ModuleInfo, Overview, WorkerInfo

_INTERRUPTED = 1.0  # an interrupted call gives the broker so long to take note of the cancel, seconds


class Client(FunctionMethods):
    """A connection to a broker.

    It connects when it is first used, and raises ``Unreachable`` when no broker answers within ``connect_timeout``
    seconds. A connection that is lost later comes back by itself: calls wait ``lost_timeout`` seconds for it. A
    busy broker is asked again for ``busy_timeout`` seconds before ``Busy`` is raised; so is one where the client's
    quota has no place, but longer where other calls of the connection are under way, before ``QuotaExceeded`` is.

    A broker with keys wants ``key``, the name or path of one's own key file, and ``server_key``, the broker's public
    key or its file. Raises ``BadKey`` for one that can't be used; where they are wrong, calls raise ``KeyRefused``.

    A client belongs to the thread and the process that made it; each thread makes its own.
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
        self._owner = (os.getpid(), threading.get_ident())
        self._modules = Modules()
        self._requests = Requests()
        self._context: zmq.Context[Any] | None = None
        self._link: Link | None = None
        self._maps: weakref.WeakSet[Generator[RunResult, None, None]] = weakref.WeakSet()  # with a connection each
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.endpoint}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Close the connection. Jobs that were submitted go on; what a ``map`` still runs is cancelled."""
        if self._closed or os.getpid() != self._owner[0]:
            return
        for results in list(self._maps):
            results.close()
        self._closed = True
        link, self._link = self._link, None
        try:
            if link is not None:
                link.close()
        finally:
            if self._context is not None:
                self._context.destroy(linger=0)  # it would wait for ever for a socket that is left open

    # --- jobs -----------------------------------------------------------------------------------------

    def run(
        self,
        module: ModuleLike,
        args: Sequence[str | os.PathLike[str]] = (),
        *,
        check: bool = True,
        wait: float | None = None,
        on_output: OnOutput | None = None,
        stdin_fd: int | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Run a module and wait for its result.

        ``options`` are those of ``RunOptions``. A job that failed or was cancelled raises the class of
        ``minilambda.errors`` that says why, with the result in its ``result``; with ``check=False`` it is returned.
        A guest that exits with another code than 0 is a completed job and raises nothing. After ``wait`` seconds
        the job is cancelled and ``TimeoutError`` raised; an interrupt cancels it too.

        ``on_output`` is called with each ``Chunk`` that the guest writes, as it writes it; the result has the whole all
        the same. What it raises cancels the job and comes out here. What can be read from the descriptor ``stdin_fd``
        goes to the guest as it comes, to its end; that makes the job ``interactive``.
        """
        handle = self._find(module)
        by: Link | Attended = self._live()
        if on_output is not None or stdin_fd is not None:
            from minilambda.client.attended import Attended  # noqa: PLC0415 - few programs need it

            by = Attended(self._live(), on_output, stdin_fd)
            options["interactive"] = stdin_fd is not None or options.get("interactive", False)
        return self._run(handle, self._requests.run(handle, args, options), check, wait, by)

    def call(self, module: ModuleLike, export: str, *values: Any, **options: Unpack[RunOptions]) -> Any:
        """Call an exported function with typed values and return its value; raises as ``run`` does.

        Records are dicts, lists and tuples are lists, ``list<u8>`` is bytes, options are the value or None, a
        variant is ``{case: value}``, a result ``{"ok": …}`` or ``{"err": …}``, an enum text, flags a list of texts.
        """
        handle = self._find(module)
        options["invoke"] = export
        request = self._requests.run(handle, (), options, typed_values(values))
        return self._run(handle, request, True, None, self._live()).value

    def submit(
        self, module: ModuleLike, args: Sequence[str | os.PathLike[str]] = (), **options: Unpack[RunOptions]
    ) -> Job:
        """Hand a job to the broker and return at once; the job goes on without this client."""
        handle = self._find(module)
        request = self._requests.run(handle, args, options, detach=True)
        self._live().perform(request, handle)
        return Job(self, request.job)

    def job(self, job_id: str, principal: str = "") -> Job:
        """The handle of a job by its id, whoever submitted it; an admin's client names the principal of another's."""
        return Job(self, job_id, principal)

    def jobs(self, state: str = "", limit: int = 100, principal: str = "") -> list[JobInfo]:
        """The jobs that the broker knows, newest first, at most 1,000: those in a state, or that failed with a code.

        An admin may ask for those of another ``principal``, or of everybody by ``"*"``.
        """
        from minilambda.client.listings import job_info  # noqa: PLC0415 - few programs need it

        reply = cast(JobList, self.ask(ListJobs(0, state, limit, principal)))
        return [job_info(row) for row in reply.jobs]

    def map(
        self,
        module: ModuleLike,
        inputs: Iterable[Input],
        *,
        window: int = 64,
        ordered: bool = True,
        check: bool = True,
        **options: Unpack[RunOptions],
    ) -> Iterator[RunResult]:
        """Run one module over many inputs at a time, on a connection of its own, and yield the results as they come.

        An input is a list of arguments, bytes for stdin, or a dict with run options and ``args``, which go over
        ``options``. At most ``window`` inputs are taken ahead of the results, so memory is bounded on both sides.
        Results come in the order of the inputs, or as they end without ``ordered``; ``index`` tells which is
        which. A job that failed raises when its turn comes, or is yielded with ``check=False``. Leaving the loop
        early cancels what still runs.
        """
        self._check()
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}.")
        handle = self._find(module)
        options = self._requests.files.ready(options)
        jobs = (self._requests.of_input(handle, item, options) for item in inputs)

        def results() -> Generator[RunResult, None, None]:
            self._check()
            with contextlib.closing(self._open()) as link:
                yield from Pipeline(link, handle, window, ordered).run(jobs, check)

        found = results()
        self._maps.add(found)
        return found

    # --- modules and workers --------------------------------------------------------------------------

    def module(self, module: ModuleLike) -> Module:
        """The handle of a module, without sending it.

        Raises ``OSError`` for a file that can't be read, and ``ModuleTooLarge`` for a very large one that this broker
        does not take.
        """
        return self._find(module)

    def upload(self, module: ModuleLike, progress: Callable[[int, int], None] | None = None) -> Module:
        """Give the broker a module ahead of the first job, if it lacks it, and return its handle.

        ``progress(sent, size)`` is called as the bytes go, both in bytes.
        """
        handle = self._find(module)
        put = upload(handle)
        link = self._live()
        if progress is not None:
            link.progress[handle.digest] = progress
        try:
            link.perform(put, handle)
        finally:
            link.progress.clear()
        return handle

    def modules(self) -> list[ModuleInfo]:
        """The modules that the broker has."""
        from minilambda.client.listings import module_info  # noqa: PLC0415

        reply = cast(ModuleList, self.ask(ListModules(0)))
        return [module_info(row) for row in reply.modules]

    def workers(self) -> list[WorkerInfo]:
        """The workers that the broker knows."""
        return self.cluster().workers

    def cluster(self, *, patience: float = QUICK) -> Cluster:
        """The workers, and how many jobs wait for them. ``patience`` is in seconds."""
        from minilambda.client.listings import cluster  # noqa: PLC0415

        return cluster(cast(WorkerList, self.ask(ListWorkers(0), patience)))

    def clients(self) -> list[ClientInfo]:
        """The principals that have jobs, or had some since the broker began. For an admin or an observer."""
        from minilambda.client.listings import client_infos  # noqa: PLC0415

        return client_infos(cast(ClientList, self.ask(ListClients(0))))

    def overview(self) -> Overview:
        """How the broker does. For an admin or an observer."""
        from minilambda.client.listings import overview  # noqa: PLC0415

        return overview(cast(OverviewReply, self.ask(GetOverview(0))))

    # --- inside ---------------------------------------------------------------------------------------

    def _run(
        self, module: Module | None, request: Run | Call, check: bool, wait: float | None, by: Link | Attended
    ) -> RunResult:
        try:
            reply: Any = by.perform(request, module, wait)
        except (KeyboardInterrupt, SystemExit, TimeoutError):
            with contextlib.suppress(MinilambdaError, zmq.ZMQError):
                self._live().perform(Cancel(0, request.job), patience=_INTERRUPTED)
            raise
        return finished(reply, check)

    def limits(self) -> Welcome:
        """What the broker says of itself: its version, its limits and its intervals."""
        return cast(Welcome, self.ask(Hello(0)))

    def _find(self, module: ModuleLike) -> Module:
        return self._modules.find(module, self._largest)

    def _largest(self) -> int:
        return self.limits().max_module_bytes

    def ask(self, message: Request, patience: float = QUICK) -> Reply:
        """One request and its reply, for what has no method of its own. ``patience`` is in seconds."""
        return self._live().perform(message, patience=patience)

    def link(self) -> Link:
        """The connection, for what has no method of its own."""
        return self._live()

    def _live(self) -> Link:
        if self._link is None or (os.getpid(), threading.get_ident()) != self._owner:
            self._check()
            self._link = self._open()
        return self._link

    def _open(self) -> Link:
        if self._context is None:
            seed_libzmq()
            self._context = zmq.Context()
        return Link(self._context, self.endpoint, self._patience, self._keys)

    def _check(self) -> None:
        if os.getpid() != self._owner[0]:
            raise RuntimeError("This client was made before a fork; make one in each process.")
        if threading.get_ident() != self._owner[1]:
            raise RuntimeError("This client belongs to another thread; make one in each thread.")
        if self._closed:
            raise RuntimeError("This client is closed.")

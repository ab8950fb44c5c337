"""A ``concurrent.futures.Executor`` whose functions are modules."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from math import inf
from typing import TYPE_CHECKING, Any, cast

from minilambda.client.calls import Patience
from minilambda.client.io_thread import IoThread, Order
from minilambda.client.mapping import Input
from minilambda.client.modules import Module, ModuleLike, Modules
from minilambda.client.promise import Promise
from minilambda.client.requests import Requests
from minilambda.client.results import RunResult, finished
from minilambda.client.spec import RunOptions, typed_values
from minilambda.curve import load_peer_keys
from minilambda.messages import Hello, JobResult, Run, Welcome
from minilambda.notation import DEFAULT_ADDRESS, endpoint

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Executor(concurrent.futures.Executor):
    """Runs modules as the executors of the standard library run functions, and gives futures for the results.

    At most ``window`` jobs are with the broker at a time: so many count as *running*, which their futures' ``cancel``
    no longer stops; ``kill`` does. Make it at least twice the slots of the cluster. The others are *pending*.
    ``submit`` blocks while ``max_pending`` jobs, running ones included, have not ended.

    One thread speaks to the broker for all. Any thread may submit. ``done`` callbacks are called in that thread and
    should be short; a ``submit`` in them does not block. The end of the program waits for all jobs, as does leaving a
    ``with``. The other arguments are those of ``Client``, and so are the errors, which the futures raise.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        window: int = 256,
        max_pending: int = 20_000,
        connect_timeout: float = 5.0,
        lost_timeout: float = 60.0,
        busy_timeout: float = 30.0,
        key: str | os.PathLike[str] | None = None,
        server_key: str | os.PathLike[str] | None = None,
    ) -> None:
        if window < 1 or max_pending < 1:
            raise ValueError("window and max_pending must be at least 1.")
        self.endpoint: str = endpoint(address)
        patience = Patience(connect_timeout, lost_timeout, busy_timeout, random.random())
        self._thread = IoThread(self.endpoint, patience, load_peer_keys(key, server_key), window)
        self._room = _Room(max_pending)
        self._buffer = min(2 * window, max_pending)  # jobs that a ``map`` is ahead
        self._requests = Requests()
        self._modules = Modules()
        self._finding = threading.Lock()  # guards ``_modules``
        weakref.finalize(self, self._thread.finish).atexit = False

    def __repr__(self) -> str:
        return f"<Executor {self.endpoint}{' closed' if self._room.closed else ''}>"

    def submit(  # type: ignore[override]  # what is run is a module
        self, module: ModuleLike, /, *args: str | os.PathLike[str], check: bool = True, **options: Unpack[RunOptions]
    ) -> Future[RunResult]:
        """Run a module with these arguments; ``options`` are those of ``RunOptions``.

        The future raises what ``Client.run`` raises; ``check`` is as there. Raises ``RuntimeError`` after ``shutdown``.
        """
        handle, options = self._find(module), self._ready(options)
        return self._submit(handle, self._requests.run(handle, args, options), lambda reply: finished(reply, check))

    def submit_call(
        self, module: ModuleLike, export: str, /, *values: Any, **options: Unpack[RunOptions]
    ) -> Future[Any]:
        """Call an exported function with typed values, as ``Client.call`` does; the future has its value."""
        handle, options = self._find(module), self._ready(options)
        options["invoke"] = export
        request = self._requests.run(handle, (), options, typed_values(values))
        return self._submit(handle, request, lambda reply: finished(reply, True).value)

    def map(  # type: ignore[override]
        self,
        module: ModuleLike,
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        check: bool = True,
        **options: Any,
    ) -> Iterator[RunResult]:
        """Run a module once for each item, or for the first items of each iterable and so on; results in their order.

        An item is an argument of the guest. With one iterable it may also be an input of ``Client.map``: a list of
        arguments, bytes for stdin, or a dict with run options and ``args``. Inputs are taken as results are, so memory
        is bounded and the iterables may be endless. Raises ``TimeoutError`` for a result that is not there ``timeout``
        seconds after the call (the limit of each guest's time has its place in such a dict); the other ``options`` are
        those of ``RunOptions``. Leaving the loop early stops what still runs. ``chunksize`` changes nothing.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        end = None if timeout is None else time.monotonic() + timeout
        handle, given = self._find(module), self._ready(cast(RunOptions, options))

        def begin(items: tuple[Any, ...]) -> Future[RunResult]:
            request = self._requests.of_input(handle, _input(items), given)
            return self._submit(handle, request, lambda reply: finished(reply, check))

        futures = map(begin, zip(*iterables))  # noqa: B905 - as the standard has it
        return self._results(deque(itertools.islice(futures, self._buffer)), futures, end)

    def kill(self, future: Future[Any]) -> bool:
        """Stop the job of a future wherever it is, also a running guest; False where it has ended.

        A running one's future raises ``Cancelled`` then, unless the job ended just before; a pending one's is
        cancelled.
        """
        return self._thread.kill(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs. Pending ones are cancelled with ``cancel_futures``; ``wait`` waits for the others."""
        self._room.close()
        if cancel_futures:
            self._thread.cancel_pending()
        self._thread.finish()
        if wait:
            self._thread.join()

    # --- inside ---------------------------------------------------------------------------------------

    def _submit(self, handle: Module, request: Run, read: Callable[[JobResult], Any]) -> Future[Any]:
        future: Future[Any] = Promise(self._thread.inside)
        self._room.enter(future, wait=not self._thread.inside())
        try:
            self._thread.add(Order(request, handle, future, read))
        except BaseException:
            self._room.leave()
            raise
        return future

    def _results(
        self, begun: deque[Future[RunResult]], more: Iterator[Future[RunResult]], end: float | None
    ) -> Iterator[RunResult]:
        try:
            while begun:
                begun[0].exception(None if end is None else end - time.monotonic())
                begun.extend(itertools.islice(more, 1))
                yield begun.popleft().result()  # and not kept here while the caller uses it
        finally:
            for future in begun:
                self.kill(future)

    def _find(self, module: ModuleLike) -> Module:
        self._thread.check_process()
        with self._finding:
            return self._modules.find(module, self._largest)

    def _ready(self, options: RunOptions) -> RunOptions:
        """The options with their files found; one thread at a time looks for some."""
        if "files" not in options and "dirs" not in options:
            return options
        with self._finding:
            return self._requests.files.ready(options)

    def _largest(self) -> float:
        """The largest module that the broker takes, bytes; only for ``_find``, whose lock is free while it is asked."""
        if self._thread.welcome is not None:
            return self._thread.welcome.max_module_bytes
        if self._thread.inside():  # a callback: the answer would come by this thread
            return inf
        answer: Future[Welcome] = Future()
        self._thread.add(Order(Hello(0), None, answer, lambda reply: reply))
        self._finding.release()  # callbacks want it before the answer can come
        try:
            return answer.result().max_module_bytes
        finally:
            self._finding.acquire()


class _Room:
    """How many jobs have not ended, and room for more."""

    def __init__(self, most: int) -> None:
        self.closed = False
        self._most = most
        self._taken = 0
        self._change = threading.Condition()

    def enter(self, future: Future[Any], wait: bool) -> None:
        """Take a place until the future is done; wait for one. Raises ``RuntimeError`` when it is closed."""
        with self._change:
            while wait and self._taken >= self._most and not self.closed:
                self._change.wait()
            if self.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._taken += 1
        future.add_done_callback(self.leave)

    def leave(self, _: object = None) -> None:
        with self._change:
            self._taken -= 1
            self._change.notify()

    def close(self) -> None:
        with self._change:
            self.closed = True
            self._change.notify_all()


def _input(items: tuple[Any, ...]) -> Input:
    """The input for one item of each iterable."""
    if len(items) == 1 and not isinstance(items[0], (str, os.PathLike)):
        return cast("Mapping[str, Any]", items[0])
    return items

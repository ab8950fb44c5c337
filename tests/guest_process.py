"""A GuestHost in a process of its own: it sets limits on the process that it lives in, which must not be pytest's."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

from minilambda.worker import engine
from minilambda.worker.events import Outcome, RunOrder
from minilambda.worker.toolchain import compile_wasm
from tests import wat

MIB = 1 << 20
_ANSWER_SECONDS = 60.0


class HostError(Exception):
    """What GuestHost raised, as text: the class and the message."""


def _serve(pipe: Connection, compiler: str, short: bool, standard: bool) -> None:
    from minilambda.worker import primer
    from minilambda.worker.guest import GuestHost
    from minilambda.worker.places import make_places

    primed = primer.artifacts(compiler)
    stdout, stderr = os.memfd_create("stdout"), os.memfd_create("stderr")
    host = GuestHost(stdout, stderr, make_places((compiler,), short), standard=standard)
    host.prime(primer.ORDER, f"/proc/self/fd/{primed.module}")
    host.prime(primer.COMPONENT_ORDER, f"/proc/self/fd/{primed.component}")
    while True:
        order, artifact, piped = pipe.recv()
        if order is None:
            os._exit(0)
        fd = inlet = None
        if piped is not None:
            inlet, far = os.pipe()
            os.write(far, piped)
            os.close(far)
        if artifact is not None:
            fd = os.memfd_create("artifact")
            assert os.write(fd, artifact) == len(artifact)
        try:
            path = None if fd is None else f"/proc/self/fd/{fd}"
            outcome = host.run(order, path, None if inlet is None else b"/proc/self/fd/%d" % inlet)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            continue
        finally:
            for each in (fd, inlet):
                if each is not None:
                    os.close(each)
        if host.left_output:
            written = [os.pread(out, os.fstat(out).st_size, 0) for out in (stdout, stderr)]
            outcome = outcome._replace(stdout=written[0], stderr=written[1])
        pipe.send(outcome)
        host.tidy()
        host.lift_limits()  # the next artifact is written here; a runner gets it as a file


class GuestProcess:
    """Runs guests one after another in one process, as a runner does."""

    def __init__(self, compiler: str = "cranelift", short: bool = engine.SHORT, standard: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self._compiler = compiler
        self._artifacts: dict[str, tuple[bool, bytes]] = {}  # by digest
        self._held: set[str] = set()  # digests that the process holds
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, compiler, short, standard), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, text: str, piped: bytes | None = None, **fields: Any) -> Outcome:
        """Compile the guest where needed, and run it; ``fields`` are those of RunOrder that matter to the test.

        ``piped`` comes through a pipe.
        """
        binary = wat.wasm(text)
        digest = "sha256:" + hashlib.sha256(binary).hexdigest()
        if digest not in self._artifacts:
            component, artifact = compile_wasm(binary, self._compiler)
            self._artifacts[digest] = component, bytes(artifact)
        component, artifact = self._artifacts[digest]
        order = order_for(digest, component, load=digest not in self._held, compiler=self._compiler, **fields)
        self._held.add(digest)
        return self.send(order, artifact if order.load else None, piped)

    def send(self, order: RunOrder, artifact: bytes | None, piped: bytes | None = None) -> Outcome:
        """Carry out an order as it is. Raises HostError."""
        self._pipe.send((order, artifact, piped))
        if not self._pipe.poll(_ANSWER_SECONDS):
            raise AssertionError("the guest's process did not answer")
        answer = self._pipe.recv()
        if isinstance(answer, str):
            raise HostError(answer)
        assert isinstance(answer, Outcome)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._pipe.send((None, None, None))
        self._process.join(_ANSWER_SECONDS)
        self._process.close()
        self._pipe.close()


def order_for(digest: str, component: bool, **fields: Any) -> RunOrder:
    """An order with generous limits, changed by ``fields``."""
    defaults: dict[str, Any] = {
        "load": True,
        "evict": (),
        "args": (),
        "env": (),
        "invoke": None,
        "values": None,
        "stdin": b"",
        "timeout_ms": 20_000,
        "memory_bytes": 64 * MIB,
        "output_bytes": MIB,
        "unknown_imports": "error",
    }
    return RunOrder(digest=digest, component=component, **{**defaults, **fields})

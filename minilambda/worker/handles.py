"""The agent's handles of a runner and of a compiler: what each may say next, and what its death means."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

from minilambda.worker import codec
from minilambda.worker.channel import MAX_PACKET, ChannelClosed, ChannelError
from minilambda.worker.child import Child, memfds
from minilambda.worker.compiler import memory_limit
from minilambda.worker.events import (
    CORRUPT,
    CompileFinished,
    CompileOrder,
    OutputSeen,
    ProcessEvent,
    RunnerDied,
    RunnerFinished,
    RunnerReady,
    RunOrder,
)

_MAX_WALLS = 32  # lines of a runner's report of its walls
_CHUNK = 1 << 20  # bytes per read of an output


class RunnerHandle(Child):
    """The runner of one slot."""

    def __init__(self, number: int, slot: int) -> None:
        # Without MFD_ALLOW_SEALING: a runner can't put a seal on them that would stop the agent's own calls.
        fds = memfds("stdout", "stderr", "spill", flags=os.MFD_CLOEXEC)
        super().__init__(number, fds, fds[-1])
        self.stdout_fd, self.stderr_fd, self._spill = fds
        self.slot = slot
        self.walls: tuple[str, ...] | None = None  # one line per wall; None: it is not ready yet
        self._order: RunOrder | None = None  # what it runs; None: nothing
        self._told: tuple[RunOrder | None, bytes] = (None, b"")  # the last order, and the message that gave it
        self._inlet: int | None = None  # where its guest's input is written; None: all of that is in the order

    def request(self) -> tuple[bytes, list[int]]:
        return codec.pack("runner", self.number), [
            self.far_end.fileno(),
            self.stdout_fd,
            self.stderr_fd,
            self._spill,
        ]

    def run(self, order: RunOrder, artifact_fd: int | None, stream: bool = False) -> None:
        """Hand over an order. If the runner can't take it, it dies of that, and its death is the answer.

        With ``stream`` the guest gets a pipe for its input, which ``pour`` fills.
        """
        self._order, self.max_message = order, MAX_PACKET + order.output_bytes
        try:
            if self.channel is None:
                raise ChannelClosed()
            fds = () if artifact_fd is None else (artifact_fd,)
            if stream:
                self._send_with_pipe(order, fds)
            else:
                if self._told[0] is not order:
                    self._told = (order, codec.encode_order(order))
                self.channel.send(self._told[1], fds)
        except (ChannelError, OSError) as error:
            self.fault = self.fault or str(error)
            self.kill()

    def _send_with_pipe(self, order: RunOrder, fds: tuple[int, ...]) -> None:
        assert self.channel is not None
        inside, self._inlet = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._inlet, False)
            os.fchmod(inside, 0o444)  # the guest's process opens it once more, and is another user
            self.channel.send(codec.encode_order(order), (*fds, inside))
        finally:
            os.close(inside)

    def pour(self, data: bytes, last: bool) -> int:
        """Write to the guest's pipe what fits, and close it behind ``data`` that is the last; tells how much that was.

        What nobody reads any more counts as written.
        """
        if self._inlet is None:
            return 0
        try:
            size = os.write(self._inlet, data) if data else 0
        except BlockingIOError:
            return 0
        except OSError:
            size = len(data)
        if last and size == len(data):
            self._close_inlet()
        return size

    def _close_inlet(self) -> None:
        if self._inlet is not None:
            os.close(self._inlet)
            self._inlet = None

    def output_sizes(self) -> tuple[int, int]:
        """How much the guest has written to each stream so far, bytes."""
        return _size(self.stdout_fd), _size(self.stderr_fd)

    def read_output(self, stream: str, offset: int, size: int) -> bytes:
        """A piece of what the guest has written; less than ``size`` where there is not so much."""
        return os.pread(self.stdout_fd if stream == "stdout" else self.stderr_fd, size, offset)

    def close(self) -> None:
        super().close()
        self._close_inlet()

    def look(self) -> OutputSeen:
        """How much the guest has written so far."""
        return OutputSeen(self.slot, _size(self.stdout_fd) + _size(self.stderr_fd))

    def _understand(self, kind: str, fields: list[Any]) -> list[ProcessEvent]:
        order = self._order
        if kind == "done" and order is not None:
            outcome = codec.decode_outcome(fields, order.output_bytes, self._take_output)
            self._order, self.max_message = None, MAX_PACKET
            self._close_inlet()
            return [RunnerFinished(self.slot, outcome)]
        if kind == "bad_artifact" and order is not None and len(fields) == 1:
            outcome = codec.refused_artifact(codec.text(fields[0], codec.MAX_TEXT))
            self._order, self.max_message = None, MAX_PACKET
            self._close_inlet()
            return [RunnerFinished(self.slot, outcome, bad_artifact=True)]
        if kind == "ready" and self.walls is None and len(fields) == 1 and isinstance(fields[0], list):
            self.walls = tuple(codec.text(line, codec.MAX_TEXT) for line in fields[0][:_MAX_WALLS])
            return [RunnerReady(self.slot)]
        what = "with nothing to answer" if order is None else "instead of an outcome"
        raise ChannelError(f"It sent {codec.cut(kind, 32)!r} {what}.")

    def died(self, how: str) -> list[ProcessEvent]:
        stdout, stderr = self._take_output()
        return [RunnerDied(self.slot, f"{how}: {self.fault}" if self.fault else how, stdout, stderr)]

    def _take_output(self) -> tuple[bytes, bytes]:
        """What the guest wrote, at most ``output_bytes`` of each; the memfds are empty afterwards."""
        limit = self._order.output_bytes if self._order else 0
        return _take(self.stdout_fd, limit), _take(self.stderr_fd, limit)


class CompilerHandle(Child):
    """One compiler: at rest, until it is given the one order of its life."""

    def __init__(self, number: int) -> None:
        super().__init__(number, [], None)
        self.order: CompileOrder | None = None  # None: at rest
        self.began = 0.0  # when it was given the order, seconds
        self.artifact_fd = -1  # receives the artifact
        self._result: CompileFinished | None = None  # what it said, not reported yet
        self._reported = False  # the event is out
        self._stopped = False  # the agent asked for its end

    def request(self) -> tuple[bytes, list[int]]:
        return codec.pack("compiler", self.number), [self.far_end.fileno()]

    def give(self, order: CompileOrder, wasm_fd: int) -> None:
        """Hand over its order; ``wasm_fd`` stays the caller's. Raises OSError, and ChannelError if it is dead."""
        if self.channel is None:
            raise ChannelClosed()
        (artifact_fd,) = memfds("artifact", flags=os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._own_fds = [artifact_fd]
        told = codec.pack(order.digest, order.compiler, order.memory_bytes, order.timeout_ms, order.background)
        self.channel.send(told, [wasm_fd, artifact_fd])
        self.order, self.artifact_fd, self.began = order, artifact_fd, time.monotonic()

    @property
    def in_background(self) -> bool:
        """Nobody waits for what it compiles."""
        return self.order is not None and self.order.background

    def stop(self) -> None:
        """End it on the agent's behalf."""
        self._stopped = True
        self.kill()

    def take_artifact(self) -> int:
        """The sealed artifact; the caller owns it."""
        self._own_fds.remove(self.artifact_fd)
        return self.artifact_fd

    def _understand(self, kind: str, fields: list[Any]) -> list[ProcessEvent]:
        if self.order is None:
            raise ChannelError(f"It sent {codec.cut(kind, 32)!r} with nothing to answer.")
        if self._result is not None or self._reported:
            raise ChannelError("It went on after its result.")
        if kind == "compiled" and len(fields) == 3 and isinstance(fields[0], bool):
            size = codec.whole(fields[1], 1, os.fstat(self.artifact_fd).st_size)
            if size != os.fstat(self.artifact_fd).st_size:
                raise ChannelError("The artifact has another size than announced.")
            done = CompileFinished(
                self.order.digest, self.order.compiler, None, "", fields[0], size, codec.milliseconds(fields[2])
            )
        elif kind == "invalid" and len(fields) == 1:
            done = self._failed(self.order, "invalid_module", codec.text(fields[0], codec.MAX_REASON))
        elif kind == "limit" and len(fields) == 1:
            done = self._failed(self.order, "compile_limit", codec.text(fields[0], codec.MAX_REASON))
        elif kind == CORRUPT and not fields:
            done = self._failed(self.order, CORRUPT, "The module's bytes do not have the hash that names them.")
        else:
            raise ChannelError(f"It sent {codec.cut(kind, 32)!r} instead of a result.")
        self._result = done
        return self._report()

    def _report(self) -> list[ProcessEvent]:
        """The result, as soon as the artifact is sealed."""
        result = self._result
        if result is None or self.order is None:
            return []
        if result.code is None:
            try:
                _seal(self.artifact_fd)
            except OSError:  # it holds a writable mapping, which an honest compiler does not
                self.kill()
                return []
            if os.fstat(self.artifact_fd).st_size != result.size:
                result = self._failed(self.order, "internal", "The artifact changed after the compiler had ended.")
        self._result, self._reported = None, True
        if result.code is not None or self.in_background:
            self.kill()
        return [result]

    def died(self, how: str) -> list[ProcessEvent]:
        if self._reported or self.order is None:
            return []
        if self._result is None or self.fault:
            self._result = self._verdict(self.order, how)
        return self._report()

    def _verdict(self, order: CompileOrder, how: str) -> CompileFinished:
        """What a compiler that died without a result died of."""
        code, message = "compile_limit", ""
        if self.fault:
            code, message = "internal", f"The compiler process failed ({how}): {self.fault}"
        elif self._stopped and (time.monotonic() - self.began) * 1e3 < order.timeout_ms:
            message = "Compiling the module was stopped by the worker."
        elif self._stopped or how == "killed by SIGXCPU":
            message = f"Compiling the module took more than the {order.timeout_ms} ms that the worker allows."
        elif how == "killed by SIGABRT":
            message = memory_limit(order.memory_bytes)
        elif how == "killed by SIGKILL":
            message = "The kernel ended the compilation of the module, most likely for want of memory."
        else:
            code, message = "internal", f"The compiler process failed: {how}."
        return self._failed(order, code, message)

    def _failed(self, order: CompileOrder, code: str, message: str) -> CompileFinished:
        return CompileFinished(
            order.digest, order.compiler, code, message, False, 0, (time.monotonic() - self.began) * 1e3
        )


def _seal(fd: int) -> None:
    """Nobody, the compiler included, can change this memfd afterwards. Raises OSError while it is mapped writable."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)


def _size(fd: int) -> int:
    """Bytes in a memfd. Far cheaper than fstat; nobody uses the offset."""
    return os.lseek(fd, 0, os.SEEK_END)


def _take(fd: int, limit: int) -> bytes:
    """At most ``limit`` bytes of a memfd, which is empty afterwards."""
    size = _size(fd)
    if not size:
        return b""
    size, parts, offset = min(size, limit), [], 0
    while offset < size and (part := os.pread(fd, min(_CHUNK, size - offset), offset)):
        parts.append(part)
        offset += len(part)
    os.ftruncate(fd, 0)
    return b"".join(parts)

"""A runner process: it runs one guest at a time, for one principal only, until it is killed.

Messages from the agent: a run order (``codec.encode_order``), the artifact's descriptor beside it when the order
says ``load``. Messages to it: ``["ready", walls]`` once, then for each order an outcome (``codec.encode_outcome``) or
``["bad_artifact", why]``; ``["fault", what]`` before it gives up.
"""

from __future__ import annotations

import gc
import os
import select
from collections.abc import Callable, Mapping

from minilambda.worker import codec, primer, walls
from minilambda.worker.channel import MAX_SPILL, Channel
from minilambda.worker.events import RunOrder
from minilambda.worker.guest import GuestHost
from minilambda.worker.limits import KernelLimits
from minilambda.worker.places import Places
from minilambda.worker.toolchain import BadArtifact

_QUIET_S = (
    0.02  # when no order came for so long, there is time to prepare for guests that are not the usual kind, seconds
)
_SMALL = 4096  # an order up to this size is remembered, bytes
_RUNS_PER_COLLECTION = 64  # the collector runs between jobs only, after this many


class Runner:
    """The loop of a runner process."""

    def __init__(
        self,
        channel: Channel,
        stdout_fd: int,
        stderr_fd: int,
        primers: primer.Artifacts,
        places: Mapping[str, Places],
        raise_walls: Callable[[], list[str]],
    ) -> None:
        self._channel = channel
        self._stdout_fd = stdout_fd  # memfd that receives the guest's standard output
        self._stderr_fd = stderr_fd  # memfd that receives the guest's standard error
        self._primers = primers  # of the first compiler
        self._places = places  # where guests run, by compiler
        self._raise_walls = raise_walls  # answers a line for each
        self._told: tuple[bytes, RunOrder | None] = (b"", None)  # the last message and its order, if it was small

    def serve(self) -> None:
        """Raise the walls, then carry out orders until the agent closes the channel.

        Raises ChannelClosed then, and whatever else goes wrong in our own code.
        """
        walls.set_name("ml-runner")
        limits = KernelLimits()
        raised = self._raise_walls()
        host = GuestHost(self._stdout_fd, self._stderr_fd, self._places, limits, standard=True)
        self._channel.before_spill = host.lift_limits
        self._prime(host, primer.ORDER, self._primers.module)
        self._channel.send(codec.pack("ready", raised))
        if not select.select([self._channel], [], [], _QUIET_S)[0]:  # there is time
            self._prime(host, primer.COMPONENT_ORDER, self._primers.component)
        for fd in (self._stdout_fd, self._stderr_fd, *self._primers):  # the streams are the standard ones now
            os.close(fd)
        gc.collect()
        gc.freeze()
        gc.disable()
        runs = 0
        while True:
            self._one_run(host)
            runs += 1
            if runs % _RUNS_PER_COLLECTION == 0:
                gc.collect()

    def _prime(self, host: GuestHost, order: RunOrder, artifact: int) -> None:
        host.prime(codec.decode_order(codec.unpack(codec.encode_order(order))), f"/proc/self/fd/{artifact}")

    def _understood(self, payload: bytes) -> RunOrder:
        """The order in a message, which is often the same as the last one."""
        told, order = self._told
        if order is None or payload != told:
            order = codec.decode_order(codec.unpack(payload))
            self._told = (payload, order) if len(payload) <= _SMALL else (b"", None)
        return order

    def _one_run(self, host: GuestHost) -> None:
        received = self._channel.receive(MAX_SPILL)
        if received is None:
            return
        payload, fds = received
        order = self._understood(payload)
        try:
            artifact = f"/proc/self/fd/{fds[0]}" if order.load else None
            pipe = b"/proc/self/fd/%d" % fds[-1] if len(fds) > order.load else None
            outcome = host.run(order, artifact, pipe)
        except BadArtifact as error:
            reply = codec.pack("bad_artifact", codec.cut(error.message, codec.MAX_TEXT))
        else:
            reply = codec.encode_outcome(outcome, host.left_output)
        finally:
            for fd in fds:
                os.close(fd)
        self._channel.send(reply)
        host.tidy()

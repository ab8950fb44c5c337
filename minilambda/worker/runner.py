"""A runner process: it runs one guest at a time, for one principal only, until it is killed.

Messages from the agent: a run order (``codec.encode_order``), the artifact's descriptor beside it when the order
says ``load``. Messages to it: ``["ready", walls]`` once, then for each order an outcome (``codec.encode_outcome``) or
``["bad_artifact", why]``; ``["fault", what]`` before it gives up.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping

from minilambda.worker import codec, walls
from minilambda.worker.channel import MAX_SPILL, Channel
from minilambda.worker.guest import GuestHost
from minilambda.worker.places import Places
from minilambda.worker.toolchain import BadArtifact

_RUNS_PER_COLLECTION = 64  # the collector runs between jobs only, after this many


class Runner:
    """The loop of a runner process."""

    def __init__(
        self, channel: Channel, stdout_fd: int, stderr_fd: int, primer_fd: int, places: Mapping[str, Places]
    ) -> None:
        self._channel = channel
        self._stdout_fd = stdout_fd  # memfd that receives the guest's standard output
        self._stderr_fd = stderr_fd  # memfd that receives the guest's standard error
        self._primer_fd = primer_fd  # the primer's artifact
        self._places = places  # where guests run, by compiler; the primer's is the first one's

    def serve(self) -> None:
        """Raise the walls, then carry out orders until the agent closes the channel.

        Raises ChannelClosed then, and whatever else goes wrong in our own code.
        """
        walls.set_name("ml-runner")
        raised = walls.raise_walls()
        host = GuestHost(self._stdout_fd, self._stderr_fd, self._places, standard=True)
        host.prime(f"/proc/self/fd/{self._primer_fd}")
        for fd in (self._primer_fd, self._stdout_fd, self._stderr_fd):
            os.close(fd)
        self._channel.before_spill = host.lift_limits
        gc.collect()
        gc.freeze()
        gc.disable()
        self._channel.send(codec.pack("ready", raised))
        runs = 0
        while True:
            self._one_run(host)
            runs += 1
            if runs % _RUNS_PER_COLLECTION == 0:
                gc.collect()

    def _one_run(self, host: GuestHost) -> None:
        received = self._channel.receive(MAX_SPILL)
        if received is None:
            return
        payload, fds = received
        order = codec.decode_order(codec.unpack(payload))
        try:
            outcome = host.run(order, f"/proc/self/fd/{fds[0]}" if fds else None)
        except BadArtifact as error:
            reply = codec.pack("bad_artifact", codec.cut(error.message, codec.MAX_TEXT))
        else:
            reply = codec.encode_outcome(outcome, host.left_output)
        finally:
            for fd in fds:
                os.close(fd)
        self._channel.send(reply)
        host.tidy()

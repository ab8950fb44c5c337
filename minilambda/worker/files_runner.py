"""The runner of a job with files: it runs one guest, which sees the files of its job, and is killed then.

It speaks with the agent as any runner does (``runner``). It is not primed: that takes as long as it saves one guest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from minilambda.worker import codec, walls
from minilambda.worker.channel import MAX_SPILL, Channel
from minilambda.worker.guest import GuestHost
from minilambda.worker.home import Home
from minilambda.worker.limits import KernelLimits
from minilambda.worker.places import Places
from minilambda.worker.toolchain import BadArtifact


class FilesRunner:
    """The life of such a process."""

    def __init__(
        self,
        channel: Channel,
        outputs: tuple[int, int],
        home: Home,
        places: Mapping[str, Places],
        raise_walls: Callable[[], list[str]],
    ) -> None:
        self._channel = channel
        self._outputs = outputs  # files that receive the guest's output and errors
        self._home = home
        self._places = places  # where guests run, by compiler
        self._raise_walls = raise_walls  # answers a line for each

    def serve(self) -> None:
        """Raise the walls, carry out one order, and wait for the end. Raises ChannelClosed at the end."""
        walls.set_name("ml-files")
        limits = KernelLimits()
        raised = self._raise_walls()
        host = GuestHost(
            *self._outputs,
            self._places,
            limits,
            standard=True,
            folders=self._home.folders(),
            file_bytes=self._home.plan.scratch,
        )
        self._channel.before_spill = host.lift_limits
        self._channel.send(codec.pack("ready", raised))
        received = self._channel.receive(MAX_SPILL)
        if received is None:
            return
        payload, fds = received
        order = codec.decode_order(codec.unpack(payload))
        try:
            # By their names in the working directory.
            pipe = b"%d" % fds[-1] if len(fds) > order.load else None
            outcome = host.run(order, str(fds[0]) if order.load else None, pipe)
        except BadArtifact as error:
            reply = codec.pack("bad_artifact", codec.cut(error.message, codec.MAX_TEXT))
        else:
            reply = codec.encode_outcome(outcome, host.left_output)
        self._channel.send(reply)
        while True:  # the agent collects what the guest has made, and ends this process
            self._channel.receive()

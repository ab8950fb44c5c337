"""The template process: it has imported wasmtime, and forks runners and compilers from itself in milliseconds.

It has made the engines too, whose memory its children then share, and has run guests of our own (``practice``). But it
starts no thread, since threads do not survive a fork: it compiles nothing, and no guest in it has WASI. It never sees a
stranger's bytes, trusts the agent, and dies with it.
``python -m minilambda.worker.template`` is started by ``processes`` only.

Messages from the agent: ``["runner", id]`` with the descriptors of a runner, and a plan of its home where its job has
files; ``["compiler", id]`` with that of a compiler's channel; one more is the entry to a cgroup. Messages to it:
``["started", id, pid]`` with a pidfd and what the agent gets of the home, ``["failed", id, why]``, ``["unsupported",
id, why]`` where there can be no home, ``["exited", id, how]``.
"""

from __future__ import annotations

import functools
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from minilambda.errors import MinilambdaError
from minilambda.worker import codec, compiler, places, primer, runner, walls
from minilambda.worker.channel import Channel, ChannelClosed
from minilambda.worker.files_runner import FilesRunner
from minilambda.worker.home import CantMount, Home, Plan, furnish
from minilambda.worker.practice import practise

FAILED = 70
"""Exit status of a child that ended by an error of our own."""

MAX_FDS = 5
"""Descriptors that come with one request, at most."""

_OWN_FDS = {"runner": 4, "compiler": 1}  # the first descriptors of a request; one more is the entry to a cgroup


class Template:
    """The loop of the template process."""

    def __init__(self, channel: Channel, compilers: tuple[str, ...], enclosure: walls.Enclosure) -> None:
        self._channel = channel
        self._enclosure = enclosure  # the walls of the children
        self._compilers = compilers  # the fastest code first, the quickest compilation last
        self._primers = primer.artifacts(compilers[0])
        self._places = places.make_places(compilers)
        practise(self._places, self._primers)
        self._pid = os.getpid()
        self._children: dict[int, tuple[int, int]] = {}  # pidfd -> the agent's id of the child, pid
        self._poll = select.poll()

    def serve(self) -> None:
        """Serve requests until the agent closes the channel; then kill what is left."""
        self._poll.register(self._channel.fileno(), select.POLLIN)
        try:
            while True:
                for fd, _events in self._poll.poll():
                    if fd in self._children:
                        self._reap(fd)
                    else:
                        self._obey()
        except ChannelClosed:
            for pidfd, (_child, pid) in self._children.items():
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _obey(self) -> None:
        received = self._channel.receive()
        if received is None:
            return
        payload, fds = received
        kind, child, *plan = codec.unpack(payload)
        home: Home | None = None
        held: list[int] = []
        try:
            if plan:
                home = furnish(Plan._make(plan))
            pidfd = self._fork(kind, child, fds, home)
        except CantMount as error:
            answer = codec.pack("unsupported", child, str(error))
        except OSError as error:
            answer = codec.pack("failed", child, f"could not be started: {error}")
        else:
            answer = codec.pack("started", child, self._children[pidfd][1])
            held = [pidfd, *(home.shared if home else ())]
        finally:
            for fd in fds:
                os.close(fd)
        self._channel.send(answer, held)
        if home is not None:
            home.close()

    def _fork(self, kind: str, child: int, fds: list[int], home: Home | None) -> int:
        pid = os.fork()
        if pid == 0:
            self._become(kind, child, fds, home)
        pidfd = os.pidfd_open(pid)  # the child is not reaped yet, so the number is still its own
        self._children[pidfd] = (child, pid)
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def _become(self, kind: str, number: int, fds: list[int], home: Home | None) -> NoReturn:
        """Be the child. Never returns into the template's loop."""
        status = FAILED
        try:
            walls.die_with_parent(self._pid)
            walls.have_own_files()
            readable = [] if self._enclosure.readable is None else [self._enclosure.readable]
            cgroup = fds[_OWN_FDS[kind]] if len(fds) > _OWN_FDS[kind] else None
            raise_walls = functools.partial(self._enclosure.raise_walls, kind, number, cgroup, home)
            if home is not None:
                walls.close_all_but([*fds, *readable, *home.all])
                channel = Channel(socket.socket(fileno=fds[0]), spill=fds[3], max_fds=2)
                outputs = home.outputs or (fds[1], fds[2])
                work = FilesRunner(channel, outputs, home, self._places, raise_walls).serve
            elif kind == "runner":
                walls.close_all_but([*fds, *readable, *self._primers])
                channel = Channel(socket.socket(fileno=fds[0]), spill=fds[3], max_fds=2)
                work = runner.Runner(channel, fds[1], fds[2], self._primers, self._places, raise_walls).serve
            else:
                walls.close_all_but([*fds, *readable])
                channel = Channel(socket.socket(fileno=fds[0]), max_fds=2)
                work = compiler.Compiler(channel, self._compilers[-1], raise_walls).serve
            status = _attempt(channel, work)
        finally:
            # The interpreter's own shutdown trips over the threads that wasmtime has started.
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        child, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _pid, status = os.waitpid(pid, 0)
        self._channel.send(codec.pack("exited", child, _how(os.waitstatus_to_exitcode(status))))


def _attempt(channel: Channel, work: Callable[[], None]) -> int:
    """Do the work of a child; what goes wrong is told to the agent, as far as that is possible."""
    try:
        work()
    except ChannelClosed:
        return 0  # the agent has no more use for this process
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"
        channel.send(codec.pack("fault", codec.cut(what, codec.MAX_TEXT)))
        return FAILED
    return 0


def _how(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exited with {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"


def main(agent: int, fd: int, compilers: tuple[str, ...], delay: float, readable: str, required: bool) -> None:
    """Be the template of the process ``agent``, over the channel ``fd``, after ``delay`` seconds.

    ``readable`` and ``required`` are for the walls of its children: see ``walls.enclose``.
    """
    walls.die_with_parent(agent)
    walls.ignore_stops()
    walls.set_name("ml-template")
    walls.forget_environment()
    walls.deepen_stack()
    time.sleep(delay)  # here, where nobody waits: the agent must not, and it can kill this process meanwhile
    enclosure = walls.enclose(agent, readable, required)
    template = Template(Channel(socket.socket(fileno=fd), max_fds=MAX_FDS), compilers, enclosure)
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages shared with the children
    template.serve()


if __name__ == "__main__":
    try:
        _agent, _fd, _compilers, _delay, _readable, _required = sys.argv[1:]
        main(int(_agent), int(_fd), tuple(_compilers.split(",")), float(_delay), _readable, bool(_required))
    except MinilambdaError as error:
        sys.exit(error.message)

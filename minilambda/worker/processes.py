"""All processes under the agent: one template, a runner per slot, a few compilers.

A shell polls ``descriptors()`` and calls ``readable`` with each that is ready. There are no threads and nothing
blocks but ``start`` (until the template is executed) and ``close``. Call everything from one thread that lives as
long as the agent: the template dies with the thread that started it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

from minilambda.errors import MinilambdaError
from minilambda.settings import COMPILERS, WorkerSettings
from minilambda.worker import codec
from minilambda.worker.cgroups import Cgroups, limits_of, own_directory_now
from minilambda.worker.channel import ChannelClosed, ChannelError
from minilambda.worker.child import Child, close_all, close_when_dead
from minilambda.worker.compilers import Compilers
from minilambda.worker.doorbell import Doorbell
from minilambda.worker.events import (
    CompileOrder,
    HomeOrder,
    OutputSeen,
    ProcessEvent,
    RunnerDied,
    RunnerReady,
    RunOrder,
)
from minilambda.worker.files_handle import FilesHandle
from minilambda.worker.handles import CompilerHandle, RunnerHandle
from minilambda.worker.launch import TemplateHandle, refuse_other_platforms
from minilambda.worker.wall_report import WallReport

_MAX_UNANSWERED = 8  # requests to the template under way: few enough that they always fit into its socket
_YOUNG_S = 5.0  # a template that dies younger than this makes the next one wait
_CLOSE_S = 5.0  # longest that ``close`` waits for processes to be gone, seconds


class Processes:
    """The processes under one agent."""

    def __init__(
        self,
        slots: int,
        choice: str = "tiered",
        compilers: int = 2,
        readable: str = "",
        required: bool = False,
        tell: Callable[[str], None] = lambda walls: None,
        cgroups: Cgroups | None = None,
    ) -> None:
        """Runners may read in the directory ``readable``. For ``required`` and ``tell`` see ``WallReport``."""
        self.generation = 0  # grows whenever ``descriptors()`` changes
        self._slots = slots  # runners have the slots 0 to slots - 1
        self._readable = readable
        self._report_walls = WallReport(required, tell)
        self._choice = choice  # of compilers, one of settings.COMPILERS
        self._compilers = Compilers(compilers, lambda: CompilerHandle(self._next_number()), self._fork, self._report)
        self._cgroups = cgroups  # one for each process; None: the agent's own is not looked at
        self._template: TemplateHandle | None = None  # None: not started, or it could not be started again
        self._early_deaths = 0  # templates in a row that died young
        self._number = 0  # of the last child
        self._children: dict[int, Child] = {}  # every child that is not reported dead, by its number
        self._runners: dict[int, RunnerHandle] = {}  # those of them that are runners, by slot
        self._by_fd: dict[int, Child] = {}  # those that have a channel, by its descriptor
        self._unsent: deque[Child] = deque()  # the template is to fork them, and has not been told
        self._unanswered = 0  # requests that the template has not answered
        self._doorbell: Doorbell[ProcessEvent] | None = None  # for events of our own; None: not started, or closed

    @classmethod
    def of_worker(cls, settings: WorkerSettings, readable: str, tell: Callable[[str], None]) -> Processes:
        """Those of a worker with ``settings``."""
        required = settings.walls == "required"
        cgroups = Cgroups(limits_of(settings), required)
        return cls(settings.runners, settings.compiler, settings.compilers, readable, required, tell, cgroups)

    # --- what the shell's loop needs -----------------------------------------------------------------

    def start(self) -> None:
        """Start the template. Raises MinilambdaError where that can't work, or a wall is absent that is required."""
        refuse_other_platforms()
        if self._doorbell is None:
            if self._cgroups is not None:
                self._cgroups.claim(own_directory_now())  # now: the template is to be there too
            try:
                self._launch()
            except OSError as error:
                raise MinilambdaError(f"The template process could not be started: {error}.") from error
            self._doorbell = Doorbell()

    def descriptors(self) -> list[int]:
        """What to poll for reading, until ``generation`` changes."""
        fds = [] if self._doorbell is None else [self._doorbell.fileno(), *self._by_fd]
        return fds if self._template is None else [*fds, self._template.channel.fileno()]

    def readable(self, fd: int) -> list[ProcessEvent]:
        """Read a descriptor that is ready and tell what happened. Never raises for what a process does.

        Raises MinilambdaError where a wall is absent that is required.
        """
        child = self._by_fd.get(fd)
        self._compilers.dismiss()
        if child is not None:
            events = child.hear()
            ready = bool(events) and type(events[0]) is RunnerReady
            if ready or child.channel is None or isinstance(child, CompilerHandle):
                self._heard(child, fd, events)
            return events
        if self._doorbell is not None and fd == self._doorbell.fileno():
            return self._doorbell.answer()
        if self._template is not None and fd == self._template.channel.fileno():
            return self._hear_template(self._template)
        return []

    @property
    def walls(self) -> tuple[str, ...]:
        """What a runner reported of its walls, a line each; empty while no runner is ready."""
        return next((runner.walls for runner in self._runners.values() if runner.walls is not None), ())

    # --- runners -------------------------------------------------------------------------------------

    def spawn(self, slot: int, home: HomeOrder | None = None) -> None:
        """Have a runner made for a free slot; RunnerReady or RunnerDied follows. Raises ValueError for another slot.

        With ``home`` it is one for a single job with files, in a slot beyond the others: of these there are more.
        """
        if not 0 <= slot < self._slots * (3 if home else 1) or slot in self._runners:
            raise ValueError(f"Slot {slot} is not free.")
        try:
            number = self._next_number()
            runner = FilesHandle(number, slot, home) if home else RunnerHandle(number, slot)
        except OSError as error:
            self._report([RunnerDied(slot, f"could not be started: {error}", b"", b"")])
        else:
            self._runners[slot] = runner
            self._fork(runner)

    def run(self, slot: int, order: RunOrder, artifact_fd: int | None, stream: bool = False) -> None:
        """Give the runner of a slot its next order; RunnerFinished or RunnerDied follows.

        ``artifact_fd`` stays the caller's, who may close it at once. With ``stream`` the guest's input is a pipe. A
        slot without a runner takes no order: its RunnerDied has been reported.
        """
        if runner := self._runners.get(slot):
            runner.run(order, artifact_fd, stream)

    def kill(self, slot: int) -> None:
        """SIGKILL the runner of a slot; RunnerDied follows, once."""
        if runner := self._runners.get(slot):
            runner.kill()

    def runner(self, slot: int) -> RunnerHandle | None:
        """The runner of a slot, to read what its guest has written and to write to its pipe."""
        return self._runners.get(slot)

    def look(self, slot: int) -> OutputSeen:
        """How much the guest in a slot has written so far."""
        self._compilers.dismiss()
        runner = self._runners.get(slot)
        return runner.look() if runner else OutputSeen(slot, 0)

    # --- compilers -----------------------------------------------------------------------------------

    def compile(self, order: CompileOrder, wasm_fd: int) -> None:
        """Compile a module, after those ordered before it; CompileFinished follows.

        ``wasm_fd`` is read from its start; it stays the caller's, who may close it at once.
        """
        self._compilers.compile(order, wasm_fd)

    def kill_compiler(self, digest: str) -> None:
        """Stop compiling a module, or waiting for it; CompileFinished with ``compile_limit`` follows."""
        self._compilers.stop(digest)

    def take_artifact(self, digest: str, compiler: str) -> int:
        """A sealed memfd with a compiled module, which the caller owns. Raises KeyError when there is none."""
        return self._compilers.take_artifact(digest, compiler)

    # --- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Kill everything, wait until it is gone, close everything. Idempotent."""
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.kill()
        if self._template is not None:
            self._template.stop(_CLOSE_S)
            self._template = None
        close_when_dead(children, _CLOSE_S)
        self._compilers.close()
        if self._cgroups is not None:
            self._cgroups.leave(_CLOSE_S)
        if self._doorbell is not None:
            self._doorbell.close()
            self._doorbell = None
        for collection in (self._runners, self._by_fd, self._unsent):
            collection.clear()
        self._unanswered = 0
        self.generation += 1

    # --- inside --------------------------------------------------------------------------------------

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _report(self, events: list[ProcessEvent]) -> None:
        """Tell of something that no process can tell of."""
        if self._doorbell is not None:
            self._doorbell.ring(events)

    def _launch(self) -> None:
        delay = 0.0 if self._early_deaths == 0 else min(_YOUNG_S, 0.1 * 2.0**self._early_deaths)
        self._template = TemplateHandle(COMPILERS[self._choice], delay, self._readable, self._report_walls.required)
        self._unanswered = 0
        self.generation += 1

    def _fork(self, child: Child) -> None:
        """Have the template fork a child. If that can't be, the child is reported dead."""
        self._children[child.number] = child
        if child.channel is not None:
            self._by_fd[child.channel.fileno()] = child
        self._unsent.append(child)
        self.generation += 1
        try:
            if self._template is None:
                self._launch()
        except OSError as error:
            self._unsent.remove(child)
            self._report(self._gone(child, f"could not be started: {error}"))
        self._flush()

    def _flush(self) -> None:
        while self._template is not None and self._unsent and self._unanswered < _MAX_UNANSWERED:
            child = self._unsent.popleft()
            message, fds = child.request()
            kind = "runner" if isinstance(child, RunnerHandle) else "compiler"
            entry = self._cgroups.make(kind, child.number) if self._cgroups is not None else []
            try:
                self._template.channel.send(message, [*fds, *entry])
            except ChannelClosed:
                return  # reading will tell the same, and then all children are reported dead
            except ChannelError as error:
                self._report(self._gone(child, f"could not be started: {error}"))
            else:
                child.far_end.close()
                self._unanswered += 1
            finally:
                close_all(entry)

    def _heard(self, child: Child, fd: int, events: list[ProcessEvent]) -> None:
        """What a child said may matter to more than the core."""
        if child.channel is None:
            self._by_fd.pop(fd, None)
            self.generation += 1
        if isinstance(child, CompilerHandle):
            self._compilers.keep(child, events)
        elif events and isinstance(events[0], RunnerReady):
            own = self._cgroups.report if self._cgroups is not None else ()
            self._report_walls.note(self._runners[events[0].slot].walls or (), own)
            self._compilers.rest()  # not before: at the start of a worker, nothing is more urgent than its runners

    def _hear_template(self, template: TemplateHandle) -> list[ProcessEvent]:
        events: list[ProcessEvent] = []
        try:
            while (received := template.channel.receive()) is not None:
                (kind, number, detail), fds = codec.unpack(received[0]), received[1]
                if kind != "exited":
                    self._unanswered -= 1
                if kind == "started" and not fds:  # we are out of descriptors, and can't hold a process without one
                    raise ChannelError("The template sent no pidfd.")
                if kind == "started":
                    self._children[number].started(detail, fds[0])
                    if len(fds) > 1:
                        self._children[number].furnished(fds[1:])
                else:
                    self._children[number].unsupported = kind == "unsupported"
                    events += self._gone(self._children[number], detail)
        except ChannelError:
            events += self._template_died(template)
        self._flush()
        self._compilers.proceed()
        return events

    def _gone(self, child: Child, how: str) -> list[ProcessEvent]:
        """A child is dead: what it had still said, then its death."""
        if child.channel is not None:
            self._by_fd.pop(child.channel.fileno(), None)
        events = child.last_words() + child.died(how)
        if self._cgroups is not None and self._cgroups.ended(child.number):
            for event in events:
                if isinstance(event, RunnerDied):
                    event.starved = True
        del self._children[child.number]
        if isinstance(child, RunnerHandle):
            del self._runners[child.slot]
        elif isinstance(child, CompilerHandle):
            self._compilers.keep(child, events)
            self._compilers.gone(child)
        child.close()
        self.generation += 1
        return events

    def _template_died(self, template: TemplateHandle) -> list[ProcessEvent]:
        """Its children die with it. A new one starts, later each time if it keeps dying."""
        self._early_deaths = self._early_deaths + 1 if template.age() < _YOUNG_S else 0
        template.stop(0.0)
        self._template = None
        self._unsent.clear()
        with contextlib.suppress(OSError):  # the next spawn tries again, and reports
            self._launch()
        events: list[ProcessEvent] = []
        for child in list(self._children.values()):
            child.kill()
            events += self._gone(child, "killed by SIGKILL: its template died")
        return events

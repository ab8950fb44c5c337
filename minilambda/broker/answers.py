"""What the broker's core says to its peers, and what it counts of their mistakes."""

from __future__ import annotations

from minilambda.broker.events import Action, ModuleSlice, Route, Send
from minilambda.broker.jobs import Job
from minilambda.broker.promises import MAX_HELD, Promises
from minilambda.broker.registry import Worker
from minilambda.broker.views import refusal
from minilambda.errors import Busy, MinilambdaError
from minilambda.messages import Message, Reply
from minilambda.settings import BrokerSettings


class Answers:
    """The words of a core: each becomes an action of the present step, or waits for the disk."""

    def __init__(self, settings: BrokerSettings, durable: bool) -> None:
        self.settings = settings
        self.promises = Promises(durable)
        self.rejected: dict[str, int] = {}  # what peers got wrong, counted by kind
        self._actions: list[Action] = []  # of this step

    def send(self, route: Route, message: Message, part: ModuleSlice | None = None) -> None:
        """Say something that promises nothing."""
        self._actions.append(Send(route, message, part))

    def reply(self, route: Route, message: Reply, job: Job) -> None:
        """Say something about a job, once the disk has its latest record."""
        promises = self.promises
        if job.saved <= promises.written:
            self._actions.append(Send(route, message))
        elif promises.held < MAX_HELD:
            promises.wait(Send(route, message), job.saved, job)
        else:
            self.refuse(route, message, Busy("The broker's disk is slow and too many requests wait for it."))

    def tell(self, worker: Worker, message: Message, job: Job | None = None, part: ModuleSlice | None = None) -> None:
        """Say something to a worker, once the disk knows the worker and has the job's latest record."""
        written, saved = self.promises.written, 0 if job is None else job.saved
        if saved <= written and worker.saved <= written:
            self._actions.append(Send(worker.route, message, part))
        else:
            number = max(saved, worker.saved)
            self.promises.wait(Send(worker.route, message, part), number, job if saved else None)

    def refuse(self, route: Route, message: Message, error: MinilambdaError) -> None:
        """Answer a request with an error; ``message`` is the request, or the reply that can't be given."""
        self.send(route, refusal(message, error, self.settings.busy_retry))

    def count(self, kind: str) -> None:
        """A peer got something wrong."""
        self.rejected[kind] = self.rejected.get(kind, 0) + 1

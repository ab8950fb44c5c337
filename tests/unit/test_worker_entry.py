"""When people are told that a worker finds no broker."""

from __future__ import annotations

from minilambda.worker.entry import UNANSWERED, Entry
from minilambda.worker.link import Link


def unanswered() -> Link:
    """A worker that has asked often enough."""
    return Link(lambda: 0.5, tries=UNANSWERED)


def test_a_worker_without_a_broker_says_so_once() -> None:
    told: list[str] = []
    entry = Entry("tcp://127.0.0.1:9")
    entry.on_unanswered = lambda: told.append("no broker")
    entry.tell(Link(lambda: 0.5, tries=UNANSWERED - 1))
    assert not told
    for _ in range(3):
        entry.tell(unanswered())
    assert told == ["no broker"]


def test_a_worker_that_ends_does_not_say_that_there_is_no_broker() -> None:
    told: list[str] = []
    entry = Entry("tcp://127.0.0.1:9")
    entry.on_unanswered = lambda: told.append("no broker")
    entry.tell(unanswered(), ending=True)
    assert not told

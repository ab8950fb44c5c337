"""An upload with a few pieces on their way: lost ones, refused ones, other connections, a broker that starts anew."""

from __future__ import annotations

import random

import pytest

from minilambda.client.calls import PIECE, Patience, Send
from minilambda.client.pieces import IN_FLIGHT
from minilambda.errors import Busy, RequestError
from minilambda.messages import JobResult, Put, Refused, Reply, Stored
from tests.client_talk import DIGEST, Bytes, Talk, result, run, welcome

SIZE = 6 * PIECE + 5
MODULE = Bytes(SIZE)


class Broker:
    """The broker's side of an upload, which takes pieces in their order only."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.received = 0  # bytes
        self.begun = len(talk.sent)  # what was sent before that does not count

    def incoming(self) -> list[Send]:
        """What was sent since this was asked last."""
        found = self.talk.sent[self.begun :]
        self.begun = len(self.talk.sent)
        return found

    def take(self, send: Send) -> Stored:
        put, piece = send.message, send.piece
        assert isinstance(put, Put) and put.size == SIZE
        if piece is not None and put.offset == self.received:
            assert (piece.offset, piece.source) == (put.offset, MODULE)
            self.received += piece.size
        return Stored(put.request, DIGEST, self.received, self.received == SIZE)

    def answer(self, send: Send) -> None:
        self.talk.answer(self.take(send))


@pytest.fixture
def talk() -> Talk:
    made = Talk(Patience(busy=5.0))
    number = made.start(Put(0, DIGEST, SIZE), MODULE)
    made.greet()
    assert made.last().request == number and made.sent[-1].piece is None
    return made


@pytest.fixture
def broker(talk: Talk) -> Broker:
    """The upload was asked for, and the first pieces are on their way."""
    made = Broker(talk)
    talk.answer(Stored(talk.last().request, DIGEST, 0, False))
    return made


def offsets(sends: list[Send]) -> list[int | None]:
    """Which pieces these are; None asks."""
    return [None if send.piece is None else send.piece.offset // PIECE for send in sends]


def test_several_pieces_are_on_their_way_but_never_more(talk: Talk, broker: Broker) -> None:
    under_way = broker.incoming()
    assert offsets(under_way) == list(range(IN_FLIGHT))
    while under_way:
        broker.answer(under_way.pop(0))
        under_way += broker.incoming()
        assert len(under_way) == min(IN_FLIGHT, -(-(SIZE - broker.received) // PIECE))
    assert broker.received == SIZE and talk.ended == {1: Stored(talk.last().request, DIGEST, SIZE, True)}


def test_each_piece_has_a_request_number_of_its_own_until_it_is_answered(talk: Talk, broker: Broker) -> None:
    first, second = (send.message.request for send in broker.incoming())
    assert len({first, second, 1}) == 3 and first in talk.core and second in talk.core
    talk.answer(Stored(first, DIGEST, PIECE, False))
    assert first not in talk.core and second in talk.core and len(talk.core) == 1


def test_a_piece_that_was_not_taken_is_sent_again_with_those_behind_it(talk: Talk, broker: Broker) -> None:
    lost, second = broker.incoming()
    broker.answer(second)
    again = broker.incoming()
    assert offsets(again) == [0, 1]
    broker.answer(lost)  # it came late, and its answer means nothing any more
    assert not broker.incoming()
    for send in again:
        broker.answer(send)
    assert offsets(broker.incoming()) == [2, 3]


def test_a_broker_that_starts_anew_in_the_middle_gets_all_again(talk: Talk, broker: Broker) -> None:
    for send in broker.incoming():
        broker.answer(send)
    broker.incoming()
    talk.core.disconnected(talk.now)
    broker.received = 0
    talk.wait(0.0)
    (asks,) = broker.incoming()
    assert asks.piece is None
    broker.answer(asks)
    assert offsets(broker.incoming()) == [0, 1]


def test_after_silence_it_asks_first_and_goes_on_from_there(talk: Talk, broker: Broker) -> None:
    under_way = broker.incoming()
    for send in under_way:
        broker.take(send)  # and the answers are lost
    talk.wait(60.0)
    asks = broker.incoming()
    assert asks and set(offsets(asks)) == {None}
    broker.answer(asks[-1])
    assert offsets(broker.incoming()) == [2, 3]


def test_an_answer_that_comes_twice_to_the_question_changes_nothing(talk: Talk, broker: Broker) -> None:
    under_way = broker.incoming()
    for _ in range(10):
        talk.answer(Stored(1, DIGEST, 0, False))
    assert not broker.incoming() and not talk.ended
    broker.answer(under_way[0])
    assert offsets(broker.incoming()) == [2]


def test_a_busy_broker_is_sent_the_refused_piece_again_later(talk: Talk, broker: Broker) -> None:
    refused, second = broker.incoming()
    talk.answer(Refused(refused.message.request, "busy", "The store is full.", 500))
    broker.answer(second)
    talk.wait(0.4)
    assert not broker.incoming()
    talk.wait(0.2)
    assert offsets(broker.incoming()) == [0, 1]


def test_a_broker_that_stays_busy_ends_the_upload(talk: Talk, broker: Broker) -> None:
    for _ in range(20):
        sends = broker.incoming()
        if sends:
            talk.answer(Refused(sends[0].message.request, "busy", "The store is full.", 500))
        talk.wait(0.5)
    assert isinstance(talk.ended[1], Busy) and len(talk.core) == 0


def test_one_piece_that_is_refused_for_good_ends_the_upload(talk: Talk, broker: Broker) -> None:
    _, second = broker.incoming()
    talk.answer(Refused(second.message.request, "bad_request", "The hash is another."))
    assert isinstance(talk.ended[1], RequestError)
    assert second.message.request not in talk.core and len(talk.core) == 0


def test_a_piece_that_can_not_be_read_ends_the_upload(talk: Talk, broker: Broker) -> None:
    _, second = broker.incoming()
    talk.take(talk.core.fail(second.message.request, OSError("It is gone."), talk.now))
    assert isinstance(talk.ended[1], OSError) and len(talk.core) == 0


def test_what_another_connection_has_sent_is_not_sent_again(talk: Talk, broker: Broker) -> None:
    first, second = broker.incoming()
    broker.received = 4 * PIECE
    broker.answer(first)
    broker.answer(second)
    assert offsets(broker.incoming()) == [4, 5]


def test_another_connection_with_other_pieces_is_followed(talk: Talk, broker: Broker) -> None:
    first, second = broker.incoming()
    broker.answer(first)
    broker.incoming()
    broker.received += PIECE // 2
    broker.answer(second)
    third, fourth = broker.incoming()
    assert third.piece == (MODULE, 3 * PIECE // 2, PIECE) and fourth.piece == (MODULE, 5 * PIECE // 2, PIECE)


def test_a_broker_that_has_all_and_does_not_say_that_it_is_complete_ends_the_upload(talk: Talk, broker: Broker) -> None:
    talk.answer(Stored(broker.incoming()[0].message.request, DIGEST, SIZE, False))
    assert isinstance(talk.ended[1], RequestError)


def test_a_dropped_upload_forgets_its_pieces(talk: Talk, broker: Broker) -> None:
    sends = broker.incoming()
    talk.core.drop(1)
    assert len(talk.core) == 0 and not any(send.message.request in talk.core for send in sends)
    broker.answer(sends[0])
    talk.wait(30.0)
    assert not broker.incoming() and not talk.ended


@pytest.mark.parametrize("seed", range(40))
def test_an_upload_comes_to_its_end_whatever_is_lost(seed: int) -> None:
    """Requests and answers are lost or late, the broker forgets all, another connection helps; then all is well."""
    chance = random.Random(seed).random
    talk = Talk(Patience(busy=1000.0))
    number = talk.start(run(), MODULE)
    talk.answer(welcome(talk.last().request, resend_ms=100))
    broker = Broker(talk)
    late: list[Reply] = []
    for step in range(400):
        rough = step < 200
        for send in broker.incoming():
            if not isinstance(send.message, Put):
                refused = Refused(number, "not_found", "Send the module.")
                late.append(result(number) if broker.received == SIZE else refused)
            elif not rough or chance() < 0.8:
                late.append(broker.take(send))
        if rough and chance() < 0.05:
            broker.received = 0
            late.clear()
            talk.core.disconnected(talk.now)
        if rough and chance() < 0.05:
            broker.received = min(SIZE - 1, broker.received + int(chance() * 2 * PIECE))
        while late and (not rough or chance() < 0.7):
            reply = late.pop(0)
            if not rough or chance() < 0.9:
                talk.answer(reply)
        talk.wait(0.05 if chance() < 0.9 else 30.0)
        if number in talk.ended:
            break
    ended = talk.ended[number]
    assert isinstance(ended, JobResult) or (isinstance(ended, RequestError) and "takes no more" in ended.message), ended
    assert len(talk.core) == 0

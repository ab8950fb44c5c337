"""Who may say what: the list of keys, the table of roles, and what a changed list means."""

from __future__ import annotations

import pytest

from minilambda.broker.authority import EVERYBODY, MAY, Authority, make_entry, parse_authority
from minilambda.curve import make_pair
from minilambda.keys import BadKey, key_bytes, principal_of
from minilambda.messages import (
    BROKER_MESSAGES,
    CLIENT_MESSAGES,
    REPLIES,
    WORKER_MESSAGES,
    GetStatus,
    Hello,
    ListJobs,
    ListModules,
    ListWorkers,
    Message,
)
from minilambda.messages.functions import ListFunctions
from minilambda.messages.overview import GetOverview, ListClients

KEYS = {role: make_pair().public for role in ("client", "worker", "admin", "observer", "other")}
LIST = Authority([make_entry(role, KEYS[role], f"the-{role}") for role in ("client", "worker", "admin", "observer")])
WHO = {role: principal_of(key) for role, key in KEYS.items()}
OBSERVED = {Hello, GetStatus, ListJobs, ListModules, ListWorkers, ListFunctions, ListClients, GetOverview}
ALL = sorted({*CLIENT_MESSAGES, *WORKER_MESSAGES, *REPLIES, *BROKER_MESSAGES}, key=lambda kind: kind.TYPE)


def allowed(role: str, kind: type[Message]) -> bool:
    """Said once more, from the other side: by the tables of the protocol."""
    if role == "worker":
        return kind in WORKER_MESSAGES
    if role == "observer":
        return kind in OBSERVED
    return kind in CLIENT_MESSAGES and (role == "admin" or kind not in {ListWorkers, ListClients, GetOverview})


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.TYPE)
@pytest.mark.parametrize("role", ["client", "worker", "admin", "observer"])
def test_each_role_may_send_its_own_messages_and_no_others(role: str, kind: type[Message]) -> None:
    why = LIST.refusal(WHO[role], kind)
    assert why == "" if allowed(role, kind) else f"role {role}, which may not send '{kind.TYPE}'" in why


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.TYPE)
@pytest.mark.parametrize("principal", [WHO["other"], "", "local", EVERYBODY], ids="other nobody local all".split())
def test_who_is_not_in_the_list_may_send_nothing(principal: str, kind: type[Message]) -> None:
    assert "does not know this key" in LIST.refusal(principal, kind)


def test_every_message_of_a_client_or_a_worker_is_for_some_role() -> None:
    assert set().union(*MAY.values()) == {*CLIENT_MESSAGES, *WORKER_MESSAGES}


def test_a_list_is_the_same_after_it_was_written_and_read() -> None:
    again = parse_authority(LIST.text())
    assert again.entries == LIST.entries
    entry = again.by_key(key_bytes(KEYS["worker"]))
    assert entry is not None and (entry.role, entry.name) == ("worker", "the-worker")
    assert again.by_key(key_bytes(KEYS["other"])) is None
    assert parse_authority("").entries == parse_authority("# nobody\n\n").entries == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("client", "a line is ROLE"),
        (f"king {KEYS['other']} x", "'king' is not a role; choose admin, client, observer, worker"),
        (f"client {KEYS['other'][:-1]} x", "A key has 40 characters"),
        (f"client {KEYS['other']} {'x' * 65}", "A name has 1 to 64"),
        (f"client {KEYS['client']} y", "twice"),
        (f"client {KEYS['other']} the-admin", "twice"),
    ],
    ids="parts role key name same-key same-name".split(),
)
def test_a_bad_list_is_refused_with_its_line(line: str, says: str) -> None:
    with pytest.raises(BadKey, match=f"keys, line 6: .*{says}"):
        parse_authority(LIST.text() + line + "\n", "keys")


def test_a_key_gets_one_role_and_a_name_belongs_to_one_key() -> None:
    more = LIST.with_key("worker", KEYS["client"], "new")
    assert len(more.entries) == 4 and more.role(WHO["client"]) == "worker" and more.name(WHO["client"]) == "new"
    with pytest.raises(BadKey, match="'the-admin' belongs to another key"):
        LIST.with_key("client", KEYS["other"], "the-admin")


@pytest.mark.parametrize("who", ["the-worker", KEYS["worker"], WHO["worker"]], ids="name key principal".split())
def test_a_key_is_revoked_by_name_by_itself_and_by_principal(who: str) -> None:
    less, gone = LIST.without(who)
    assert gone.public == KEYS["worker"] and less.role(WHO["worker"]) == "" and len(less.entries) == 3
    with pytest.raises(BadKey, match="No key of that name"):
        less.without(who)


def test_who_is_revoked_or_has_another_role_has_lost_its_role() -> None:
    assert LIST.lost(LIST) == frozenset()
    assert LIST.lost(LIST.with_key("client", KEYS["other"], "x")) == frozenset()
    assert LIST.lost(LIST.without("the-worker")[0]) == {WHO["worker"]}
    assert LIST.lost(LIST.with_key("client", KEYS["admin"], "x")) == {WHO["admin"]}
    assert LIST.lost(Authority()) == {WHO[role] for role in KEYS if role != "other"}

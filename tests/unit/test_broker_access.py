"""The broker's core with keys: whose jobs are whose, and what becomes of those who lose the right to talk."""

from __future__ import annotations

from typing import Any

import pytest

from minilambda.broker.authority import Authority, make_entry
from minilambda.broker.events import AccessChanged, Received, Send
from minilambda.curve import make_pair
from minilambda.errors import Forbidden
from minilambda.keys import principal_of
from minilambda.messages import (
    Accepted,
    Cancel,
    GetResult,
    GetStatus,
    JobList,
    JobResult,
    JobSpec,
    JobStatus,
    ListJobs,
    ListWorkers,
    Message,
    Refused,
    Register,
    Registered,
    Run,
    RunAgain,
    WorkerList,
)
from tests.broker_world import DIGEST, WASM, World

NAMES = ("alice", "bob", "worker", "worker2", "root")
ROLES = {"alice": "client", "bob": "client", "worker": "worker", "worker2": "worker", "root": "admin"}
PUBLIC = {name: make_pair().public for name in NAMES}
WHO = {name: principal_of(PUBLIC[name]) for name in NAMES}
LIST = Authority([make_entry(ROLES[name], PUBLIC[name], name) for name in NAMES])


@pytest.fixture
def at() -> World:
    made = World()
    made.core.access.authority = LIST
    return made


def give(at: World, name: str, message: Message) -> Message:
    """One message from the connection of somebody with a key, and the one answer."""
    actions = at.core.handle(Received((name.encode(), b""), WHO[name], message), at.now)
    answers = [each.message for each in actions if isinstance(each, Send) and each.route[0] == name.encode()]
    at.core.check()
    (answer,) = answers
    return answer


def submit(at: World, name: str, job: str, request: int = 1) -> None:
    run = Run(request, job, JobSpec(DIGEST), detach=True, wasm=WASM)
    assert type(give(at, name, run)) is Accepted


def wait_for(at: World, name: str, job: str, principal: str = "", wait_ms: int = 1000) -> None:
    message = GetResult(7, job, wait_ms, principal)
    assert at.core.handle(Received((name.encode(), b""), WHO[name], message), at.now) == []


def change(at: World, later: Authority, *cut: str) -> list[Any]:
    lost = LIST.lost(later)
    connections = frozenset(name.encode() for name in cut)
    actions = at.core.handle(AccessChanged(later, lost, connections), at.now)
    at.core.check()
    return actions


@pytest.mark.parametrize("ask", [GetStatus, GetResult, Cancel])
def test_a_clients_job_is_nothing_to_another_client(at: World, ask: Any) -> None:
    submit(at, "alice", "j")
    answer = give(at, "bob", ask(2, "j"))
    assert type(answer) is Refused and answer.code == "not_found"
    answer = give(at, "bob", ask(2, "j", principal=WHO["alice"]))
    assert type(answer) is Refused and answer.code == "forbidden"
    assert at.core.jobs[WHO["alice"], "j"].state == "queued"
    assert at.core.rejected == {"forbidden": 1}


def test_a_client_neither_lists_nor_repeats_the_jobs_of_another(at: World) -> None:
    submit(at, "alice", "j")
    own = give(at, "bob", ListJobs(2))
    assert type(own) is JobList and own.jobs == ()
    for asked in (WHO["alice"], "*"):
        answer = give(at, "bob", ListJobs(2, principal=asked))
        assert type(answer) is Refused and answer.code == "forbidden"
    answer = give(at, "bob", RunAgain(3, "k", "j"))
    assert type(answer) is Refused and answer.code == "not_found"


def test_an_admin_sees_and_cancels_everybodys_jobs_and_sees_workers(at: World) -> None:
    submit(at, "alice", "j")
    submit(at, "bob", "j")
    jobs = give(at, "root", ListJobs(2, principal="*"))
    assert type(jobs) is JobList
    assert [(row["job"], row["principal"]) for row in jobs.jobs] == [("j", WHO["bob"]), ("j", WHO["alice"])]
    state = give(at, "root", GetStatus(3, "j", WHO["bob"]))
    assert type(state) is JobStatus and state.state == "queued"
    state = give(at, "root", Cancel(4, "j", WHO["bob"]))
    assert type(state) is JobStatus and state.state == "cancelled"
    assert type(give(at, "root", GetResult(5, "j", 0, WHO["bob"]))) is JobResult
    assert type(give(at, "root", ListWorkers(6))) is WorkerList
    assert at.core.jobs[WHO["alice"], "j"].state == "queued"


def test_a_worker_is_bound_to_the_key_that_registered_it(at: World) -> None:
    register = Register("w", "w", 1)
    assert type(give(at, "worker", register)) is Registered
    answer = give(at, "worker2", register)
    assert type(answer) is Refused and answer.code == "forbidden" and answer.request == 0
    assert at.core.workers.by_id["w"].route[0] == b"worker"


def test_the_jobs_of_a_revoked_worker_run_elsewhere(at: World) -> None:
    give(at, "worker", Register("w", "w", 1))
    submit(at, "alice", "j")
    assert at.core.jobs[WHO["alice"], "j"].state == "assigned"
    change(at, LIST.without("worker")[0], "worker")
    job = at.core.jobs[WHO["alice"], "j"]
    assert (job.state, job.losses, len(at.core.workers)) == ("queued", 1, 0)
    give_all = at.core.handle(Received((b"worker2", b""), WHO["worker2"], Register("w2", "w2", 1)), at.now)
    assert [each.message.TYPE for each in give_all if isinstance(each, Send)] == ["registered", "dispatch"]
    answer = give(at, "worker", Register("w", "w", 1))
    assert type(answer) is Refused and answer.code == "forbidden"


def test_a_revoked_client_is_not_answered_and_its_jobs_go_on(at: World) -> None:
    submit(at, "alice", "j")
    wait_for(at, "alice", "j")
    wait_for(at, "root", "j", WHO["alice"])
    assert change(at, LIST.without("alice")[0], "alice") == []
    job = at.core.jobs[WHO["alice"], "j"]
    assert job.state == "queued" and [each.route[0] for each in job.waiters] == [b"root"]
    answer = give(at, "alice", GetStatus(9, "j"))
    assert type(answer) is Refused and answer.code == "forbidden"
    actions = at.core.handle(Received((b"root", b""), WHO["root"], Cancel(4, "j", WHO["alice"])), at.now)
    told = [(each.route[0], each.message.TYPE) for each in actions if isinstance(each, Send)]
    assert told == [(b"root", "result"), (b"root", "state")] and job.state == "cancelled"


def test_a_worker_whose_key_becomes_a_clients_is_no_worker_any_more(at: World) -> None:
    give(at, "worker", Register("w", "w", 1))
    change(at, LIST.with_key("client", PUBLIC["worker"], "worker"), "worker")
    assert len(at.core.workers) == 0
    answer = give(at, "worker", Register("w", "w", 1))
    assert type(answer) is Refused and "role client" in answer.message


def test_a_key_more_changes_nothing_for_the_others(at: World) -> None:
    give(at, "worker", Register("w", "w", 1))
    submit(at, "alice", "j")
    wait_for(at, "alice", "j")
    assert change(at, LIST.with_key("client", make_pair().public, "new")) == []
    assert len(at.core.workers) == 1
    assert [each.route[0] for each in at.core.jobs[WHO["alice"], "j"].waiters] == [b"alice"]


def test_only_an_admin_may_name_another_principal(at: World) -> None:
    rights = at.core.access
    assert rights.owner(WHO["alice"], "") == rights.owner(WHO["alice"], WHO["alice"]) == WHO["alice"]
    assert rights.owner(WHO["root"], WHO["alice"]) == WHO["alice"] and rights.owner(WHO["root"], "*") == "*"
    for sender in ("alice", "worker"):
        for asked in (WHO["root"], "*", "local"):
            with pytest.raises(Forbidden, match="Only an admin"):
                rights.owner(WHO[sender], asked)
    assert World().core.access.owner("local", "*") == "*"

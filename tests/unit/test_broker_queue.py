"""The fair queue: turns between principals and groups, priority, age, removal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minilambda.broker.jobs import Job
from minilambda.broker.queue import FairQueue
from minilambda.messages import JobSpec
from tests.broker_world import DIGEST


def job(number: int, principal: str = "a", group: str = "", priority: int = 0) -> Job:
    spec = JobSpec(DIGEST, group=group, priority=priority)
    return Job((principal, f"j{number}"), spec, b"", b"", 0, number, 0.0, 0.0)


def drain(queue: FairQueue) -> list[int]:
    numbers = []
    while queue:
        numbers.append(queue.pop().number)
        queue.check()
    return numbers


def filled(*jobs: Job) -> FairQueue:
    queue = FairQueue()
    for item in jobs:
        queue.push(item)
        queue.check()
    return queue


def test_within_a_group_the_higher_priority_goes_first_and_then_the_older() -> None:
    queue = filled(job(1), job(2, priority=5), job(3), job(4, priority=5), job(5, priority=-1))
    assert drain(queue) == [2, 4, 1, 3, 5]


def test_one_job_of_a_principal_waits_for_one_turn_however_many_another_has() -> None:
    queue = filled(*(job(n) for n in range(1000)), job(1000, "b", priority=-100))
    assert queue.pop().number == 0
    assert queue.pop().number == 1000


def test_the_groups_of_one_principal_take_turns_and_do_not_add_to_its_share() -> None:
    queue = filled(job(1, group="x"), job(2, group="y"), job(3, group="x"), job(4, "b"), job(5, "b"))
    assert drain(queue) == [1, 4, 2, 5, 3]


def test_a_job_that_comes_back_goes_before_all_others() -> None:
    queue = filled(job(1), job(2), job(3, "b"))
    first = queue.pop()
    queue.push(first, first=True)
    assert drain(queue) == [1, 3, 2]


def test_several_jobs_that_come_back_keep_their_order() -> None:
    queue = filled(*(job(n) for n in range(6)))
    back = [queue.pop() for _ in range(3)]
    for item in reversed(back):
        queue.push(item, first=True)
    assert drain(queue) == [0, 1, 2, 3, 4, 5]


def test_removed_jobs_leave_no_memory_behind() -> None:
    keep = job(0)
    queue = filled(keep)
    for number in range(1, 2000):
        extra = job(number)
        queue.push(extra)
        queue.remove(extra)
        assert queue.check() < 64
    assert drain(queue) == [0]


class Naive:
    """The same rules by looking at everything."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, list[str]]] = []
        self.jobs: list[Job] = []

    def push(self, item: Job, first: bool) -> None:
        at = 0 if first else len(self.turns)
        principal = next((turn for turn in self.turns if turn[0] == item.key[0]), None)
        if principal is None:
            principal = (item.key[0], [])
            self.turns.append(principal)
        if item.spec.group not in principal[1]:
            principal[1].append(item.spec.group)
        if first:
            self.turns.remove(principal)
            self.turns.insert(at, principal)
            principal[1].remove(item.spec.group)
            principal[1].insert(0, item.spec.group)
        self.jobs.append(item)

    def remove(self, item: Job) -> None:
        self.jobs.remove(item)
        for principal, groups in list(self.turns):
            for group in list(groups):
                if not any(job.key[0] == principal and job.spec.group == group for job in self.jobs):
                    groups.remove(group)
        self.turns = [turn for turn in self.turns if turn[1]]

    def pop(self) -> Job:
        principal, groups = self.turns[0]
        group = groups[0]
        mine = [job for job in self.jobs if job.key[0] == principal and job.spec.group == group]
        best = min(mine, key=lambda job: (-job.spec.priority, job.number))
        self.turns.append(self.turns.pop(0))
        groups.append(groups.pop(0))
        self.remove(best)
        return best


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.sampled_from("abc"), st.sampled_from(["", "x", "y"]), st.integers(-2, 2)),
            st.tuples(st.just("pop"), st.booleans()),
            st.tuples(st.just("remove"), st.integers(0, 1000)),
        ),
        max_size=80,
    )
)
def test_the_queue_is_the_same_as_the_rules_taken_literally(steps: list[tuple]) -> None:
    queue, naive, number = FairQueue(), Naive(), 0
    for step in steps:
        if step[0] == "push":
            number += 1
            item = job(number, step[1], step[2], step[3])
            queue.push(item)
            naive.push(item, False)
        elif step[0] == "pop" and queue:
            item = queue.pop()
            assert item is naive.pop()
            if step[1]:
                queue.push(item, first=True)
                naive.push(item, True)
        elif step[0] == "remove" and queue:
            item = naive.jobs[step[1] % len(naive.jobs)]
            queue.remove(item)
            naive.remove(item)
        queue.check()
        assert len(queue) == len(naive.jobs)
    while queue:
        assert queue.pop() is naive.pop()

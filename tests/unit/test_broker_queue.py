"""The fair queue: turns between principals and groups, priority, age, removal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minilambda.broker.jobs import Job
from minilambda.broker.queue import IDLE, FairQueue
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


def test_who_runs_long_jobs_waits_for_those_who_run_short_ones() -> None:
    # given: jobs of a take 100 times as long as those of b
    queue = filled(*(job(n) for n in range(200)), *(job(n, "b") for n in range(200, 400)))
    served: dict[str, int] = {"a": 0, "b": 0}
    # when
    for _ in range(202):
        item = queue.pop()
        served[item.key[0]] += 1
        queue.settle(item, 1.0 if item.key[0] == "a" else 0.01)
    # then
    assert served["a"] <= 4 and served["b"] >= 198


def test_groups_share_by_what_they_use_within_their_principal() -> None:
    queue = filled(*(job(n, group="long") for n in range(50)), *(job(n, group="short") for n in range(50, 100)))
    long = 0
    for _ in range(40):
        item = queue.pop()
        long += item.spec.group == "long"
        queue.settle(item, 1.0 if item.spec.group == "long" else 0.05)
    assert long <= 4


def test_who_was_away_has_saved_nothing_up() -> None:
    queue = filled(*(job(n) for n in range(100)))
    for _ in range(50):
        queue.settle(queue.pop(), 1.0)
    for number in range(100, 200):
        queue.push(job(number, "late"))
    first = [queue.pop() for _ in range(10)]
    assert 4 <= sum(item.key[0] == "late" for item in first) <= 6


def test_who_comes_later_does_not_wait_for_what_others_were_only_taken_to_use() -> None:
    # given: jobs have been long so far, so those of a are charged much in advance, and prove short
    queue = filled(*(job(n) for n in range(3)))
    while queue:
        queue.settle(queue.pop(), 100.0)
    for number in range(10, 200):
        queue.push(job(number, "a", "many"))
    flight = [queue.pop() for _ in range(12)]
    # when
    queue.push(job(500, "a", "one"))
    for item in flight:
        queue.settle(item, 0.03)
    # then
    assert 500 in [queue.pop().number for _ in range(2)]


def test_a_job_that_never_began_costs_nothing() -> None:
    queue = filled(job(1), job(2), job(3), job(4, "b"), job(5, "b"))
    order = []
    for _ in range(4):
        item = queue.pop()
        order.append(item.key[0])
        queue.settle(item, None if item.key[0] == "a" else 1.0)
    assert order == ["a", "b", "a", "a"]


def test_what_is_remembered_of_groups_that_are_gone_is_bounded() -> None:
    queue = FairQueue()
    for number in range(5000):
        item = job(number, principal=f"p{number}", group=f"g{number}")
        queue.push(item)
        queue.settle(queue.pop(), 1.0)
    assert len(queue._principals.shares) <= IDLE + 1


class Naive:
    """Priority and age within a group, and what came back before all else. Whose turn it is, is not its matter."""

    def __init__(self) -> None:
        self.back: list[Job] = []
        self.jobs: list[Job] = []

    def push(self, item: Job, first: bool) -> None:
        self.jobs.append(item)
        if first:
            self.back.append(item)

    def remove(self, item: Job) -> None:
        self.jobs.remove(item)
        if item in self.back:
            self.back.remove(item)

    def may_go(self, item: Job) -> bool:
        if self.back:
            return item is self.back[-1]
        mine = [job for job in self.jobs if (job.key[0], job.spec.group) == (item.key[0], item.spec.group)]
        return item is min(mine, key=lambda job: (-job.spec.priority, job.number))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.sampled_from("abc"), st.sampled_from(["", "x", "y"]), st.integers(-2, 2)),
            st.tuples(st.just("pop"), st.sampled_from([None, 0.01, 2.0, 50.0])),
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
            assert naive.may_go(item)
            naive.remove(item)
            if step[1] is None:
                queue.settle(item, None)
                queue.push(item, first=True)
                naive.push(item, True)
            else:
                queue.settle(item, step[1])
        elif step[0] == "remove" and queue:
            item = naive.jobs[step[1] % len(naive.jobs)]
            queue.remove(item)
            naive.remove(item)
        queue.check()
        assert len(queue) == len(naive.jobs)
    while queue:
        item = queue.pop()
        assert naive.may_go(item)
        naive.remove(item)


def counts(queue: FairQueue) -> list[object]:
    """What the shares have used and have at work; the order of the turns follows from it."""
    found: list[object] = []
    for turns in (queue._principals, *(share.groups for share in queue._principals.shares.values())):
        assert turns is not None
        found += [turns.level, turns.idle, [*turns.shares], sorted(turns.active)]
        found += [(s.spent, s.pending, s.waiting, s.running, s.average) for s in turns.shares.values()]
    return found


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x"]), st.floats(0, 9)), max_size=30))
def test_a_job_that_passes_through_is_charged_like_one_that_was_queued_alone(
    steps: list[tuple[str, str, float]],
) -> None:
    straight, queued, jobs = FairQueue(), FairQueue(), []
    for number, (principal, group, used) in enumerate(steps):
        one, other = job(number, principal, group), job(number, principal, group)
        straight.pass_through(one)
        queued.push(other)
        assert queued.pop() is other
        assert counts(straight) == counts(queued)
        jobs.append((one, other, used))
        if used > 3:
            first, second, took = jobs.pop(0)
            straight.settle(first, took)
            queued.settle(second, took)
            assert counts(straight) == counts(queued)

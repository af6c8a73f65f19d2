"""Who is next: order, bounded overtaking, fair shares between tenants, deadlines."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.core.balance import Funds
from adaptive_rate_limiter.core.queue import AGEING, LOOKAHEAD, OVERTAKING, Call, FairQueue


def call(size=1.0, since=0.0, **fields):
    made = Call({"requests": 1.0, "tokens": size}, since=since, **fields)
    made.size = size
    return made


def served(queue, funds=None, share=0.01):
    next_call = queue.next(lambda _now: funds, 0.0)
    queue.serve(next_call, share)
    return next_call


def test_arrival_order_within_a_tenant():
    queue = FairQueue()
    calls = [call(since=float(index)) for index in range(5)]
    for item in calls:
        queue.push(item)
    assert [served(queue) for _ in calls] == calls
    assert queue.next(lambda _now: None, 0.0) is None
    assert (queue.count, queue.totals, queue.lanes) == (0, {}, {})


def test_priority_is_worth_some_waiting_and_no_more():
    queue = FairQueue()
    plain = call(since=0.0)
    urgent = call(since=AGEING - 1, priority=1)
    late = call(since=AGEING + 1, priority=1)
    for item in (late, plain, urgent):
        queue.push(item)
    assert [served(queue) for _ in range(3)] == [urgent, plain, late]


def test_priority_switches_balance_off():
    queue = FairQueue()
    for size in (5.0, 1.0):
        queue.push(call(size, priority=1))
    assert served(queue, Funds(prefer_large=False, payable=10.0)).size == 5.0


@pytest.mark.parametrize(
    ("funds", "size"),
    [
        (None, 5.0),
        (Funds(prefer_large=False, payable=9.0), 1.0),
        (Funds(prefer_large=True, payable=100.0), 9.0),
        (Funds(prefer_large=True, payable=6.0), 5.0),
        (Funds(prefer_large=True, payable=0.5), 1.0),
    ],
)
def test_balance_takes_what_the_fuller_side_can_pay(funds, size):
    queue = FairQueue()
    for each in (5.0, 9.0, 1.0):
        queue.push(call(each))
    assert queue.next(lambda _now: funds, 0.0).size == size


def test_equal_sizes_go_in_order_whatever_is_fuller():
    queue = FairQueue()
    calls = [call(2.0, since=float(index)) for index in range(3)]
    for item in calls:
        queue.push(item)
    assert queue.next(lambda _now: Funds(prefer_large=True, payable=9.0), 0.0) is calls[0]


@given(
    st.lists(st.tuples(st.floats(1, 1000), st.booleans(), st.floats(0, 1200)), min_size=1, max_size=120),
    st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_nobody_is_overtaken_for_ever(work, arrivals_between):
    """The call at position k of arrival order goes within 17 (k + 1) dispatches."""
    queue = FairQueue()
    waiting = iter([call(size) for size, _, _ in work])
    position, arrived = {}, 0
    for item in itertools.islice(waiting, 40):
        queue.push(item)
        position[id(item)], arrived = arrived, arrived + 1
    for dispatches, (_, prefer_large, payable) in enumerate(work, start=1):
        if not queue.count:
            break
        item = served(queue, Funds(prefer_large, payable))
        assert dispatches <= (OVERTAKING + 1) * (position[id(item)] + 1)
        for newcomer in itertools.islice(waiting, arrivals_between):
            queue.push(newcomer)
            position[id(newcomer)], arrived = arrived, arrived + 1


@given(
    st.lists(st.floats(0.001, 0.1), min_size=10, max_size=150),
    st.lists(st.floats(0.001, 0.1), min_size=10, max_size=150),
    st.sampled_from([0.5, 1.0, 3.0]),
)
@settings(max_examples=80, deadline=None)
def test_two_busy_tenants_get_service_by_weight(first, second, weight):
    """While both are busy, their weighted service differs by no more than the largest call of each."""
    queue = FairQueue()
    queue.weights = {"a": 1.0, "b": weight}
    for tenant, shares in (("a", first), ("b", second)):
        for share in shares:
            item = call(tenant=tenant)
            item.share = share
            queue.push(item)
    service = {"a": 0.0, "b": 0.0}
    bound = max(first) + max(second) / weight
    while len([lane for lane in queue.lanes.values() if lane.count]) == 2:
        item = queue.next(lambda _now: None, 0.0)
        queue.serve(item, item.share)
        service[item.tenant] += item.share / queue.weights[item.tenant]
        assert abs(service["a"] - service["b"]) <= bound + 1e-9


def test_idleness_earns_nothing():
    queue = FairQueue()
    for _ in range(20):
        queue.push(call(tenant="busy"))
    for _ in range(10):
        served(queue, share=0.1)
    for _ in range(5):
        queue.push(call(tenant="late"))
    order = [served(queue, share=0.1).tenant for _ in range(6)]
    assert order.count("late") == 3


def test_settling_for_less_is_credited_to_the_tenant():
    queue = FairQueue()
    for tenant in ("a", "b", "a", "b"):
        queue.push(call(tenant=tenant))
    assert served(queue, share=0.5).tenant == "a"
    assert served(queue, share=0.3).tenant == "b"
    queue.correct("a", 0.4)
    queue.correct("nobody", 0.4)
    assert served(queue).tenant == "a"


def test_deadlines_are_answered_when_they_come():
    queue = FairQueue()
    calls = [call(deadline=deadline) for deadline in (5.0, None, 3.0)]
    for item in calls:
        queue.push(item)
    assert queue.next_deadline() == 3.0
    assert queue.expired(2.9) == []
    assert queue.expired(5.0) == [calls[2], calls[0]]
    assert queue.next_deadline() == float("inf")
    assert queue.calls() == [calls[1]]


def test_leaving_keeps_the_sums():
    queue = FairQueue()
    calls = [call(size) for size in (2.0, 2.0, 7.0)]
    for item in calls:
        queue.push(item)
    queue.remove(calls[0])
    assert queue.totals == {"requests": 2.0, "tokens": 9.0}
    assert queue.next(lambda _now: None, 0.0) is calls[1]


class Size(float):
    """Counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        Size.compared += 1
        return float(self) == other

    def __lt__(self, other):
        Size.compared += 1
        return float(self) < other

    __hash__ = float.__hash__


def test_who_leaves_a_line_of_equals_is_found_without_a_look_at_each_of_them():
    queue = FairQueue()
    line = [call(size=Size(1.0), since=float(index)) for index in range(LOOKAHEAD + 100)]
    for item in line:
        queue.push(item)
    before = Size.compared
    for item in (
        line[-1],
        line[LOOKAHEAD // 2],
    ):  # beyond those that are looked at for balance, and among them
        queue.remove(item)
    assert Size.compared - before < 100
    assert [served(queue) for _ in range(queue.count)] == [
        item for item in line if item not in (line[-1], line[LOOKAHEAD // 2])
    ]


def test_another_attempt_keeps_its_place():
    old = call(since=3.0, priority=2, tenant="t", deadline=9.0)
    again = old.again()
    assert (again.rank, again.tenant, again.deadline, again.hold) == (old.rank, "t", 9.0, None)

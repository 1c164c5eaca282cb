"""The queue: who is served next, and what each tenant may hold of it. Steps follow weights, and nobody starves."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.queue import LEFT_AT_MOST, MAX_SERVED, MAX_TOLD, REST, FairQueue, WaitingRequest, tenant_key

TENANTS = ("a", "b", "c")
numbers = count()


def waiting(
    tenant: str = "a", steps: int = 10, deadline_s: float = 1.0, choosy: bool = False, line: str = ""
) -> WaitingRequest:
    """One more request."""
    return WaitingRequest(
        tenant=tenant, deadline_s=deadline_s, number=next(numbers), steps=steps, choosy=choosy, line=line
    )


def queue_of(*requests: WaitingRequest, weights: Mapping[str, float] | None = None) -> FairQueue[WaitingRequest]:
    queue = FairQueue[WaitingRequest](weights or {})
    for request in requests:
        queue.add(request)
    return queue


def filled(requests: Mapping[str, int], weights: Mapping[str, float] | None = None) -> FairQueue[WaitingRequest]:
    """So many requests of one step by tenant."""
    many = (waiting(tenant, 1) for tenant, num in requests.items() for _ in range(num))
    return queue_of(*many, weights=weights)


def served(queue: FairQueue[WaitingRequest], slots: int) -> list[WaitingRequest]:
    """Those that so many free slots go to."""
    started: list[WaitingRequest] = []

    def start(request: WaitingRequest) -> bool:
        if len(started) == slots:
            return False
        started.append(request)
        return True

    queue.serve(start)
    return started


@given(
    weights=st.fixed_dictionaries({name: st.integers(1, 8).map(float) for name in TENANTS}),
    sizes=st.fixed_dictionaries({name: st.integers(1, 50) for name in TENANTS}),
)
def test_steps_follow_weights(weights: dict[str, float], sizes: dict[str, int]) -> None:
    """Steps over weight differ by at most one request of each between any two tenants: large requests buy nothing."""
    queue = queue_of(*(waiting(name, sizes[name]) for name in TENANTS for _ in range(300)), weights=weights)
    given_steps = Counter[str]()
    for request in served(queue, 300):
        given_steps[request.tenant] += request.steps
    largest = {name: sizes[name] / weights[name] for name in TENANTS}
    normal = {name: given_steps[name] / weights[name] for name in TENANTS}
    for one in TENANTS:
        for other in TENANTS:
            assert abs(normal[one] - normal[other]) <= largest[one] + largest[other] + 1e-6


def test_idle_tenant_saves_nothing_up() -> None:
    """After a long silence a tenant takes turns like the others, it does not take all of them."""
    queue = filled({"busy": 120})
    served(queue, 100)
    for _ in range(20):
        queue.add(waiting("back", 1))
    turns = Counter(request.tenant for request in served(queue, 20))
    assert abs(turns["back"] - 10) <= 1


def test_nearest_deadline_of_a_tenant_is_first() -> None:
    """Of equal ones the one that came first, whoever left in between."""
    queue = queue_of(*(waiting(deadline_s=deadline_s) for deadline_s in (5.0, 3.0, 9.0, 3.0, 1.0)))
    queue.remove(next(request for request in queue if request.deadline_s == 9.0))
    order = [(request.deadline_s, request.number) for request in served(queue, 10)]
    assert [deadline_s for deadline_s, _ in order] == [1.0, 3.0, 3.0, 5.0]
    assert order == sorted(order)


def test_who_may_not_take_the_free_slot_is_passed_over() -> None:
    """A choosy request keeps its place and lets others pass; any other one speaks for all of its line."""
    bound, free = waiting(deadline_s=1.0, choosy=True), waiting(deadline_s=2.0)
    queue = queue_of(bound, free)
    asked: list[WaitingRequest] = []

    def start(request: WaitingRequest) -> bool:
        asked.append(request)
        return request is free

    queue.serve(start)
    assert asked == [bound, free]
    assert list(queue) == [bound]
    queue.add(waiting(deadline_s=2.0))
    assert served(queue, 1) == [bound]


@pytest.mark.parametrize("tenants", [("a", "a", "a"), ("a", "b", "c")])
def test_line_without_room_delays_no_other(tenants: tuple[str, ...]) -> None:
    """It is asked once, whosever requests stand in it."""
    near, behind = (waiting(tenant, deadline_s=1.0, line="full") for tenant in tenants[:2])
    other = waiting(tenants[2], deadline_s=9.0, line="free")
    queue = queue_of(near, behind, other)
    asked: list[str] = []

    def start(request: WaitingRequest) -> bool:
        asked.append(str(request.line))
        return request.line == "free"

    queue.serve(start)
    assert asked == ["full", "free"]
    assert {*queue} == {near, behind}


def test_request_that_nobody_awaits_leaves_while_it_is_offered_a_slot() -> None:
    """It is charged nothing and blocks nobody."""
    gone, behind = waiting(deadline_s=1.0), waiting(deadline_s=2.0)
    queue = queue_of(gone, behind)

    def start(request: WaitingRequest) -> bool:
        if request is gone:
            queue.remove(request)
            return False
        return True

    queue.serve(start)
    assert (queue.count, queue.steps, list(queue)) == (0, 0, [])


def _sizes(queue: FairQueue[WaitingRequest]) -> Iterator[int]:
    """Requests that lie in the queue's heaps."""
    return (len(line) for tenant in queue._tenants.values() for line in tenant.lines.values())


@given(st.integers(0, 10_000))
def test_counts_are_of_those_that_wait(seed: int) -> None:
    """Through any arrivals, ends and services, and what left takes no room for long."""
    draw, queue, inside = random.Random(seed), FairQueue[WaitingRequest]({}), list[WaitingRequest]()
    for _ in range(200):
        match draw.choice(("add", "add", "remove", "serve")):
            case "add":
                request = waiting(draw.choice(TENANTS), draw.randint(1, 9), draw.random(), draw.random() < 0.3)
                queue.add(request)
                inside.append(request)
            case "remove" if inside:
                queue.remove(inside.pop(draw.randrange(len(inside))))
            case "serve":
                gone = served(queue, draw.randint(0, 3))
                inside = [request for request in inside if request not in gone]
        assert {*queue} == {*inside}
        assert (queue.count, queue.steps) == (len(inside), sum(request.steps for request in inside))
        assert sum(_sizes(queue)) <= 2 * len(inside) + LEFT_AT_MOST
    assert {request.number for request in served(queue, 1000)} == {request.number for request in inside}


def test_tenants_that_came_once_leave_nothing_behind() -> None:
    """Their number is not bounded, what is kept of them is."""
    queue = FairQueue[WaitingRequest]({})
    for number in range(3 * MAX_SERVED):
        queue.add(waiting(f"t{number}"))
        assert len(served(queue, 1)) == 1
        assert queue.steps_ahead(f"t{number}") == 0
    assert len(queue._served) <= MAX_SERVED + 1
    assert not queue._tenants


def test_flood_of_one_tenant_delays_another_by_little() -> None:
    """A tenant without a queue waits for nobody's backlog; one with a queue waits for its share of the others'."""
    flood, calm = waiting("flood", 5000), waiting("calm", 50)
    assert queue_of(flood).steps_ahead("calm") == 0
    assert queue_of(flood, calm).steps_ahead("calm") == 100
    assert queue_of(flood, calm, weights={"calm": 5.0}).steps_ahead("calm") == 60
    assert queue_of(flood).steps_ahead("flood") == 5000


def test_queue_is_shared_once_it_fills() -> None:
    """Alone a tenant may fill it; in company it has its weighted part. The others' requests are counted beside it."""
    assert filled({"a": 10}).room("a", 100) == 100
    assert filled({"a": 90}).room("a", 100) == 100
    assert filled({"a": 60}).room("b", 100) == 100
    assert filled({"a": 90, "b": 4}).room("a", 100) == 50 + 4
    assert filled({"a": 60, "b": 1}, weights={"b": 3.0}).room("a", 100) == 25 + 1


def test_few_tenants_are_told_by_name_and_the_others_as_one() -> None:
    """Those that have most; nothing is left out of the sum."""
    few = filled({"a": 3, "b": 1})
    assert few.steps_by_tenant() == {tenant_key("a"): 3, tenant_key("b"): 1}
    sizes = {f"t{number}": number + 1 for number in range(40)}
    told = filled(sizes).steps_by_tenant()
    most = {tenant_key(f"t{number}"): number + 1 for number in range(40 - MAX_TOLD, 40)}
    assert told == most | {REST: sum(sizes.values()) - sum(most.values())}
    assert REST not in most

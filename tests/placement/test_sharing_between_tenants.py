"""Fairness: waiting tenants get denoising steps in the ratio of their weights, and nobody starves."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.fair_queue import FairClock, next_tenant, queue_limit, steps_ahead

TENANTS = ("a", "b", "c")


def serve(weights: dict[str, float], sizes: dict[str, int], rounds: int) -> Counter[str]:
    """Steps given to tenants that always have requests waiting."""
    clock, given_steps = FairClock(), Counter[str]()
    for _ in range(rounds):
        tenant = next_tenant(clock, weights)
        assert tenant is not None
        clock = clock.served(tenant, sizes[tenant], weights[tenant])
        given_steps[tenant] += sizes[tenant]
    return given_steps


@given(
    weights=st.fixed_dictionaries({name: st.integers(1, 8).map(float) for name in TENANTS}),
    sizes=st.fixed_dictionaries({name: st.integers(1, 50) for name in TENANTS}),
)
def test_steps_follow_weights(weights: dict[str, float], sizes: dict[str, int]) -> None:
    """Steps over weight differ by at most one request of each between any two tenants: large requests buy nothing."""
    shares = serve(weights, sizes, rounds=300)
    largest = {name: sizes[name] / weights[name] for name in TENANTS}
    normal = {name: shares[name] / weights[name] for name in TENANTS}
    for one in TENANTS:
        for other in TENANTS:
            assert abs(normal[one] - normal[other]) <= largest[one] + largest[other] + 1e-6


def test_idle_tenant_saves_nothing_up() -> None:
    """After a long silence a tenant takes turns like the others, it does not take all of them."""
    clock = FairClock()
    for _ in range(100):
        clock = clock.served("busy", 50, 1.0)
    turns = []
    for _ in range(20):
        tenant = next_tenant(clock, ["busy", "back"])
        assert tenant is not None
        turns.append(tenant)
        clock = clock.served(tenant, 50, 1.0)
    assert abs(Counter(turns)["back"] - 10) <= 1


def test_clock_forgets_those_that_left() -> None:
    """A thousand tenants that came once leave no thousand entries behind."""
    clock = FairClock()
    for number in range(1000):
        clock = clock.served(f"t{number}", 10, 1.0)
    clock = clock.served("t0", 10, 1.0)
    clock = clock.served("t0", 10, 1.0)
    assert len(clock.clocks) <= 2


def test_flood_of_one_tenant_delays_another_by_little() -> None:
    """A tenant without a queue waits for nobody's backlog; one with a queue waits for its share of the others'."""
    assert steps_ahead({"flood": 5000}, "calm", {}) == 0
    assert steps_ahead({"flood": 5000, "calm": 50}, "calm", {}) == 100
    assert steps_ahead({"flood": 5000, "calm": 50}, "calm", {"calm": 5.0}) == 60
    assert steps_ahead({"flood": 5000}, "flood", {}) == 5000


def test_queue_is_shared_once_it_fills() -> None:
    """Alone a tenant may fill it; in company it has its weighted part."""
    assert queue_limit({"a": 10}, "a", {}, 100) == 100
    assert queue_limit({"a": 90}, "a", {}, 100) == 100
    assert queue_limit({"a": 60}, "b", {}, 100) == 50
    assert queue_limit({"a": 60, "b": 1}, "b", {"b": 3.0}, 100) == 75

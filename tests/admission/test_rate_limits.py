"""A tenant gets what its limits allow in a minute, and hears when there is more; others do not notice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_api.gateway import RateLimitsPart
from t2i_gateway.tenant_rates import MAX_TENANTS, TenantRates
from t2i_policy.request.admission import RefusedReason
from t2i_policy.request.rate_limits import RateCost, RateLimit, RateUsage, judge_rate

IMAGE = RateCost(1, 20)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def rates(clock: Clock, gateways: int = 1, **part: object) -> TenantRates:
    return TenantRates(RateLimitsPart.model_validate(part), gateways, clock)


def admit(some: TenantRates, tenant: str = "a", cost: RateCost = IMAGE) -> float | None:
    """When to come back; None = it was admitted, and counts."""
    refused = some.judge(tenant, cost)
    if refused is None:
        some.charge(tenant, cost)
        return None
    assert refused.reason is RefusedReason.RATE_LIMITED
    return refused.retry_after_s


def test_minutes_worth_at_once_and_then_at_the_rate() -> None:
    """Who comes back when it is told to gets the next one."""
    clock = Clock()
    some = rates(clock, requestsPerMinute=6)
    assert [admit(some) for _ in range(6)] == [None] * 6
    wait_s = admit(some)
    assert wait_s == pytest.approx(10.0)
    clock.now_s += wait_s + 1e-6
    assert admit(some) is None
    assert admit(some) == pytest.approx(10.0)


def test_steps_count_what_is_really_run() -> None:
    """Images of a cheaper level, or a smaller size, are more for the same limit."""
    clock = Clock()
    some = rates(clock, stepsPerMinute=100)
    assert [admit(some, cost=RateCost(1, 50)) for _ in range(3)][:2] == [None, None]
    assert [admit(some, "b", RateCost(1, 10)) for _ in range(11)].count(None) == 10


def test_image_above_a_minutes_worth_is_paid_off_later() -> None:
    """Otherwise it could never be drawn, and its client would come back for ever."""
    clock = Clock()
    some = rates(clock, stepsPerMinute=10)
    assert admit(some, cost=RateCost(1, 30)) is None
    assert admit(some, cost=RateCost(1, 1)) == pytest.approx(126.0)
    clock.now_s += 126.1
    assert admit(some, cost=RateCost(1, 1)) is None


def test_gateways_share_a_limit() -> None:
    """Two of them let through what one would; each lets a first image through, however small its share."""
    clock = Clock()
    pair = [rates(clock, 2, requestsPerMinute=6) for _ in range(2)]
    assert sum(admit(one) is None for one in pair for _ in range(6)) == 6
    many = rates(clock, 4, requestsPerMinute=1)
    assert admit(many) is None
    assert admit(many) == pytest.approx(240.0)


def test_limits_of_a_named_tenant_replace_those_of_all() -> None:
    """What it does not say is as for all."""
    clock = Clock()
    named = [{"name": "vip", "requestsPerMinute": 5}, {"name": "small", "stepsPerMinute": 20}]
    some = rates(clock, requestsPerMinute=2, tenants=named)
    assert [[admit(some, who) for _ in range(6)].count(None) for who in ("a", "b", "vip", "small")] == [2, 2, 5, 1]


def test_nothing_is_limited_by_default() -> None:
    some = rates(Clock())
    assert [admit(some, cost=RateCost(10, 10_000)) for _ in range(100)] == [None] * 100


def test_tenants_without_end_take_no_memory_without_end() -> None:
    """Names can be anything where callers are believed. Who paid off all is forgotten first."""
    clock = Clock()
    some = rates(clock, requestsPerMinute=60)
    for number in range(MAX_TENANTS + 500):
        admit(some, str(number))
        clock.now_s += 0.0001
    assert len(some._used) <= MAX_TENANTS + 1
    assert admit(some, "last") is None


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60)), min_size=1, max_size=60),
    st.integers(1, 100),
)
def test_no_minute_has_more_than_two_minutes_worth_and_an_image(asked: list[tuple[float, int]], limit: int) -> None:
    """A full bucket and a minute's refill; the last image may go beyond."""
    usage, now_s, admitted = RateUsage(), 0.0, []
    for wait_s, steps in asked:
        now_s += wait_s
        usage = usage.at(RateLimit(steps=limit), now_s)
        if judge_rate(usage, RateLimit(steps=limit), RateCost(1, steps)) is None:
            usage = usage.plus(RateCost(1, steps))
            admitted.append((now_s, steps))
    for began_s, _ in admitted:
        in_a_minute = sum(steps for at_s, steps in admitted if began_s <= at_s < began_s + 60)
        assert in_a_minute <= 2 * limit + 60

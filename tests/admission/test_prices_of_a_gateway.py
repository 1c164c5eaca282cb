"""The prices that a gateway decides by are as fresh as its demand, whoever makes the plan."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from played_workers import world
from small_pools import RULES, asks, mix, pool_of, steady
from t2i_api.pool import GatewayPart
from t2i_gateway.dispatch import Dispatcher
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.planning_loop import PlanningLoop
from t2i_policy.policies import PRICES_EVERY_S, PromptAware
from t2i_policy.request.served import ServedReason

BUSY_S = 1000.0
NOBODY_CAN_DRAW_SO_MANY_RPS = 40.0


@dataclass
class Played:
    """A gateway whose own planning never runs, as where it follows the operator's plans."""

    planning: PlanningLoop
    now_s: float = 0.0

    def reason(self) -> ServedReason:
        """Why an idle pool serves the level that it serves."""
        decided = self.planning.policy.serve(RULES, self.planning.course_now(), asks(0.65), pool_of())
        return decided.served.reason


@pytest.fixture(params=[1])
async def played(request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    """One of `param` gateways."""
    async with world() as workers:
        policy, metrics = PromptAware(), GatewayMetrics(CollectorRegistry())
        dispatcher = Dispatcher(policy, workers.pool, GatewayPart(replicas=request.param), metrics)
        planning = PlanningLoop(policy, RULES, dispatcher, metrics, clock=lambda: found.now_s)
        found = Played(planning)
        yield found


async def test_demand_is_paid_for_without_a_plan(played: Played) -> None:
    """Prices follow what was counted, a second later at most."""
    assert played.reason() is ServedReason.AS_WANTED
    for _ in range(1000):
        played.planning.count("0.65")
    assert played.reason() is ServedReason.AS_WANTED  # the price of a moment ago
    played.now_s += PRICES_EVERY_S
    assert played.reason() is ServedReason.LOAD


async def test_first_request_after_a_pause_does_not_pay_for_the_demand_before_it(played: Played) -> None:
    """It is decided before it is counted."""
    played.now_s, played.planning.demand = BUSY_S, steady(mix(NOBODY_CAN_DRAW_SO_MANY_RPS), BUSY_S)
    assert played.reason() is ServedReason.LOAD
    played.now_s += 3600.0
    assert played.reason() is ServedReason.AS_WANTED


@pytest.mark.parametrize("played", [4], indirect=True)
async def test_gateway_that_has_heard_of_no_other_takes_each_to_have_as_much(played: Played) -> None:
    """The price is that of the pool, not of a part of its demand."""
    played.now_s, played.planning.demand = BUSY_S, steady(mix(2.0), BUSY_S)
    assert played.planning.course_now().prices.rate_rps == pytest.approx(8.0)
    assert played.planning.rate_rps == pytest.approx(2.0)  # what it tells the others is its own

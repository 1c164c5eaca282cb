"""Baselines that switch the whole pool, a group, or a share of requests: Sommelier, INFaaS and the cascade."""

from dataclasses import replace

import pytest

from small_pools import (
    EXACT,
    EXACT_RPS,
    K5,
    K10,
    K20,
    K25,
    RULES,
    STEP_S,
    N,
    asks,
    mix,
    planned,
    pool_of,
    seen,
    sent_to,
    worker,
    workers_at,
)
from t2i_policy.level import Level
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity
from t2i_policy.pool_view import PoolView
from t2i_simulator.rivals.cascade import Cascade, escalated_share, escalations
from t2i_simulator.rivals.common import Strength
from t2i_simulator.rivals.infaas import InfaasAccuracy, VariantByBacklog, next_rung
from t2i_simulator.rivals.mean_losses import ALL_PROMPTS
from t2i_simulator.rivals.sommelier import Sommelier

# --- Sommelier ---


@pytest.mark.parametrize(("load", "level"), [(0.5, EXACT), (1.0, EXACT), (1.05, K5), (1.6, K20), (1.9, K25), (9, K25)])
def test_sommelier_takes_the_best_level_that_carries_an_equal_share(load: float, level: Level) -> None:
    """All equal workers come to the same answer."""
    assert workers_at(planned(Sommelier(), (load - 1e-6) * EXACT_RPS)) == {level: 8}


def test_sommelier_groups_answer_alone() -> None:
    """The slow device skips where the fast one need not; each gets its share by heads, not by speed."""
    fast = tuple(step / 3 for step in STEP_S)
    views = [replace(worker(f"f{n}"), step_s=fast, group="fast") for n in range(4)]
    pool = PoolView((*views, *(worker(f"s{n}") for n in range(4))), 0, 0)
    plan = planned(Sommelier(), 8 * 0.39, pool)
    assert plan.workers == {("fast", EXACT): 4, ("gpu", K20): 4}
    assert plan.shift_map == {ALL_PROMPTS: {EXACT: 0.5, K20: 0.5}}


# --- INFaaS ---


@pytest.mark.parametrize(
    ("latency_s", "queued", "rung"),
    [
        pytest.param(19.0, 1.0, 2, id="in the band: stay"),
        pytest.param(20.5, 1.0, 3, id="late: down"),
        pytest.param(10.0, 1.0, 1, id="early: up"),
        pytest.param(10.0, 4.0, 5, id="a long queue: the lightest at once"),
    ],
)
def test_infaas_moves_a_rung(latency_s: float, queued: float, rung: int) -> None:
    """From rung 2 of 5 at an SLO of 20 s."""
    assert next_rung(2, 5, latency_s, 20.0, queued) == rung


def test_infaas_puts_the_whole_pool_at_one_level_and_climbs_back() -> None:
    """A queue sends all to K=25; when it is gone, a rung a step."""
    policy = InfaasAccuracy()
    plan = planned(policy, 1.0, pool_of(running=4, queued=40))
    assert workers_at(plan) == {K25: 8}
    assert sent_to(policy, plan, 0.1, 0.3) == K25
    for level in (K20, Level(15, N)):
        plan = policy.replan(RULES, plan, seen(mix(1.0)))
        assert workers_at(plan) == {level: 8}


def test_variant_follows_the_backlog_at_once() -> None:
    """From exact to the lightest as the backlog eats the slack, without a planning step in between."""
    policy = VariantByBacklog(0.0, 1.0, Strength(), "infaas")
    steps_per_s, slack_s = 8 / STEP_S[0], 20 - 4.2
    served = [
        policy.serve(RULES, NO_PLAN, asks(0.97), PoolView(pool_of().workers, 1, round(share * slack_s * steps_per_s)))
        for share in (0.0, 0.4, 1.0)
    ]
    assert [decided.served.level for decided in served] == [EXACT, K10, K25]


# --- the cascade ---


def test_cascade_escalates_what_the_pool_carries() -> None:
    """e = (1 - D / C_light) C_exact / D with D = 1.2 x demand."""
    groups = [GroupCapacity("gpu", 8, {EXACT: 0.25, K25: 0.5})]  # 2/s exact, 4/s light
    shares = [escalated_share(groups, K25, EXACT, rps) for rps in (0.0, 1.0, 2.0, 3.0, 4.0, 9.0)]
    assert shares == pytest.approx([1.0, 1.0, 0.5, 1 / 6, 0.0, 0.0])


def test_cascade_escalates_the_worst_first() -> None:
    """The class that loses most goes whole, the next by a draw, the rest not."""
    chances = escalations({"far": 0.2, "mid": 0.1, "near": 0.01}, {"far": 0.2, "mid": 0.4, "near": 0.4}, 0.3)
    assert chances == pytest.approx({"far": 1.0, "mid": 0.25, "near": 0.0})


def test_cascade_runs_escalated_requests_twice() -> None:
    """Light steps first, as `extra_steps`; the served level and its loss are exact; the estimate has both runs."""
    policy, plan = Cascade(), planned(Cascade(), 1.5)
    near = policy.serve(RULES, plan, asks(0.97, draw=0.9), pool_of())
    far = policy.serve(RULES, plan, asks(0.70, draw=0.1), pool_of())
    assert (near.served.level, near.extra_steps) == (K25, 0)
    assert (far.served.level, far.extra_steps, far.served.expected_loss) == (EXACT, 25, 0.0)
    assert far.served.estimated_s == pytest.approx(75 * STEP_S[0])


def test_cascade_sheds_escalation_under_overload() -> None:
    """When light alone is too much, nothing runs twice."""
    plan = planned(Cascade(), 3 * EXACT_RPS)
    decided = Cascade().serve(RULES, plan, asks(0.1, draw=0.0), pool_of())
    assert (decided.served.level, decided.extra_steps) == (K25, 0)


def test_cascade_runs_once_where_light_is_not_to_be_had() -> None:
    """No latent: exact at once, not twice."""
    decided = Cascade().serve(RULES, planned(Cascade(), 0.1), asks(None, draw=0.0), pool_of())
    assert (decided.served.level, decided.extra_steps) == (EXACT, 0)

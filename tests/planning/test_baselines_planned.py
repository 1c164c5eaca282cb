"""Baselines that plan: Proteus, PAC, the paper, Sommelier, INFaaS and the cascade, each by what defines it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_pools import (
    EXACT,
    EXACT_RPS,
    K5,
    K10,
    K20,
    K25,
    RULES,
    SKIPS,
    STEP_S,
    asks,
    mix,
    place_level,
    planned,
    pool_of,
    seen,
    sent_to,
    worker,
    workers_at,
)
from t2i_policy.planning.plan import NO_PLAN, PlanOutcome
from t2i_policy.policies import PoolState, ServingPolicy
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.request.placement import PlacementReason
from t2i_simulator.rivals.cascade import Cascade
from t2i_simulator.rivals.common import RivalDecided, Strength, in_line
from t2i_simulator.rivals.infaas import InfaasAccuracy
from t2i_simulator.rivals.mean_losses import ALL_PROMPTS, mean_capacities, mean_levels
from t2i_simulator.rivals.pac import PromptAgnostic
from t2i_simulator.rivals.paper import ThePaper, class_name
from t2i_simulator.rivals.proteus import MIN_BETA, Proteus, feasible_beta
from t2i_simulator.rivals.sommelier import Sommelier

# --- what prompt-agnostic systems know ---


def test_mean_losses_are_over_the_demand() -> None:
    """A K=25 that loses 17 % to strangers and 0.85 % to near-duplicates loses the mean of both, by their rates."""
    means = mean_levels(RULES, {"-1.00": 1.0, "0.95": 3.0})
    assert means[K25].loss == pytest.approx((0.17 + 3 * 0.0085) / 4)
    assert (means[K25].steps, set(means)) == (25.0, set(SKIPS))


def test_prompts_without_a_latent_make_a_level_slower() -> None:
    """Half of those sent to K=25 run exact: 37.5 steps an image, half the loss."""
    means = mean_levels(RULES, {"none": 1.0, "0.95": 1.0})
    assert means[K25].steps == pytest.approx(37.5)
    assert means[K25].loss == pytest.approx(0.0085 / 2)
    (named,), (real,) = seen({}).groups, mean_capacities(seen({}).groups, means)
    assert real.rates_rps[K25] == pytest.approx(named.rates_rps[K25] * 25 / 37.5)
    assert real.rates_rps[EXACT] == pytest.approx(named.rates_rps[EXACT])


# --- Proteus ---


@pytest.mark.parametrize(
    ("load", "beta"), [(0.5, 1.05), (1.9, 1.05), (1.94, 1.0), (2.05, 0.95), (4.0, 0.5), (100.0, MIN_BETA)]
)
def test_proteus_lowers_beta_until_feasible(load: float, beta: float) -> None:
    """The pool makes twice its exact rate at the most."""
    groups = seen({}).groups
    assert feasible_beta(groups, load * EXACT_RPS, 1.05) == pytest.approx(beta)


@settings(max_examples=40, deadline=None)
@given(total_rps=st.floats(0.0, 10.0))
def test_proteus_plan_is_feasible_and_its_shares_sum_to_one(total_rps: float) -> None:
    """Every worker at one level, beta x demand carried at each level, everything routed somewhere."""
    plan = planned(Proteus(), total_rps)
    capacity = seen({}).groups[0].rates_rps
    assert plan is not None
    assert sum(plan.workers.values()) == 8
    if total_rps < 1e-3:
        return
    assert sum(plan.shift_map[ALL_PROMPTS].values()) == pytest.approx(1.0)
    for level, share in plan.shift_map[ALL_PROMPTS].items():
        standing = sum(count for (_, at), count in plan.workers.items() if at == level)
        made_rps = standing * capacity[level]
        assert share * plan.memory["beta"] * total_rps * (1 - plan.shed_rps / total_rps) <= made_rps + 1e-5


def test_proteus_is_blind_to_the_prompt() -> None:
    """A stranger and a near-duplicate with the same draw are sent to the same level."""
    plan = planned(Proteus(), 1.5 * EXACT_RPS)
    for n in range(20):
        draw = (n + 0.5) / 20
        assert sent_to(Proteus(), plan, 0.1, draw) == sent_to(Proteus(), plan, 0.99, draw)


def test_proteus_routes_by_weights() -> None:
    """Draws fall on levels by the plan's shares."""
    plan = planned(Proteus(), 1.5 * EXACT_RPS)
    levels = [sent_to(Proteus(), plan, 0.8, (n + 0.5) / 2000) for n in range(2000)]
    for level, share in plan.shift_map[ALL_PROMPTS].items():
        assert levels.count(level) / 2000 == pytest.approx(share, abs=2e-3)


def test_proteus_plans_with_half_the_slo() -> None:
    """At an SLO of 8 s an exact image of 4.2 s is too long for half of it, though it would be in time."""
    plan = Proteus().replan(replace(RULES, slo_s=8.0), NO_PLAN, seen(mix(0.5)))
    assert EXACT not in plan.shift_map[ALL_PROMPTS]


def test_proteus_solves_once_a_period() -> None:
    """Not before 10 s have passed, however demand jumps, unless workers went."""
    policy, plan = Proteus(), planned(Proteus(), 1.0)
    assert policy.replan(RULES, plan, seen(mix(5.0), now_s=1009.0)) is plan
    assert policy.replan(RULES, plan, seen(mix(5.0), now_s=1010.0)).revision == 2
    assert policy.replan(RULES, plan, seen(mix(1.0), pool_of(7), now_s=1001.0)).revision == 2


def test_workers_of_one_level_wait_for_their_own() -> None:
    """A request for K=25 waits while only workers at K=0 are free; with nobody at K=25 any worker takes it."""
    busy = worker("w0", running=4, level=K25)
    pool = PoolView((busy, worker("w1", level=EXACT)), 0, 0)
    for policy in (Proteus(), ThePaper(), Sommelier(), InfaasAccuracy()):
        assert policy.place(K25, pool, 20.0, frozenset()) is None
        assert policy.place(K10, pool, 20.0, frozenset()) is not None
        elsewhere = policy.place(K25, pool, 20.0, frozenset({"w0"}))
        assert elsewhere is not None
        assert elsewhere.worker == "w1"


def test_a_hole_is_run_by_the_worker_it_was_sent_to() -> None:
    """Sent to K=25, nothing stored: runs exact, at a worker of K=25, and is estimated there."""
    plan = planned(Proteus(), 10.0)
    pool = pool_of(2, levels={0: K25, 1: EXACT})
    decided = Proteus().serve(RULES, plan, asks(None), pool)
    assert (decided.served.level, decided.sent_to, place_level(decided)) == (EXACT, K25, K25)
    placed = Proteus().place(place_level(decided), pool, 20.0, frozenset())
    assert placed is not None
    assert placed.worker == "w0"


def test_admission_reckons_with_the_line_of_its_own_level() -> None:
    """Others wait for K=0; a request for K=25 finds an idle worker. 300 steps in its own line are 300 x 84 ms there."""
    plan = planned(Proteus(), 10.0)
    pool = pool_of(2, queued=50, levels={0: K25, 1: EXACT})
    decided = Proteus().serve(RULES, plan, asks(0.97), pool)
    assert decided.served.estimated_s == pytest.approx(25 * STEP_S[0])
    assert isinstance(decided, RivalDecided)
    behind = in_line(decided, pool, 300).served.estimated_s
    assert behind == pytest.approx((300 + 25) * STEP_S[0])


@pytest.mark.parametrize("make", [Proteus, Sommelier, InfaasAccuracy, ThePaper], ids=lambda make: make.__name__)
def test_any_worker_takes_any_level_where_the_engine_allows_it(make: Callable[[Strength], ServingPolicy]) -> None:
    """All at K=25 are busy, one at K=0 is free: the freed rival goes there, and waits in nobody's line."""
    policy = make(Strength(any_worker=True))
    pool = PoolView((worker("w0", running=4, level=K25), worker("w1", level=EXACT)), 0, 0)
    placed = policy.place(K25, pool, 20.0, frozenset())
    assert placed is not None
    assert placed.worker == "w1"
    decided = policy.serve(RULES, planned(policy, 10.0), asks(0.97), pool)
    assert isinstance(decided, RivalDecided)
    assert decided.sent_to is None


@pytest.mark.parametrize("make", [Proteus, Sommelier, PromptAgnostic, ThePaper], ids=lambda make: make.__name__)
def test_headroom_plans_for_more_than_is_seen(make: Callable[[Strength], ServingPolicy]) -> None:
    """Just what the pool makes in full: with half as much again to spare, prompts are sent to cheaper levels."""
    rates_rps = paper_demand(0.9 * EXACT_RPS) if make is ThePaper else mix(0.9 * EXACT_RPS)

    def mean_steps(headroom: float) -> float:
        counts = workers_at(make(Strength(headroom)).replan(RULES, NO_PLAN, seen(rates_rps)))
        return sum(level.steps_run * count for level, count in counts.items()) / 8

    assert mean_steps(1.5) < mean_steps(1.0)


# --- PAC ---


def test_pac_plans_once_a_period_and_for_one_class() -> None:
    """One row of shares for everybody."""
    policy, plan = PromptAgnostic(), planned(PromptAgnostic(), 1.5 * EXACT_RPS)
    assert plan.shift_map.keys() == {ALL_PROMPTS}
    same = policy.replan(RULES, plan, seen(mix(1.8 * EXACT_RPS), now_s=1001.0))
    assert same is plan
    assert policy.replan(RULES, plan, seen(mix(1.8 * EXACT_RPS), now_s=1010.0)).revision == 2


def test_pac_lets_no_floor_or_prompt_hold_it_back() -> None:
    """At full load even a stranger skips half."""
    plan = planned(PromptAgnostic(), 1.9 * EXACT_RPS)
    decided = PromptAgnostic().serve(RULES, plan, asks(0.1, draw=0.999), pool_of())
    assert decided.served.level == K25


# --- the paper ---


def paper_demand(total_rps: float) -> dict[str, float]:
    """Counted as the policy counts: bands that NIRVANA's table wants at K=5, 10 and 25."""
    wanted = {"0.65": K5, "0.75": K10, "0.95": K25}
    return {class_name(band, wanted[band]): rate for band, rate in mix(total_rps).items()}


def test_paper_counts_by_band_and_wanted_level() -> None:
    """So that h can be told from the counts."""
    decided = ThePaper().serve(RULES, NO_PLAN, asks(0.80), pool_of())
    assert (decided.prompt_class, decided.wanted.level) == (class_name("0.75", K10), K10)


def test_paper_without_plan_serves_what_is_wanted() -> None:
    """The similarity table, before the first plan."""
    assert [sent_to(ThePaper(), NO_PLAN, at, 0.5) for at in (0.1, 0.7, 0.92)] == [EXACT, K5, K20]


def test_paper_redirects_by_one_hop_and_misses_its_own_target() -> None:
    """At little load all are to be exact; one hop moves K=10 to K=5 and no further. The chained aligner does it."""
    demand = seen(paper_demand(0.4 * EXACT_RPS))
    paper = ThePaper()
    plan = paper.replan(RULES, NO_PLAN, demand)
    assert workers_at(plan) == {EXACT: 8}
    assert sent_to(paper, plan, 0.80, 0.5) == K5
    chained = ThePaper(chained=True)
    assert sent_to(chained, chained.replan(RULES, NO_PLAN, demand), 0.80, 0.5) == EXACT


def test_paper_assigns_for_the_load_and_redirects_to_it() -> None:
    """At 1.6 x the exact capacity workers stand at cheap levels and prompts that wanted less are sent up."""
    plan = ThePaper().replan(RULES, NO_PLAN, seen(paper_demand(1.6 * EXACT_RPS)))
    assert workers_at(plan)[K25] >= 4
    up = [sent_to(ThePaper(), plan, 0.7, (n + 0.5) / 100) for n in range(100)]
    assert up.count(K25) > 0


def test_paper_fills_batches_at_high_load_only() -> None:
    """Route-and-batch among the workers at the level: spread, then the fullest."""
    gaining = (0.084, 0.09, 0.096, 0.1)
    views = [replace(worker(name, running, K25), step_s=gaining) for name, running in (("full", 3), ("idle", 0))]
    calm = PoolView(tuple(views), 0, 0)
    busy = PoolView(tuple(views), 5, 200)
    placed = [ThePaper().place(K25, pool, 20.0, frozenset()) for pool in (calm, busy)]
    assert [(at.worker, at.reason) for at in placed if at] == [
        ("idle", PlacementReason.EARLIEST_FINISH),
        ("full", PlacementReason.FILL_BATCH),
    ]


# --- all that plan ---


def test_proteus_gives_up_throughput_in_steps_of_beta() -> None:
    """At 2.05 x exact it plans for 0.95 of the demand, and what the pool has beyond that goes into accuracy."""
    plan = planned(Proteus(), 2.05 * EXACT_RPS)
    assert plan.memory == {"beta": 0.95}
    assert workers_at(plan)[K25] < 8


@pytest.mark.parametrize("policy", [PromptAgnostic(), Sommelier(), InfaasAccuracy(), ThePaper()])
def test_overload_puts_everybody_at_the_cheapest_level(policy: ServingPolicy) -> None:
    """Infeasible demand is a plan, not an error."""
    rates_rps = paper_demand(9 * EXACT_RPS) if isinstance(policy, ThePaper) else mix(9 * EXACT_RPS)
    plan = policy.replan(RULES, NO_PLAN, seen(rates_rps, pool_of(running=4, queued=100)))
    assert workers_at(plan) == {K25: 8}


@pytest.mark.parametrize("policy", [Proteus(), PromptAgnostic(), Sommelier(), InfaasAccuracy(), ThePaper(), Cascade()])
def test_no_workers_is_survived(policy: ServingPolicy) -> None:
    """All gone: a plan that says so, requests still get a level, nobody to place at."""
    gone = PoolView(tuple[WorkerView, ...](), 0, 0)
    plan = policy.replan(RULES, NO_PLAN, PoolState(1000.0, seen(mix(1.0)).demand, (), gone))
    assert policy.serve(RULES, plan, asks(0.9), gone).served.estimated_s == float("inf")
    assert policy.place(EXACT, gone, 20.0, frozenset()) is None
    if not isinstance(policy, Cascade):
        assert plan.outcome is PlanOutcome.NO_WORKERS

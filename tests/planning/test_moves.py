"""Moves between models: which worker is loaded anew, and when none is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from movable_pools import (
    DISTILLED,
    DRAIN_S,
    LADDER,
    LATER_S,
    MOVABLE_RULES,
    OTHER,
    OWN,
    RATES,
    RELOAD_S,
    look,
    movable,
    moved,
    settled,
)
from small_pools import EXACT, SLO_S, STEP_S
from t2i_policy.planning.assign import Numbered, assign_ready, place_workers
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.moves import (
    FOLLOWED_S,
    HEADROOM,
    HORIZON_S,
    FollowedDemand,
    ModelMove,
    MoveInputs,
    MoveReason,
    decide_move,
)
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity, Plan, make_plan
from t2i_policy.planning.replan import PlanInputs, ReplanReason, plan_anew, why_replan
from t2i_policy.pool_view import WorkerView

LOW_RPS, HIGH_RPS = 1.0, 16.0  # all are drawn in full by four workers; seven workers and one of the other are too few


def goodput_rps(own: int, other: int, rps: float) -> float:
    """By the plan's own program, levels of whole workers."""
    parts = [(OWN, own), (OTHER, other)]
    groups = [
        GroupCapacity("gpu", count, {level: rate for level, rate in RATES.items() if level.model == model}, model)
        for model, count in parts
    ]
    plan = make_plan(groups, MOVABLE_RULES.classes.with_rates({"none": HEADROOM * rps}))
    return (plan.demand_rps - plan.shed_rps) * (1 - plan.mean_loss) / HEADROOM


def test_where_load_is_low_a_worker_goes_to_the_model_that_loses_least() -> None:
    decision = look(movable(2, 6), LOW_RPS)
    assert decision.reason is MoveReason.PAYS
    assert decision.move is not None
    assert (decision.move.group, decision.move.from_model, decision.move.to_model) == ("gpu", OTHER, OWN)
    assert decision.move.away_s == DRAIN_S[OTHER] + RELOAD_S[OWN]


def test_where_load_is_high_a_worker_goes_to_the_model_that_is_fast() -> None:
    decision = look(movable(7, 1), HIGH_RPS)
    assert decision.move is not None
    assert (decision.move.from_model, decision.move.to_model) == (OWN, OTHER)
    assert "a worker of gpu from the pool's own model to distilled: +" in decision.sentence
    assert "won back after" in decision.sentence


@pytest.mark.parametrize("rps", [LOW_RPS, 4.0, 8.0, HIGH_RPS])
@pytest.mark.parametrize(("own", "other"), [(7, 1), (4, 4), (1, 7)])
def test_moves_end_where_the_plan_serves_best(own: int, other: int, rps: float) -> None:
    """Within what a move must gain at least, and wherever they began."""
    holding = settled(movable(own, other), rps)
    best = max(goodput_rps(count, 8 - count, rps) for count in range(1, 8))
    assert goodput_rps(holding[OWN], holding[OTHER], rps) >= 0.99 * best


@given(st.integers(1, 7), st.floats(0.05, 40.0))
def test_a_move_is_never_taken_back_at_the_same_demand(own: int, rps: float) -> None:
    group = movable(own, 8 - own)
    first = look(group, rps)
    second = look(moved(group, first), rps).move
    if first.move is not None and second is not None:
        assert (second.from_model, second.to_model) == (first.move.from_model, first.move.to_model)


@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.05, 40.0), st.floats(0.05, 40.0))
def test_every_model_keeps_a_worker_that_is_ready(own: int, other: int, now_rps: float, usual_rps: float) -> None:
    group = movable(own, other)
    holding = moved(group, look(group, now_rps, usual_rps)).holding
    assert min(holding.values()) >= 1


def test_the_last_worker_of_a_model_stays_however_high_the_load() -> None:
    decision = look(movable(1, 1), HIGH_RPS)
    assert decision.move is None
    assert decision.reason is MoveReason.NONE_TO_SPARE


def test_one_worker_moves_at_a_time() -> None:
    """Also where the one that loads is of another group."""
    loading = replace(movable(1, 1, "slow"), reloading=1)
    decision = look([movable(7, 1), loading], HIGH_RPS)
    assert decision.reason is MoveReason.RELOADING
    assert "slow" in decision.sentence


def test_a_burst_moves_nobody_nor_does_a_lull() -> None:
    assert look(movable(7, 1), HIGH_RPS).move is not None
    burst = look(movable(7, 1), HIGH_RPS, usual_rps=LOW_RPS)
    assert burst.move is None
    assert burst.reason is MoveReason.UNSTEADY
    assert "would pay by the demand of now" in burst.sentence
    assert look(movable(4, 4), 24.0, usual_rps=LOW_RPS).move is None
    assert look(movable(4, 4), LOW_RPS).move is not None
    assert look(movable(4, 4), LOW_RPS, usual_rps=24.0).move is None


def test_a_burst_that_the_move_outlasts_is_moved_for() -> None:
    """It pays on the usual demand too, so it is no burst that matters."""
    assert look(movable(7, 1), 40.0, usual_rps=HIGH_RPS).move is not None


def test_a_reload_that_takes_longer_than_it_can_win_back_is_not_made() -> None:
    slow = replace(movable(7, 1), reload_s=dict.fromkeys(RELOAD_S, HORIZON_S))
    decision = look(slow, HIGH_RPS)
    assert decision.move is None
    assert decision.reason is MoveReason.PAYS_TOO_LATE
    assert f"the horizon of {HORIZON_S:g} s" in decision.sentence


def test_what_a_worker_would_have_served_meanwhile_counts() -> None:
    """At a demand that needs every worker the same gain costs more."""
    busy, idle = (look(movable(2, 6), rps).move for rps in (2.0, 0.5))
    assert busy is not None
    assert idle is not None
    assert idle.cost_images == pytest.approx(0, abs=1e-6)
    assert idle.won_back_s == pytest.approx(idle.away_s)
    tight = look(movable(7, 1), HIGH_RPS).move
    assert tight is not None
    assert tight.cost_images > 0
    assert tight.won_back_s == pytest.approx(tight.away_s + tight.cost_images / tight.gain_rps)
    assert ModelMove("gpu", OWN, OTHER, 10.0, 0.0, 1.0).won_back_s == float("inf")


def test_without_demand_nobody_moves() -> None:
    assert look(movable(7, 1), 0.0).reason is MoveReason.NO_DEMAND


def test_a_pool_is_watched_before_its_first_move() -> None:
    """So an operator that began anew moves nobody by what it heard first."""
    inputs = MoveInputs(MOVABLE_RULES.classes, [movable(7, 1)], {"none": HIGH_RPS})
    decision = decide_move(FollowedDemand(), inputs, LATER_S)
    assert decision.reason is MoveReason.WATCHING
    assert decision.followed.rates_rps == {"none": HIGH_RPS}
    again = decide_move(decision.followed, inputs, LATER_S + FOLLOWED_S - 1)
    assert again.reason is MoveReason.WATCHING
    assert decide_move(again.followed, inputs, LATER_S + FOLLOWED_S).move is not None


def test_the_demand_that_is_followed_fades_with_time_alone() -> None:
    """However often one looks; a clock that steps back changes nothing."""
    first = FollowedDemand().seen({"none": 4.0}, 100.0)
    first = first.seen({"none": 4.0}, 100.0 + 40 * FOLLOWED_S)
    after_s = 100.0 + 41 * FOLLOWED_S
    once = first.seen({"far": 2.0}, after_s)
    assert once.rates_rps == pytest.approx({"none": 2.0, "far": 1.0}, rel=1e-6)
    often = first
    for part in range(1, 11):
        often = often.seen({"far": 2.0}, after_s - FOLLOWED_S + part * FOLLOWED_S / 10)
    assert often.rates_rps == pytest.approx(once.rates_rps)
    assert once.seen({"far": 99.0}, 50.0).rates_rps == once.rates_rps


def test_a_demand_that_was_followed_for_a_short_while_is_its_mean() -> None:
    """The first look, of a gateway that began then, weighs no more than the others."""
    followed = FollowedDemand()
    for number in range(13):
        followed = followed.seen({"none": 4.0 if number else 0.0}, 5.0 * number)
    assert followed.rates_rps["none"] == pytest.approx(4.0)


def test_workers_that_may_not_move_count_but_stay() -> None:
    fixed = replace(movable(7, 1), reload_s={})
    assert look(fixed, HIGH_RPS).reason is MoveReason.NONE_TO_SPARE
    beside = look([fixed, movable(2, 1, "others")], HIGH_RPS).move
    assert beside is not None
    assert beside.group == "others"
    plenty = [replace(movable(0, 9), reload_s={}), movable(2, 1, "others")]
    assert look(plenty, HIGH_RPS).move is None, "the fixed ones carry that load"


def test_of_unlike_devices_the_one_moves_that_gains_most() -> None:
    """Where speed is short the fast ones take the model that is fast."""
    groups = [movable(3, 1, "slow"), movable(3, 1, "fast", speed=3.0)]
    move = look(groups, 60.0).move
    assert move is not None
    assert (move.group, move.to_model) == ("fast", OTHER)


def test_a_model_without_workers_gets_one() -> None:
    """A request for exact has nobody else: the last worker of the pool's own model died."""
    move = look(movable(0, 4), 0.2, name="exact").move
    assert move is not None
    assert move.to_model == OWN


def of_gpu(name: str, model: str) -> WorkerView:
    step_s = STEP_S if model == OWN else tuple(seconds / 2 for seconds in STEP_S)
    return WorkerView(name, True, 0, 0, 4, step_s, 0.0, 0, "gpu", model=model)


def plan_of(workers: list[WorkerView], before: Plan = NO_PLAN) -> tuple[Plan, PlanInputs]:
    inputs = PlanInputs(
        MOVABLE_RULES.classes, group_capacities(workers, LADDER.levels, SLO_S), {"none": 6.0, "0.95": 1.0}
    )
    return plan_anew(before, inputs, "Tested", LATER_S), inputs


def test_a_group_whose_workers_hold_two_models_is_planned_by_model() -> None:
    workers = [of_gpu("a", OWN), of_gpu("b", OWN), of_gpu("c", OTHER)]
    plan, inputs = plan_of(workers)
    assert plan.group_workers == {"gpu": 3}
    assert plan.workers["gpu", DISTILLED] == 1
    assert sum(count for (_, level), count in plan.workers.items() if level.model == OWN) == 2
    assert why_replan(plan, inputs, LATER_S) is None
    levels = assign_ready(plan, workers)
    assert {name: level.model for name, level in levels.items()} == {"a": OWN, "b": OWN, "c": OTHER}


def test_a_move_makes_a_new_plan_due() -> None:
    """The group has as many workers as before."""
    plan, _ = plan_of([of_gpu("a", OWN), of_gpu("b", OWN), of_gpu("c", OTHER)])
    for models in ((OWN, OTHER, OTHER), (OWN, OWN, OWN)):
        _, inputs = plan_of([of_gpu(str(number), model) for number, model in enumerate(models)])
        assert why_replan(plan, inputs, LATER_S) is ReplanReason.POOL_CHANGED


def test_a_worker_that_moved_stands_at_a_level_of_its_model() -> None:
    """Also one that the plan does not count on, and one that stood elsewhere before."""
    plan = Plan(workers={("gpu", EXACT): 1, ("gpu", DISTILLED): 1})
    everybody, sizes = {"gpu": frozenset({0, 1})}, {"gpu": 3}
    models = {Numbered("gpu", 0): OTHER, Numbered("gpu", 1): OWN, Numbered("gpu", 2): OTHER}
    before = {("gpu", EXACT): (0, 1, 2)}
    placed = place_workers(plan, sizes, everybody, before, models)
    assert placed == {("gpu", DISTILLED): (0, 2), ("gpu", EXACT): (1,)}

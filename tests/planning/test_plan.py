"""The plan: the best use of a fixed pool for a demand, never more than it can do, and always an answer."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_policy.level import Level
from t2i_policy.planning.capacity import worker_rate_rps
from t2i_policy.planning.plan import (
    SHED_LOSS,
    GroupCapacity,
    Method,
    Plan,
    PlanOutcome,
    PromptClass,
    make_plan,
)

EXACT, K10, K25 = LEVELS = (Level(0, 50), Level(10, 50), Level(25, 50))
RATES = {EXACT: 1.0, K10: 1.25, K25: 2.0}
POOL = [GroupCapacity("gpu", 8, RATES)]


def demand(near_rps: float, far_rps: float) -> list[PromptClass]:
    """Near-duplicates lose little by skipping; prompts without a neighbour may only run in full or lose a lot."""
    return [
        PromptClass("near", near_rps, {EXACT: 0.0, K10: 0.01, K25: 0.03}),
        PromptClass("far", far_rps, {EXACT: 0.0, K10: 0.2}),
    ]


def objective(plan: Plan) -> float:
    """What the program minimises, without moves."""
    return plan.mean_loss * (plan.demand_rps - plan.shed_rps) + SHED_LOSS * plan.shed_rps


def check_valid(plan: Plan, groups: Sequence[GroupCapacity], classes: Sequence[PromptClass], over: float) -> None:
    """The pool is used whole, no level carries more than its workers make, only allowed pairs are served."""
    for group in groups:
        assert sum(count for (name, _), count in plan.workers.items() if name == group.name) == group.num_workers
    shares = {one.name: sum(plan.shift_map.get(one.name, {}).values()) for one in classes}
    assert all(share == pytest.approx(1.0) or share == 0.0 for share in shares.values())
    losses = {one.name: one.losses for one in classes}
    assert all(level in losses[name] for name, row in plan.shift_map.items() for level in row)
    assert 0 <= plan.shed_rps <= plan.demand_rps + 1e-6
    capacity = sum(
        count * next(group.rates_rps[at] for group in groups if group.name == name)
        for (name, at), count in plan.workers.items()
    )
    assert (plan.demand_rps - plan.shed_rps) * over <= capacity + 1e-5


@pytest.mark.parametrize(
    ("rps", "outcome"),
    [
        (0.0, PlanOutcome.NO_DEMAND),
        (6.0, PlanOutcome.ALL_SERVED),
        (9.0, PlanOutcome.ALL_SERVED),
        (20, PlanOutcome.SOME_SHED),
    ],
)
def test_quality_bends_before_anything_is_shed(rps: float, outcome: PlanOutcome) -> None:
    """Up to the capacity of K=0 nothing is lost; past it near-duplicates skip; past everything the rest is refused."""
    plan = make_plan(POOL, demand(0.7 * rps, 0.3 * rps))
    assert (plan.outcome, plan.method) == (outcome, Method.EXACT)
    check_valid(plan, POOL, demand(0.7 * rps, 0.3 * rps), 1.0)
    if rps <= 8:
        assert plan.mean_loss == pytest.approx(0.0)
        assert plan.workers == {("gpu", EXACT): 8}
    else:
        assert plan.mean_loss > 0


def test_who_loses_least_bends_first() -> None:
    """At 9/s on a pool that does 8/s in full, near prompts skip and far ones are left alone."""
    plan = make_plan(POOL, demand(6.0, 3.0))
    assert plan.share("far", EXACT) == pytest.approx(1.0)
    assert plan.share("near", EXACT) < 1.0


def test_shedding_serves_the_most() -> None:
    """When not all can be served, as many as possible are: all workers at the level that makes most of them."""
    classes = [PromptClass("near", 100.0, {EXACT: 0.0, K10: 0.01, K25: 0.5})]
    plan = make_plan(POOL, classes)
    assert plan.workers == {("gpu", K25): 8}
    assert plan.shed_rps == pytest.approx(84.0)


def test_floor_is_never_crossed() -> None:
    """A class without an allowed cheap level is shed rather than served below its floor."""
    plan = make_plan(POOL, [PromptClass("far", 10.0, {EXACT: 0.0})])
    assert plan.shift_map["far"].keys() == {EXACT}
    assert plan.shed_rps == pytest.approx(2.0)


def test_kinds_of_devices_are_planned_together() -> None:
    """The group that gains most from skipping does the skipping; the other stays exact."""
    groups = [GroupCapacity("a100", 2, {EXACT: 1.0, K25: 2.0}), GroupCapacity("t4", 2, {EXACT: 0.1, K25: 0.9})]
    plan = make_plan(groups, [PromptClass("near", 3.8, {EXACT: 0.0, K25: 0.02})])
    assert plan.outcome is PlanOutcome.ALL_SERVED
    assert plan.workers == {("a100", EXACT): 2, ("t4", K25): 2}


@pytest.mark.parametrize("rps", [8.2, 8.4, 8.6, 8.9])
def test_of_equal_groups_the_first_ones_bend(rps: float) -> None:
    """Two plans for nearly the same demand do not swap what equal groups do."""
    plan = make_plan([GroupCapacity(name, 4, RATES) for name in ("a", "b")], demand(rps, 0.0))
    assert plan.outcome is PlanOutcome.ALL_SERVED
    assert [level for group, level in plan.workers if group == "b"] == [EXACT]


def test_no_time_still_gives_a_valid_plan() -> None:
    """The fallback answers when the solver may not even start."""
    classes = demand(10.0, 2.0)
    plan = make_plan(POOL, classes, time_limit_s=0.0)
    check_valid(plan, POOL, classes, 1.0)
    assert plan.method in (Method.GREEDY, Method.TIME_LIMIT)


def test_empty_pool_sheds_everything() -> None:
    """No worker: said as such."""
    plan = make_plan([GroupCapacity("gpu", 0, RATES)], demand(1.0, 1.0))
    assert (plan.outcome, plan.shed_rps, plan.workers) == (PlanOutcome.NO_WORKERS, 2.0, {})


@pytest.mark.parametrize(
    ("groups", "classes"),
    [
        ([GroupCapacity("a", 1, RATES)] * 2, demand(1, 1)),
        (POOL, demand(1, 1) * 2),
        ([GroupCapacity("a", -1, RATES)], demand(1, 1)),
        ([GroupCapacity("a", 1, {EXACT: -1.0})], demand(1, 1)),
        (POOL, demand(-1, 1)),
    ],
    ids=["group twice", "class twice", "negative workers", "negative rate", "negative demand"],
)
def test_nonsense_is_refused(groups: list[GroupCapacity], classes: list[PromptClass]) -> None:
    """An error that names what is wrong, before the solver sees it."""
    with pytest.raises(ValueError, match=r"unique|negative"):
        make_plan(groups, classes)


rates = st.floats(0.1, 3.0)
losses = st.floats(0.0, 0.5)
small_groups = st.lists(st.tuples(st.integers(1, 3), rates, rates), min_size=1, max_size=2).map(
    lambda items: [
        GroupCapacity(f"g{n}", count, {EXACT: slow, K25: slow + fast}) for n, (count, slow, fast) in enumerate(items)
    ]
)
small_classes = st.lists(st.tuples(st.floats(0.0, 4.0), losses, st.booleans()), min_size=1, max_size=3).map(
    lambda items: [
        PromptClass(f"c{n}", rate, {EXACT: 0.0} | ({K25: loss} if cached else {}))
        for n, (rate, loss, cached) in enumerate(items)
    ]
)


def best_by_hand(groups: list[GroupCapacity], classes: list[PromptClass]) -> float:
    """Every assignment of workers to two levels; within one, the best flow: least loss per image takes K25 first."""
    best = float("inf")
    for at_exact in itertools.product(*(range(group.num_workers + 1) for group in groups)):
        exact = sum(n * g.rates_rps[EXACT] for n, g in zip(at_exact, groups, strict=True))
        skip = sum((g.num_workers - n) * g.rates_rps[K25] for n, g in zip(at_exact, groups, strict=True))
        best = min(best, _best_flow(exact, skip, classes))
    return best


def _best_flow(exact: float, skip: float, classes: list[PromptClass]) -> float:
    """Cached classes overflow to K25 in order of loss; those that are not cached must fit in exact."""
    only_exact = sum(one.rate_rps for one in classes if K25 not in one.losses)
    cached = sorted((one for one in classes if K25 in one.losses), key=lambda one: one.losses[K25])
    total = sum(one.rate_rps for one in cached)
    to_skip = min(skip, total, max(0.0, only_exact + total - exact))
    lost, left = 0.0, to_skip
    for one in cached:
        part = min(left, one.rate_rps)
        lost += part * one.losses[K25]
        left -= part
    return lost + SHED_LOSS * max(0.0, only_exact + total - to_skip - exact)


@settings(max_examples=150, deadline=None)
@given(groups=small_groups, classes=small_classes)
def test_plan_is_the_best_of_all(groups: list[GroupCapacity], classes: list[PromptClass]) -> None:
    """Against trying every assignment by hand: valid, and as good."""
    plan = make_plan(groups, classes)
    check_valid(plan, groups, classes, 1.0)
    assert objective(plan) == pytest.approx(best_by_hand(groups, classes), abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(groups=small_groups, classes=small_classes)
def test_greedy_is_valid_and_never_better(groups: list[GroupCapacity], classes: list[PromptClass]) -> None:
    """The fallback keeps every rule; the exact plan is at least as good."""
    greedy = make_plan(groups, classes, time_limit_s=0.0)
    check_valid(greedy, groups, classes, 1.0)
    assert objective(make_plan(groups, classes)) <= objective(greedy) + 2e-3


def test_worker_rate_uses_the_batch_that_pays_within_the_slo() -> None:
    """Larger batches make more until they break the SLO; too slow a level makes nothing."""
    step_s = (0.1, 0.12, 0.14, 0.16)
    assert worker_rate_rps(step_s, 0.0, EXACT, slo_s=100.0) == pytest.approx(4 / 8.0)
    assert worker_rate_rps(step_s, 0.0, EXACT, slo_s=9.5) == pytest.approx(2 / 6.0)
    assert worker_rate_rps(step_s, 0.0, EXACT, slo_s=1.0) == 0.0
    assert worker_rate_rps(step_s, 0.0, K25, slo_s=9.5) == pytest.approx(4 / 4.0)
    assert worker_rate_rps(step_s, 2.0, K25, slo_s=9.5) == pytest.approx(4 / 4.0)

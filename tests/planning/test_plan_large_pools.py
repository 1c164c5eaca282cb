"""Plans of large pools: sought near the fractional optimum, valid, and as good as the exact plan where it matters."""

import random

import pytest

from small_pools import EXACT, RULES, SLO_S, STEP_S
from t2i_policy.level import Level
from t2i_policy.planning import program
from t2i_policy.planning.capacity import worker_rate_rps
from t2i_policy.planning.plan import GroupCapacity, Method, Plan, PlanOutcome, PromptClass, make_plan

RATES = {level: worker_rate_rps(STEP_S, 0.0, level, SLO_S) for level in RULES.ladder.levels}


def pool(num_workers: int, kinds: int = 1) -> list[GroupCapacity]:
    """Workers of one device type, or split over faster ones."""
    return [
        GroupCapacity(f"g{kind}", num_workers // kinds, {at: rate * (1 + 1.6 * kind) for at, rate in RATES.items()})
        for kind in range(kinds)
    ]


def most_rps(groups: list[GroupCapacity], level: Level | None = None) -> float:
    """What the pool makes at its fastest, or all at one level."""
    return sum(g.num_workers * (g.rates_rps[level] if level else max(g.rates_rps.values())) for g in groups)


def random_demand(rng: random.Random, total_rps: float) -> tuple[PromptClass, ...]:
    """All classes of the pool, in random shares."""
    shares = {name: rng.expovariate(1.0) for name in RULES.classes.losses}
    scale = total_rps / sum(shares.values())
    return RULES.classes.with_rates({name: share * scale for name, share in shares.items()})


def check_valid(plan: Plan, groups: list[GroupCapacity], classes: tuple[PromptClass, ...]) -> None:
    """Every worker stands somewhere, and no level carries more than its workers make."""
    for group in groups:
        assert sum(count for (name, _), count in plan.workers.items() if name == group.name) == group.num_workers
    rates_rps = {group.name: group.rates_rps for group in groups}
    for level in RULES.ladder.levels:
        makes_rps = sum(count * rates_rps[name][at] for (name, at), count in plan.workers.items() if at == level)
        if plan.outcome is PlanOutcome.ALL_SERVED:
            carries_rps = sum(one.rate_rps * plan.share(one.name, level) for one in classes)
            assert carries_rps <= makes_rps + 1e-4


@pytest.mark.parametrize("kinds", [1, 3])
@pytest.mark.parametrize("load", [0.3, 1.1, 1.4, 1.7, 3.0])
def test_256_workers_are_planned_whole(load: float, kinds: int) -> None:
    """From idle to hopeless; `load` is of the exact capacity."""
    groups = pool(255, kinds)
    classes = random_demand(random.Random(3), load * most_rps(groups, EXACT))
    plan = make_plan(groups, classes)
    assert plan.method in (Method.NEAR, Method.EXACT)
    check_valid(plan, groups, classes)


def test_near_is_as_good_as_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """48 workers, once near the fractional optimum and once searched whole: a twentieth of a point at the most."""
    groups, rng = pool(48), random.Random(9)
    for load in (1.05, 1.2, 1.35, 1.5, 1.6):
        classes = random_demand(rng, load * most_rps(groups, EXACT))
        near = make_plan(groups, classes)
        with monkeypatch.context() as patched:
            patched.setattr(program, "EXACT_WORKERS", 48)
            exact = make_plan(groups, classes, time_limit_s=60.0)
        assert exact.method is Method.EXACT
        assert near.mean_loss <= exact.mean_loss + 5e-4
        assert near.shed_rps <= exact.shed_rps + 2e-3 * near.demand_rps

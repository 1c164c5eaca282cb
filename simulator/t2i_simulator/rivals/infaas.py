"""INFaaS-Accuracy: one level for the whole pool, one rung cheaper when late, one rung dearer when early.

Source: INFaaS (ATC'21) as HADIS (arXiv 2509.00642) models it for one model family:

    latency = exec + 0.225 x queue / throughput
    a rung down (cheaper) if latency > 1.0 SLO;  a rung up if latency < 0.89 SLO;  to the lightest at once if queue > 60

exec is one image at the full measured batch, queue the number of waiting requests. throughput is that of the pool at
the present level. HADIS ran 16 workers, so here the jump comes at 60/16 queued requests for each ready worker.

`VariantByBacklog` is the same ladder without the waiting for the next planning step: INFaaS selects a variant for each
query. So the rung follows the share of the slack that the pool's backlog eats, from `low` (exact) to `high` (lightest).

Simplified: INFaaS's autoscaling has nothing to do on a fixed pool; the pool moves one rung a planning step.
"""

from dataclasses import dataclass

from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.profile import step_time
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.served import pressure
from t2i_simulator.rivals.common import (
    AS_PUBLISHED,
    AnyWorker,
    NothingPlanned,
    Strength,
    WorkersByLevel,
    decide_by_level,
    decide_for,
    memory_of,
    with_memory,
)
from t2i_simulator.rivals.mean_losses import (
    budgets_of,
    drawn_level,
    equal_share_plan,
    mean_capacities,
    mean_levels,
    next_plan,
)

QUEUE_SHARE = 0.225
DOWN_ABOVE_SLO = 1.0
UP_BELOW_SLO = 0.89
JUMP_QUEUED_PER_WORKER = 60 / 16


def latency_s(pool: PoolView, level: Level) -> float:
    """HADIS's estimate for an image at `level`, with the slowest worker's time as exec."""
    if pool.steps_per_s <= 0:
        return float("inf")
    exec_s = max(w.fixed_s + level.cost * step_time(w.step_s, w.batch_cap) for w in pool.ready)
    return exec_s + QUEUE_SHARE * pool.queued_in_all * level.cost / pool.steps_per_s


def next_rung(rung: int, last: int, latency: float, slo_s: float, queued_per_worker: float) -> int:
    """The rung after this step; 0 is exact, `last` the lightest."""
    if queued_per_worker > JUMP_QUEUED_PER_WORKER:
        return last
    if latency > DOWN_ABOVE_SLO * slo_s:
        return min(last, rung + 1)
    return max(0, rung - 1) if latency < UP_BELOW_SLO * slo_s else rung


@dataclass(frozen=True, slots=True)
class InfaasAccuracy(WorkersByLevel):
    """`plan.memory["rung"]` is the pool's position on the ladder."""

    strength: Strength = AS_PUBLISHED
    name: str = "infaas-acc"
    source: str = "INFaaS-Acc (ATC'21) as HADIS models it: one level for all, a rung down when late, up when early"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        levels = budgets_of(rules.ladder, self.strength)
        rung = min(int(memory_of(before).get("rung", 0.0)), len(levels) - 1)
        queued = seen.pool.queued_in_all / max(1, len(seen.pool.ready))
        rung = next_rung(rung, len(levels) - 1, latency_s(seen.pool, levels[rung]), rules.slo_s, queued)
        rates_rps = seen.demand.rates_rps(seen.now_s)
        means = mean_levels(rules, rates_rps, self.strength)
        groups = mean_capacities(seen.groups, means)
        plan = equal_share_plan({group.name: levels[rung] for group in groups}, groups, means, sum(rates_rps.values()))
        if before.revision and before.workers == plan.workers:
            return before
        return with_memory(next_plan(before, plan, seen), {"rung": float(rung)})

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        level = drawn_level(plan, arrival.draw, rules.ladder.exact)
        return decide_by_level(rules, arrival, pool, level, self.strength)


@dataclass(frozen=True, slots=True)
class VariantByBacklog(NothingPlanned, AnyWorker):
    low: float
    high: float
    strength: Strength
    name: str
    source: str = "INFaaS (ATC'21): a variant for each query, its rung by the pool's backlog"

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        levels = budgets_of(rules.ladder, self.strength)
        share = (pressure(pool, rules.slack_s(pool)) - self.low) / (self.high - self.low)
        rung = round(min(1.0, max(0.0, share)) * (len(levels) - 1))
        return decide_for(rules, arrival, pool, levels[rung], self.strength)

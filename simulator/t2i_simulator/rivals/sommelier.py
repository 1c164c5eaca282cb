"""Sommelier: every worker switches by itself to the best model that carries its share of the load.

Source: Sommelier (SIGMOD'22), a repository of functionally equal models. A server takes a cheaper one when resources
run short, and the better one when they are back. We found no code of it. In Proteus' code "sommelier" is the same MILP
with a fixed model family for each device; with one family for the whole pool that is Proteus itself. We keep what the
papers describe as its difference: queries are not assigned jointly. Every worker gets an equal share of the demand, and
a group of equal workers serves at

    argmin loss_j  subject to  mu_gj >= demand / workers      else at the level of most images/s

Simplified: the measured mean losses replace the semantic index. Switching is immediate; it is decided at every planning
step from the EWMA demand without a margin.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from t2i_policy.level import Level
from t2i_policy.planning.plan import GroupCapacity, Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.rivals.common import AS_PUBLISHED, Strength, WorkersByLevel, decide_by_level
from t2i_simulator.rivals.mean_losses import (
    MeanLevel,
    drawn_level,
    equal_share_plan,
    mean_capacities,
    mean_levels,
    next_plan,
)


def level_for_share(group: GroupCapacity, means: Mapping[Level, MeanLevel], share_rps: float) -> Level:
    """The level of least mean loss at which one worker makes `share_rps`, or the fastest level."""
    able = [level for level in means if group.rates_rps.get(level, 0.0) >= share_rps and group.rates_rps[level] > 0]
    if able:
        return min(able, key=lambda level: (means[level].loss, level.cost))
    return max(means, key=lambda level: (group.rates_rps.get(level, 0.0), -level.cost))


@dataclass(frozen=True, slots=True)
class Sommelier(WorkersByLevel):
    strength: Strength = AS_PUBLISHED
    name: str = "sommelier"
    source: str = "Sommelier (SIGMOD'22): each worker switches alone for its equal share; index = measured mean losses"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        rates_rps = seen.demand.rates_rps(seen.now_s)
        means = mean_levels(rules, rates_rps, self.strength)
        groups, total_rps = mean_capacities(seen.groups, means), sum(rates_rps.values())
        share_rps = self.strength.headroom * total_rps / max(1, sum(group.num_workers for group in groups))
        levels = {group.name: level_for_share(group, means, share_rps) for group in groups}
        plan = equal_share_plan(levels, groups, means, total_rps)
        if before.revision and before.workers == plan.workers:
            return before
        return next_plan(before, plan, seen)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        level = drawn_level(plan, arrival.draw, rules.ladder.exact)
        return decide_by_level(rules, arrival, pool, level, self.strength)

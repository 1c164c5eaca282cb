"""Proteus scales accuracy with the load and does not look at the prompts.

Source: Proteus (ASPLOS'24). Every PERIOD_S a mixed-integer program chooses a variant (here: a level) for each worker,
and each worker's share z of the load, for the best mean accuracy subject to

    sum of throughputs >= beta x demand       beta = 1.05; infeasible: beta -= 0.05, to no less than MIN_BETA

A level's throughput is that at the largest batch with a latency under SLO / 2. Demand is an EWMA, the same for all
policies. Requests are routed at random in proportion to z, and wait for a worker of that level.

Simplified: equal workers are counted, not named (the same optimum). z is drawn for a level, and of its workers the one
that finishes first takes the request; this is better than a random one. Demand beyond beta is spread in proportion;
their objective would put it on the most accurate workers, which is worse. The program is solved to the optimum, not to
a gap of 0.5. Its non-work-conserving batching is left out: batches form at step boundaries, as for every policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from t2i_policy.planning.capacity import WAIT_SHARE, group_capacities
from t2i_policy.planning.plan import GroupCapacity, Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.rivals.common import Strength, WorkersByLevel, decide_by_level, with_memory
from t2i_simulator.rivals.mean_losses import (
    agnostic_plan,
    budgets_of,
    drawn_level,
    is_time,
    mean_capacities,
    mean_levels,
    next_plan,
)

PERIOD_S = 10.0
PUBLISHED_BETA = Strength(headroom=1.05)
BETA_STEP = 0.05
MIN_BETA = 0.2


def feasible_beta(groups: Sequence[GroupCapacity], demand_rps: float, beta: float) -> float:
    """`beta`, lowered in steps of 0.05 until the pool at its fastest levels makes beta x demand."""
    most_rps = sum(group.num_workers * max(group.rates_rps.values(), default=0.0) for group in groups)
    while beta * demand_rps > most_rps and beta > MIN_BETA:
        beta = round(beta - BETA_STEP, 2)
    return beta


@dataclass(frozen=True, slots=True)
class Proteus(WorkersByLevel):
    """`plan.memory["beta"]` is that of the last plan."""

    strength: Strength = PUBLISHED_BETA
    name: str = "proteus"
    source: str = "Proteus (ASPLOS'24): prompt-agnostic MILP, beta 1.05, weighted-random routing; its batching left out"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        if not is_time(before, seen, PERIOD_S):
            return before
        rates_rps = seen.demand.rates_rps(seen.now_s)
        half_slo_s = rules.slo_s / 2 * (1 + WAIT_SHARE)  # `group_capacities` allows slo / (1 + WAIT_SHARE) for service
        groups = group_capacities(seen.pool.ready, budgets_of(rules.ladder, self.strength), half_slo_s)
        real = mean_capacities(groups, mean_levels(rules, rates_rps, self.strength))
        beta = feasible_beta(real, sum(rates_rps.values()), self.strength.headroom)
        plan = agnostic_plan(rules, self.strength, rates_rps, groups, beta)
        return with_memory(next_plan(before, plan, seen), {"beta": beta})

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        """Draw by z; with a plan for no workers, serve the cheapest level."""
        budgets = budgets_of(rules.ladder, self.strength)
        otherwise = budgets[-1] if plan.revision else budgets[0]
        level = drawn_level(plan, arrival.draw, otherwise)
        return decide_by_level(rules, arrival, pool, level, self.strength)

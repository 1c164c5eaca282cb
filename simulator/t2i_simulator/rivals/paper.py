"""The paper itself: an assigner that does not see prompts, then a one-hop redirect map, then route-and-batch.

Source: arXiv 2502.06798 (poster) with the artifact of its lineage (AccuScale/Argus). It has three parts:

1. The *Model Cache Assigner* runs every PERIOD_S. It chooses workers by level, and the load fraction f of each level.
   Its aim is the best mean quality at the demand seen. The artifact does not over-provision.
2. The *K-to-K' Route Planner* counts h, the histogram of wanted levels. The artifact's Distribution Aligner turns
   (h, f) into probabilities of redirects (`distribution.one_hop_map`, which may miss f).
3. The *Query Dispatcher* finds the wanted level in NIRVANA's similarity table, and draws from its row. It takes a
   worker at the drawn level: spread at low load, the fullest batch at high load.

`chained` uses the chained aligner instead, which hits f, as a careful reader of the paper would build it. With the
whole ladder the wanted level is the cheapest one measured to lose at most HARMLESS_LOSS for this prompt.

Simplified: the period is that of Proteus, because the paper states none. The assigner is solved exactly, where the
artifact rounds a continuous optimum. When demand exceeds the pool, f is of what can be served (not stated either).
Demand is counted by "band>wanted level", so that h and the mean losses come from the same counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import HARMLESS_LOSS
from t2i_policy.request.placement import Placement, choose_worker
from t2i_simulator.rivals.common import AS_PUBLISHED, Strength, decide_by_level, place_by_level
from t2i_simulator.rivals.distribution import chained_map, one_hop_map
from t2i_simulator.rivals.mean_losses import ALL_PROMPTS, agnostic_plan, budgets_of, is_time, next_plan
from t2i_simulator.rivals.nirvana import level_by_similarity, level_within

PERIOD_S = 10.0


def class_name(band: str, wanted: Level) -> str:
    return f"{band}>{wanted.cost}"


class SplitDemand(NamedTuple):
    """Requests a second by similarity band, and by wanted level."""

    by_band: dict[str, float]
    by_wanted: dict[Level, float]


def split_demand(rules: Rules, rates_rps: Mapping[str, float], strength: Strength) -> SplitDemand:
    """Split the rates that are counted by `class_name`."""
    levels = budgets_of(rules.ladder, strength)
    by_band: dict[str, float] = {}
    by_wanted: dict[Level, float] = dict.fromkeys(levels, 0.0)
    for band in rules.classes.losses:
        for level in levels:
            rate_rps = rates_rps.get(class_name(band, level), 0.0)
            if rate_rps > 0:
                by_band[band] = by_band.get(band, 0.0) + rate_rps
                by_wanted[level] += rate_rps
    return SplitDemand(by_band, by_wanted)


def redirects(plan: Plan, by_wanted: Mapping[Level, float], chained: bool) -> Plan:
    """Replace the plan's one row of fractions f by a row for each wanted level."""
    levels = sorted(by_wanted, key=lambda level: -level.cost)
    total = sum(by_wanted.values())
    f = [plan.share(ALL_PROMPTS, level) for level in levels]
    if total <= 0 or sum(f) <= 0:  # without demand or workers nobody is redirected
        return replace(plan, shift_map={})
    h = [by_wanted[level] / total for level in levels]
    rows = (chained_map if chained else one_hop_map)(h, [share / sum(f) for share in f])
    return replace(
        plan,
        shift_map={
            str(wanted.cost): {served: share for served, share in zip(levels, row, strict=True) if share > 0}
            for wanted, row in zip(levels, rows, strict=True)
        },
    )


@dataclass(frozen=True, slots=True)
class ThePaper:
    strength: Strength = AS_PUBLISHED
    chained: bool = False
    name: str = "paper"
    source: str = "arXiv 2502.06798 + AccuScale artifact: mean-loss assigner, one-hop ODA, route-and-batch"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        if not is_time(before, seen, PERIOD_S):
            return before
        rates_rps = seen.demand.rates_rps(seen.now_s)
        by_band, by_wanted = split_demand(rules, rates_rps, self.strength)
        assigned = agnostic_plan(rules, self.strength, by_band, seen.groups, self.strength.headroom)
        plan = redirects(assigned, by_wanted, self.chained)
        return next_plan(before, plan, seen)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        """Draw from the row of the wanted level; without a row, serve that level."""
        wanted = self._wanted(rules, arrival)
        level = plan.draw(str(wanted.cost), arrival.draw) or wanted
        decided = decide_by_level(rules, arrival, pool, level, self.strength, wanted)
        return replace(decided, prompt_class=class_name(decided.prompt_class, wanted))

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        if self.strength.any_worker:
            return choose_worker(pool.ready, level, left_s, pool.occupancy, excluded)
        return place_by_level(level, pool, left_s, excluded, pool.occupancy)

    def _wanted(self, rules: Rules, arrival: Arrival) -> Level:
        if not self.strength.whole_ladder:
            return level_by_similarity(rules.ladder, arrival.near.similarity)
        steps = level_within(rules, arrival, HARMLESS_LOSS).cost
        return next(level for level in budgets_of(rules.ladder, self.strength) if level.cost <= steps)

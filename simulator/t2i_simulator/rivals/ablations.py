"""Ablations: our policy with one part taken out, to see what that part is worth.

Source: ours (`policies.PromptAware`). Each variant runs the same functions; the switch only withholds one input:

    price = False    the price of a step: what is left is what the prompt wants, and what its deadline asks
    fill = False     batch filling: requests always go where they finish first
    part             levels: skips only, or short schedules only (no cache at all)

`ours-shift-map` is what we did before there was one price: the plan's draw, corrected by the backlog.
"""

from dataclasses import dataclass, replace

from t2i_policy.level import Ladder, Level
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState, PromptAware
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.placement import Placement, choose_worker
from t2i_policy.request.served import LoadState, choose_served_level
from t2i_simulator.rivals.common import SPREAD
from t2i_simulator.rivals.mean_losses import LadderPart, levels_of, only
from t2i_simulator.rivals.shift_map import ShiftMapAndBacklog


@dataclass(frozen=True, slots=True)
class Ablation:
    """Ours with what the switches leave."""

    name: str
    source: str
    part: LadderPart = LadderPart.ALL
    price: bool = True
    fill: bool = True

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        """Our planning step, on the part's levels."""
        return PromptAware().replan(only(rules, self.part), before, seen)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        """Our decision, on what is left of its inputs."""
        if self.part is not LadderPart.ALL:
            ladder = Ladder(rules.ladder.base_steps, levels_of(rules.ladder, self.part))
            rules = replace(rules, ladder=ladder)
        decided = PromptAware().serve(rules, plan, arrival, pool)
        if self.price:
            return decided
        load = LoadState(arrival.left_s, price=0.0)
        return replace(
            decided, served=choose_served_level(decided.wanted, decided.options, pool.for_cost(arrival.step_cost), load)
        )

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """Ours, or always where it finishes first."""
        return choose_worker(pool.ready, level, left_s, pool.occupancy if self.fill else SPREAD, excluded)


FEWER_STEPS_ONLY = Ablation(
    "fewer-steps-only", "ours on short schedules only, no cache at all (left out by the papers)", part=LadderPart.SHORT
)


def ablations() -> tuple[Ablation | ShiftMapAndBacklog, ...]:
    """Each part of ours removed in turn."""
    return (
        Ablation("ours-deadline-only", "ours without the price: as wanted, bent by deadlines alone", price=False),
        Ablation("ours-no-filling", "ours without filling batches", fill=False),
        Ablation("ours-skips-only", "ours on the papers' ladder: skips, no short schedules", part=LadderPart.SKIPS),
        FEWER_STEPS_ONLY,
        ShiftMapAndBacklog(),
    )

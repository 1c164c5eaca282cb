"""Ablations: our policy without one of its parts, to see what that part is worth.

Source: ours (`policies.PromptAware`). Each variant runs the same functions and only withholds one input:

    shift = False    no draw from the plan: the price of a step is left (feedback only)
    price = False    no pressure above `LOW_PRESSURE`: the plan is left (feedforward only)
    classes = False  no prompt classes in the plan: one row of mean losses; the price still sees each prompt
    fill = False     no batch filling: requests always go where they finish first
    part             fewer levels: skips only, or short schedules only (no cache at all)
    trend = False    no extrapolation of rising demand
    planning         other margins of the planner: a plan at every step without hysteresis or cost of moving

All of them keep the escape for a deadline: a faster level when the chosen one would be late.
"""

from dataclasses import dataclass, field, replace

from t2i_policy.level import Ladder, Level
from t2i_policy.planning.demand import SLOWER, Demand
from t2i_policy.planning.loop import PlanningRules, plan_step
from t2i_policy.planning.plan import PlanRules
from t2i_policy.planning.replan import ReplanRules
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules, draw_level, shift_rows
from t2i_policy.request.placement import Placement, choose_worker
from t2i_policy.request.served import LOW_PRESSURE, Situation, choose_served_level
from t2i_simulator.rivals.common import SPREAD
from t2i_simulator.rivals.mean_losses import ALL_PROMPTS, LadderPart, agnostic_step, levels_of, only

NO_HYSTERESIS = PlanningRules(PlanRules(move_cost=0.0), ReplanRules(rise=0.0, fall=0.0, mix_shift=0.0, dwell_s=0.0))


@dataclass(frozen=True, slots=True)
class Ablation:
    name: str
    source: str
    part: LadderPart = LadderPart.ALL
    shift: bool = True
    price: bool = True
    classes: bool = True
    fill: bool = True
    trend: bool = True
    planning: PlanningRules = field(default_factory=PlanningRules)

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:
        seen = seen if self.trend else replace(seen, demand=without_trend(seen.demand, seen.now_s))
        rules = only(rules, self.part)
        if self.classes:
            demand, before = seen.demand, course.planning
            planning = plan_step(before, rules.classes, seen.groups, demand, seen.now_s, self.planning)
        else:
            planning = agnostic_step(rules, self.part, course.planning, seen, self.planning)
        shift = course.shift if planning.plan is course.planning.plan else shift_rows(planning.plan)
        return Course(planning, shift, course.memory)

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:
        ladder = Ladder(rules.ladder.base_steps, levels_of(rules.ladder, self.part))
        rules = replace(rules, ladder=ladder)
        name = rules.classes.classify(arrival.near, arrival.limits)
        row = course.shift.get(name if self.classes else ALL_PROMPTS, ())
        decided = rules.decide(arrival, pool, {name: row} if self.shift else {})
        return decided if self.price else _without_price(decided, arrival, pool, draw_level(row, arrival.draw))

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        if not self.fill:
            return choose_worker(pool.ready, level, left_s, SPREAD, excluded)
        return choose_worker(pool.ready, level, left_s, pool.occupancy, excluded)


def without_trend(demand: Demand, now_s: float) -> Demand:
    """The same demand with a slow average that shows no rise."""
    demand = demand.as_of(now_s)
    # In a steady state the slow average holds SLOWER times the count of the fast one.
    return replace(demand, slow={name: SLOWER * count for name, count in demand.counts.items()})


def _without_price(decided: Decided, arrival: Arrival, pool: PoolView, planned: Level | None) -> Decided:
    """The same decision as if the backlog were never long; the plan counts as soon as the pool is not idle."""
    situation = Situation(arrival.left_s, min(decided.pressed, LOW_PRESSURE), planned)
    served = choose_served_level(decided.wanted, decided.options, pool, arrival.limits, situation)
    return replace(decided, served=served)


FEWER_STEPS_ONLY = Ablation(
    "fewer-steps-only", "ours on short schedules only, no cache at all (left out by the papers)", part=LadderPart.SHORT
)


def ablations() -> tuple[Ablation, ...]:
    return (
        Ablation("ours-feedback-only", "ours without the plan's shift map", shift=False),
        Ablation("ours-feedforward-only", "ours without the price of a step", price=False),
        Ablation("ours-no-classes", "ours with one prompt class in the plan", classes=False),
        Ablation("ours-no-filling", "ours without filling batches", fill=False),
        Ablation("ours-skips-only", "ours on the papers' ladder: skips, no short schedules", part=LadderPart.SKIPS),
        FEWER_STEPS_ONLY,
        Ablation("ours-no-trend", "ours without extrapolating a rise", trend=False),
        Ablation("ours-no-hysteresis", "ours with a plan at every step, moves for nothing", planning=NO_HYSTERESIS),
    )

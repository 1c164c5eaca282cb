"""Policies for pools whose workers hold several models, beside ours and Proteus.

Ours (`policies.PromptAware`) has no plan in a request's way: only the backlogs move requests between models. Two
variants ask the joint plan. `ours-joint-map` draws each request's model and level from its shift map, and the backlog
corrects that within the model. `ours-joint-prices` reads from the joint program what a step of each model is worth at
the demand seen; a step costs this or what its backlog says, whichever is more. What they have more than ours is what
the plan is worth.

`model-cascade` is DiffServe (MLSys'25, arXiv 2411.15381) with two models: every prompt runs on the light one. A
discriminator sees the image, and those that lost more than a threshold are drawn again by the heavy one. The threshold
is set to escalate as many as the heavy workers can carry, of `headroom` times the demand. Its favours: the
discriminator sees the true loss and knows its distribution; if the heavy run could not be in time, the light image goes
out. It has no levels beside the two models' full schedules, and no cache, as published.

`model-router` is after HADIS (arXiv 2509.00642), which routes before it runs and cascades after: prompts that the
heavy model serves at a cheap level without loss go there at once. The others are a cascade's. Its learned router and
its table of configurations are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from statistics import NormalDist

import highspy
import numpy as np

from t2i_policy.level import Level
from t2i_policy.planning.plan import SHED_LOSS, GroupCapacity, Method, Plan, PlanOutcome, PromptClass
from t2i_policy.planning.solver import make_solver, set_matrix
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.models import RELIEVED, Offer, choose_offer, options_by_model, relief
from t2i_policy.request.options import HARMLESS_LOSS, cheapest_within, choose_wanted_level
from t2i_policy.request.price import HIGH_PRESSURE, LOW_PRESSURE, backlog_price, slack_of
from t2i_policy.request.served import LoadState, choose_served_level, pressure
from t2i_simulator.rivals.common import AnyWorker, PlacedAsOurs, Strength, decide_for, memory_of, with_memory
from t2i_simulator.rivals.mean_losses import next_plan, planned_anew
from t2i_simulator.rivals.proteus import Proteus
from t2i_simulator.true_loss import SPREAD

PUBLISHED_MARGIN = Strength(headroom=1.2)


@dataclass(frozen=True, slots=True)
class JointMap(PlacedAsOurs):
    """The plan's map draws model and level; backlogs correct it."""

    headroom: float = 1.05
    name: str = "ours-joint-map"
    source: str = "ours, with the joint plan's map drawing model and level"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        """Our program, more often than we plan now."""
        return planned_anew(rules, before, seen, self.headroom)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        return rules.decide(arrival, pool, plan)


@dataclass(frozen=True, slots=True)
class JointPrices(PlacedAsOurs):
    """A step costs what the plan says or the backlog, whichever is more. `plan.memory` holds the plan's, by model."""

    headroom: float = 1.05
    name: str = "ours-joint-prices"
    source: str = "ours, with the joint plan's price of a step of each model beside the backlogs'"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        """The dual prices of the module's program for the demand of now."""
        rates_rps = seen.demand.rates_rps(seen.now_s)
        steps_per_s = {model: part.steps_per_s for model, part in seen.pool.parts.items()}
        prices = joint_prices(rules.classes.with_rates(rates_rps), steps_per_s, self.headroom)
        plan = Plan(outcome=PlanOutcome.ALL_SERVED, rates_rps=rates_rps)
        return with_memory(next_plan(before, plan, seen), prices)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        return priced(rules, arrival, pool, memory_of(plan))


def joint_prices(classes: Sequence[PromptClass], steps_per_s: Mapping[str, float], headroom: float) -> dict[str, float]:
    """What one more step a second of each model would save, in loss: the duals of

    minimise  sum_ij x_ij D(i,j) + SHED_LOSS sum_i shed_i     with  sum_j x_ij + shed_i = headroom * rate_i
    subject to  sum over levels j of model m of x_ij cost(j) <= steps_per_s_m
    """
    models = list(steps_per_s)
    lanes = [(at, level, loss) for at, one in enumerate(classes) for level, loss in one.losses.items()]
    lanes = [lane for lane in lanes if steps_per_s.get(lane[1].model, 0.0) > 0]
    if not lanes:
        return dict.fromkeys(models, 0.0)
    program, num = highspy.HighsLp(), len(classes)
    program.num_col_, program.num_row_ = len(lanes) + num, num + len(models)
    program.col_cost_ = np.array([loss for _, _, loss in lanes] + [SHED_LOSS] * num)
    program.col_lower_, program.col_upper_ = np.zeros(len(lanes) + num), np.full(len(lanes) + num, highspy.kHighsInf)
    rates = [headroom * one.rate_rps for one in classes]
    program.row_lower_ = np.array([*rates, *[-highspy.kHighsInf] * len(models)])
    program.row_upper_ = np.array([*rates, *steps_per_s.values()])
    entries = [(at, column, 1.0) for column, (at, _, _) in enumerate(lanes)]
    entries += [(num + models.index(level.model), column, level.cost) for column, (_, level, _) in enumerate(lanes)]
    entries += [(at, len(lanes) + at, 1.0) for at in range(num)]
    set_matrix(program, entries)
    solver = make_solver({})
    solver.passModel(program)
    solver.run()
    duals = solver.getSolution().row_dual
    return {model: max(0.0, -duals[num + at]) for at, model in enumerate(models)}


def priced(rules: Rules, arrival: Arrival, pool: PoolView, planned: Mapping[str, float]) -> Decided:
    """As `Rules.decide`, at no less than the planned price of a step of each model."""
    options, wanted, prompt_class = rules.judge(arrival.near, arrival.limits)
    offers = offers_of(rules, arrival, pool, planned)
    best = choose_offer(list(offers.values()), wanted.level, None, arrival.left_s, rules.tolerance)
    return Decided(arrival.near, options, prompt_class, wanted, best.served, best.pressed)


def offers_of(rules: Rules, arrival: Arrival, pool: PoolView, planned: Mapping[str, float]) -> dict[str, Offer]:
    """What each model would serve, by model, as in `Rules.decide`; at no less than the planned prices."""
    limits, near = arrival.limits, arrival.near
    steps = {model: rules.ladder.full_schedule(model).num_inference_steps for model in ("", *rules.ladder.models)}
    slacks = {model: slack_of(rules.slo_s, pool.of_model(model).alone_s(full)) for model, full in steps.items()}
    pressed = {model: pressure(pool.of_model(model), slack_s) for model, slack_s in slacks.items()}
    offers = {}
    for model, own in options_by_model(rules.judge(near, limits).options).items():
        part, later = pool.of_model(model), RELIEVED * relief(pressed, model)
        marks = {"low": LOW_PRESSURE + later, "high": HIGH_PRESSURE + later}
        backlog = backlog_price(pressed[model], limits.max_loss, steps[model], **marks)
        price = arrival.step_cost * max(planned.get(model, 0.0), backlog)
        liked = choose_wanted_level(rules.ladder, own, near, limits, rules.tolerance)
        served = choose_served_level(liked, own, part.for_cost(arrival.step_cost), LoadState(arrival.left_s, price))
        offers[model] = Offer(served, price, pressed[model])
    return offers


@dataclass(frozen=True, slots=True)
class ModelCascade(AnyWorker):
    """`plan.memory["bears"]` is the threshold. `routes`: prompts that the heavy model serves well and cheaply start
    there."""

    routes: bool = False
    strength: Strength = PUBLISHED_MARGIN
    name: str = "model-cascade"
    source: str = "DiffServe (MLSys'25): light model first, the worst images again by the heavy one"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        """The threshold of the module, every planning step."""
        rates_rps = seen.demand.rates_rps(seen.now_s)
        light, heavy = light_level(rules), rules.ladder.exact
        share = escalated_share(seen.groups, heavy, self.strength.headroom * sum(rates_rps.values()))
        lost = rules.profile.expected_loss(light, None) or 0.0
        plan = Plan(outcome=PlanOutcome.ALL_SERVED, method=Method.GREEDY, rates_rps=rates_rps)
        return with_memory(next_plan(before, plan, seen), {"bears": threshold(lost, share)})

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        if self.routes:
            options = [one for one in rules.judge(arrival.near, arrival.limits).options if not one.level.model]
            cheap = cheapest_within(options, HARMLESS_LOSS)
            if cheap is not None and cheap.level.needs_latent:
                return decide_for(rules, arrival, pool, cheap.level, wanted=cheap.level)
        once = decide_for(rules, arrival, pool, light_level(rules), self.strength)
        return replace(once, then=rules.ladder.exact, bears=memory_of(plan).get("bears", 0.0))


def light_level(rules: Rules) -> Level:
    """The full schedule of the other model that takes least."""
    return min(map(rules.ladder.full_schedule, rules.ladder.models), key=rules.profile.own_steps)


def escalated_share(groups: tuple[GroupCapacity, ...], heavy: Level, demand_rps: float) -> float:
    """Of all images, those that the heavy workers can draw again."""
    heavy_rps = sum(group.num_workers * group.rates_rps.get(heavy, 0.0) for group in groups)
    return min(1.0, heavy_rps / demand_rps) if demand_rps > 0 else 1.0


def threshold(mean_loss: float, share: float) -> float:
    """The loss that this share of images exceeds, of a log-normal distribution as `true_loss` has."""
    if share >= 1.0:
        return 0.0
    if share <= 0.0:
        return 1.0
    return mean_loss * exp(NormalDist(-(SPREAD**2) / 2, SPREAD).inv_cdf(1 - share))


def several_models() -> tuple[JointMap | JointPrices | ModelCascade | Proteus, ...]:
    """All that know of several models, beside ours."""
    router = "HADIS (arXiv 2509.00642): routed by what the heavy model's cache has, then cascaded"
    return (
        JointMap(),
        JointPrices(),
        ModelCascade(),
        ModelCascade(routes=True, name="model-router", source=router),
        Proteus(),
    )

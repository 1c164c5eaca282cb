"""A cascade: every prompt runs light first, and the share with the worst images runs again exactly.

Source: DiffServe (MLSys'25). A discriminator scores the image of the light model. Below a threshold the query is
escalated to the heavy model. Every second the threshold is set as high as the pool can carry:

    x1 p_light >= D,  x2 p_heavy >= D e,  x1 + x2 <= workers      D = 1.2 (`headroom`) x demand, e = escalated share
    =>  e = clamp((1 - D / C_light) C_exact / D, 0, 1)            C_j = images/s of the whole pool at level j

Here the cheapest level is light and the exact one heavy. The discriminator knows the loss of the light level for this
prompt. So classes are escalated from the largest loss down until the share e is used up. In the last class a draw
decides. This favours the cascade: a real discriminator sees an image and errs. Prompts without a light level run exact
at once.

The steps of the light run are `RivalDecided.extra_steps`: the simulator charges them to the request before those of the
served level, at the same worker. So the pool carries both runs. This favours the cascade again, because no integer
split of light and heavy workers wastes capacity. Also simplified: the engine chooses batch sizes, and the plan has no
queueing term, because the simulator admits. When the light level alone is too much, nothing is escalated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from t2i_policy.level import Level
from t2i_policy.planning.plan import GroupCapacity, Method, Plan, PlanOutcome
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.rivals.common import AnyWorker, Strength, decide_for, runnable_option
from t2i_simulator.rivals.mean_losses import budgets_of, next_plan, typical_prompts

PUBLISHED_MARGIN = Strength(headroom=1.2)


def escalated_share(groups: Sequence[GroupCapacity], light: Level, exact: Level, demand_rps: float) -> float:
    """e of the module, for D."""
    light_rps = sum(group.num_workers * group.rates_rps.get(light, 0.0) for group in groups)
    exact_rps = sum(group.num_workers * group.rates_rps.get(exact, 0.0) for group in groups)
    if demand_rps <= 0:
        return 1.0
    if light_rps <= demand_rps:  # the light runs alone are too many
        return 0.0
    return min(1.0, (1 - demand_rps / light_rps) * exact_rps / demand_rps)


def escalations(light_losses: Mapping[str, float], shares: Mapping[str, float], escalated: float) -> dict[str, float]:
    """P(escalated | class), from the largest loss down until the share `escalated` of all requests is used up."""
    left, chances = escalated, {}
    for name in sorted(light_losses, key=lambda name: (-light_losses[name], name)):
        share = shares.get(name, 0.0)
        chances[name] = min(1.0, left / share) if share > 0 else float(left > 0)
        left = max(0.0, left - share)
    return chances


@dataclass(frozen=True, slots=True)
class Cascade(AnyWorker):
    """Its shift map holds P(escalated to exact | class)."""

    strength: Strength = PUBLISHED_MARGIN
    name: str = "cascade"
    source: str = "DiffServe (MLSys'25): light first, worst share again exactly; perfect discriminator, both runs fluid"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        light, exact = budgets_of(rules.ladder, self.strength)[-1], rules.ladder.exact
        rates_rps = seen.demand.rates_rps(seen.now_s)
        escalated = escalated_share(seen.groups, light, exact, self.strength.headroom * sum(rates_rps.values()))
        runs = {
            name: runnable_option(rules, light, *prompt, self.strength)
            for name, prompt in typical_prompts(rules).items()
        }
        losses = {name: run.expected_loss for name, run in runs.items() if run.level != exact}
        shares = {name: rate / sum(rates_rps.values()) for name, rate in rates_rps.items()}
        chances = escalations(losses, shares, escalated)
        rows = {name: {exact: chance, light: 1 - chance} for name, chance in chances.items()}
        plan = Plan(shift_map=rows, outcome=PlanOutcome.ALL_SERVED, method=Method.GREEDY, rates_rps=rates_rps)
        return next_plan(before, plan, seen)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        once = decide_for(rules, arrival, pool, budgets_of(rules.ladder, self.strength)[-1], self.strength)
        light, exact = once.served.level, rules.ladder.exact
        drawn = plan.draw(once.prompt_class, arrival.draw)
        if light == exact or drawn != exact:
            return once
        twice = decide_for(rules, arrival, pool, exact, self.strength)
        steps, own = light.cost + exact.cost, pool.for_cost(arrival.step_cost)
        served = replace(twice.served, estimated_s=pool.queue_wait_s() + own.best_finish_s(steps))
        return replace(twice, served=served, extra_steps=ceil(light.cost))

"""PAC plans levels for a load without looking at the prompts.

Source: the prompt-agnostic ablation in the paper's artifact (AccuScale/Argus), of which only curves are known. Here it
is our own exact program with one class of mean losses, solved every PERIOD_S. That is a planner to which all prompts
look alike, and nothing is corrected between plans. It sends any prompt to any level by the plan's shares.

Simplified: how the artifact's PAC batches and places is not published. Requests go where they finish first.
"""

from dataclasses import dataclass

from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.rivals.common import AnyWorker, Strength, decide_for
from t2i_simulator.rivals.mean_losses import agnostic_plan, drawn_level, is_time, next_plan

PERIOD_S = 10.0  # as Proteus
WITH_ROOM = Strength(headroom=1.05)


@dataclass(frozen=True, slots=True)
class PromptAgnostic(AnyWorker):
    strength: Strength = WITH_ROOM
    name: str = "pac"
    source: str = "PAC, the prompt-agnostic ablation of AccuScale/Argus, rebuilt on our program with mean losses"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        if not is_time(before, seen, PERIOD_S):
            return before
        rates_rps, headroom = seen.demand.rates_rps(seen.now_s), self.strength.headroom
        plan = agnostic_plan(rules, self.strength, rates_rps, seen.groups, headroom)
        return next_plan(before, plan, seen)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        return decide_for(rules, arrival, pool, drawn_level(plan, arrival.draw, rules.ladder.exact), self.strength)

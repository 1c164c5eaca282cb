"""PAC plans levels for a load without looking at the prompts.

Source: the prompt-agnostic ablation in the paper's artifact (AccuScale/Argus), of which only curves are known. Here it
is our own exact program, hysteresis and trend with one class of mean losses. That is our policy if all prompts looked
alike and nothing were corrected between plans. It sends any prompt to any level by the plan's shares.

Simplified: how the artifact's PAC batches and places is not published. Requests go where they finish first.
"""

from dataclasses import dataclass

from t2i_policy.planning.plan import PlanRules
from t2i_policy.planning.replan import PlanningRules
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.rivals.common import AnyWorker, Strength, decide_for
from t2i_simulator.rivals.mean_losses import agnostic_step, drawn_level

MOVE_COST = 1e-4  # as ours
PLANNED_LIKE_OURS = Strength(headroom=1.05)


@dataclass(frozen=True, slots=True)
class PromptAgnostic(AnyWorker):
    strength: Strength = PLANNED_LIKE_OURS
    name: str = "pac"
    source: str = "PAC, the prompt-agnostic ablation of AccuScale/Argus, rebuilt on our program with mean losses"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:
        settings = PlanningRules(PlanRules(over_provision=self.strength.headroom, move_cost=MOVE_COST))
        return Course(agnostic_step(rules, self.strength, course.plan, seen, settings))

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:
        return decide_for(rules, arrival, pool, drawn_level(course, arrival.draw, rules.ladder.exact), self.strength)

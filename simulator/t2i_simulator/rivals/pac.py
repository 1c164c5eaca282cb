"""PAC: planned levels for a load, without looking at the prompts.

Source: the prompt-agnostic ablation in the paper's artifact (AccuScale/Argus), known by its curves only. Here it is our
own exact program, hysteresis and trend with one class of mean losses: what is left of ours if prompts look alike and
nothing is corrected between plans. It sends any prompt to any level by the plan's shares.

Simplified: how the artifact's PAC batches and places is not published; requests go where they finish first, at any
worker.
"""

from dataclasses import dataclass, field

from t2i_policy.planning.loop import PlanningRules
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules, shift_rows
from t2i_simulator.rivals.common import AnyWorker, decide_for
from t2i_simulator.rivals.mean_losses import LadderPart, agnostic_step, drawn_level


@dataclass(frozen=True, slots=True)
class PromptAgnostic(AnyWorker):
    part: LadderPart = LadderPart.SKIPS
    settings: PlanningRules = field(default_factory=PlanningRules)
    name: str = "pac"
    source: str = "PAC, the prompt-agnostic ablation of AccuScale/Argus, rebuilt on our program with mean losses"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:
        """A plan over one class."""
        planning = agnostic_step(rules, self.part, course.planning, seen, self.settings)
        shift = course.shift if planning.plan is course.planning.plan else shift_rows(planning.plan)
        return Course(planning, shift, course.memory)

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:
        """The level that the plan's shares give at this draw."""
        return decide_for(rules, arrival, pool, drawn_level(course, arrival.draw, rules.ladder.exact))

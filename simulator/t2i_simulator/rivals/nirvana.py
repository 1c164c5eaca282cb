"""NIRVANA: K by the similarity of the nearest cached prompt, and nothing else.

Source: NIRVANA (NSDI'24, arXiv 2312.04429). Its table for K of N = 50 steps, kept as shares of the schedule:

    similarity >  0.95  0.90  0.85  0.75  0.65
    K / N         0.5   0.4   0.3   0.2   0.1      else 0

It has no load control: what it serves depends on the prompt alone. The artifact of the paper uses the same table as
its "optimal K". `MeasuredThresholds` has none: it takes the cheapest level whose measured loss is within a tolerance.

Simplified: the one-class SVM that predicts "no match" is left out. It saves a vector look-up and no time of the device.
The simulator evicts, in the same way for all policies.
"""

from dataclasses import dataclass

from t2i_policy.level import Ladder, Level
from t2i_policy.planning.plan import Plan
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import cheapest_within
from t2i_simulator.rivals.common import AnyWorker, NothingPlanned, Strength, decide_for
from t2i_simulator.rivals.mean_losses import LadderPart, levels_of

#: (similarity above, share of the schedule skipped), most similar first.
THRESHOLDS = ((0.95, 0.5), (0.90, 0.4), (0.85, 0.3), (0.75, 0.2), (0.65, 0.1))
WHOLE_LADDER = Strength(whole_ladder=True)
ROUNDING = 1e-9  # so that 6 of 12 steps are a share of 0.5


def level_by_similarity(ladder: Ladder, similarity: float | None) -> Level:
    """The ladder's largest skip that the table allows at this similarity; exact without a neighbour."""
    share = 0.0
    if similarity is not None:
        share = next((share for above, share in THRESHOLDS if similarity > above), 0.0)
    allowed = share * ladder.base_steps + ROUNDING
    return max(
        (level for level in levels_of(ladder, LadderPart.SKIPS) if level.skipped_steps <= allowed),
        key=lambda level: level.skipped_steps,
    )


@dataclass(frozen=True, slots=True)
class Nirvana(NothingPlanned, AnyWorker):
    name: str = "nirvana"
    source: str = "NIRVANA (NSDI'24): K by published similarity thresholds; match predictor left out"

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        level = level_by_similarity(rules.ladder, arrival.near.similarity)
        return decide_for(rules, arrival, pool, level, wanted=level)


def level_within(rules: Rules, arrival: Arrival, tolerance: float) -> Level:
    """The cheapest level of the whole ladder that is measured to lose no more than `tolerance` for this prompt."""
    options = rules.judge(arrival.near, arrival.limits).options
    return (cheapest_within(options, tolerance) or options[-1]).level


@dataclass(frozen=True, slots=True)
class MeasuredThresholds(NothingPlanned, AnyWorker):
    tolerance: float
    name: str
    source: str = "NIRVANA by losses measured on this model, short schedules too; no load control"

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        level = level_within(rules, arrival, self.tolerance)
        return decide_for(rules, arrival, pool, level, WHOLE_LADDER, wanted=level)

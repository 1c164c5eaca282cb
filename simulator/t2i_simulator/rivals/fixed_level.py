"""Policies with fixed levels, which look neither at prompts nor at load.

Clipper-HA runs all prompts exact. Clipper-HT runs all at the cheapest level, from the nearest latent, however far.
Source: Clipper (NSDI'17) as the accuracy-scaling papers run it (Proteus, ASPLOS'24, configs `clipper_highacc` and
`clipper_lowacc`): one variant for the whole pool, chosen beforehand and never changed. Simplified: Clipper's AIMD
batching is left out; batches form at step boundaries, as for every policy here.
"""

from dataclasses import dataclass

from t2i_policy.planning.plan import Plan
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.rivals.common import AnyWorker, NothingPlanned, decide_for
from t2i_simulator.rivals.mean_losses import LadderPart, levels_of


@dataclass(frozen=True, slots=True)
class ClipperHighAccuracy(NothingPlanned, AnyWorker):
    name: str = "clipper-ha"
    source: str = "Clipper (NSDI'17), high accuracy, as run by Proteus; AIMD batching left out"

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        return decide_for(rules, arrival, pool, rules.ladder.exact)


@dataclass(frozen=True, slots=True)
class ClipperHighThroughput(NothingPlanned, AnyWorker):
    name: str = "clipper-ht"
    source: str = "Clipper (NSDI'17), high throughput, as run by Proteus; AIMD batching left out"

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        return decide_for(rules, arrival, pool, levels_of(rules.ladder, LadderPart.SKIPS)[-1])

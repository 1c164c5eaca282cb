"""Clipper-HA and Clipper-HT: every request at one fixed level, high accuracy or high throughput.

Source: Clipper (NSDI'17) as the accuracy-scaling papers run it (Proteus, ASPLOS'24, configs `clipper_highacc` and
`clipper_lowacc`): one model variant for the whole pool, chosen beforehand and never changed.

Clipper-HA runs everything exact. Clipper-HT runs everything at the cheapest level, from the nearest latent there is,
however far it may be; a prompt with an empty cache runs exact.

Simplified: Clipper's AIMD batching is left out; batches are formed at step boundaries as for every policy here.
"""

from dataclasses import dataclass

from t2i_policy.level import Level
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.placement import Placement
from t2i_simulator.rivals.by_level import place_anywhere
from t2i_simulator.rivals.decisions import decide_for
from t2i_simulator.rivals.variants import LadderPart, cheapest_of


@dataclass(frozen=True, slots=True)
class ClipperHighAccuracy:
    """All exact."""

    name: str = "clipper-ha"
    source: str = "Clipper (NSDI'17), high accuracy, as run by Proteus; AIMD batching left out"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:  # noqa: ARG002
        """Nothing to plan."""
        return course

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        """Exact."""
        return decide_for(rules, arrival, pool, rules.ladder.exact)

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """Whichever worker finishes first."""
        return place_anywhere(level, pool, left_s, excluded)


@dataclass(frozen=True, slots=True)
class ClipperHighThroughput:
    """All at the cheapest level."""

    part: LadderPart = LadderPart.SKIPS
    name: str = "clipper-ht"
    source: str = "Clipper (NSDI'17), high throughput, as run by Proteus; AIMD batching left out"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:  # noqa: ARG002
        """Nothing to plan."""
        return course

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        """The cheapest level, whatever the similarity."""
        return decide_for(rules, arrival, pool, cheapest_of(rules.ladder, self.part))

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """Whichever worker finishes first."""
        return place_anywhere(level, pool, left_s, excluded)

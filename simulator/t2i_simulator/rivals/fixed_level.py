"""Policies with fixed levels, which look neither at prompts nor at load. Any other policy must beat them.

Clipper-HA runs all prompts exact. Clipper-HT runs all at the cheapest level, from the nearest latent, however far.
Source: Clipper (NSDI'17) as the accuracy-scaling papers run it (Proteus, ASPLOS'24, configs `clipper_highacc` and
`clipper_lowacc`): one variant for the whole pool, chosen beforehand and never changed. Simplified: Clipper's AIMD
batching is left out; batches form at step boundaries, as for every policy here.

Random K draws each level of the papers' ladder with the same probability. Least-loaded runs all prompts exact, on the
worker that owes the fewest steps for its speed, as a plain load balancer in front of a fixed pool does.
"""

from dataclasses import dataclass

from t2i_policy.level import Level
from t2i_policy.policies import Course
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.placement import Placement, PlacementReason
from t2i_simulator.rivals.common import AnyWorker, NothingPlanned, decide_for
from t2i_simulator.rivals.mean_losses import LadderPart, cheapest_of, levels_of


@dataclass(frozen=True, slots=True)
class ClipperHighAccuracy(NothingPlanned, AnyWorker):
    name: str = "clipper-ha"
    source: str = "Clipper (NSDI'17), high accuracy, as run by Proteus; AIMD batching left out"

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        return decide_for(rules, arrival, pool, rules.ladder.exact)


@dataclass(frozen=True, slots=True)
class ClipperHighThroughput(NothingPlanned, AnyWorker):
    name: str = "clipper-ht"
    source: str = "Clipper (NSDI'17), high throughput, as run by Proteus; AIMD batching left out"

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        return decide_for(rules, arrival, pool, cheapest_of(rules.ladder, LadderPart.SKIPS))


@dataclass(frozen=True, slots=True)
class RandomLevel(NothingPlanned, AnyWorker):
    name: str = "random-k"
    source: str = "uniformly random K, nearest latent"

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        levels = levels_of(rules.ladder, LadderPart.SKIPS)
        return decide_for(rules, arrival, pool, levels[min(len(levels) - 1, int(arrival.draw * len(levels)))])


@dataclass(frozen=True, slots=True)
class LeastLoaded(NothingPlanned):
    name: str = "least-loaded"
    source: str = "a plain load balancer: exact, the worker that owes the least work"

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        return decide_for(rules, arrival, pool, rules.ladder.exact)

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:  # noqa: ARG002
        free = [worker for worker in pool.ready if worker.free_slots and worker.name not in excluded]
        if not free:
            return None
        least = min(free, key=lambda worker: (worker.steps_left / worker.steps_per_s, worker.in_flight, worker.name))
        return Placement(least.name, PlacementReason.EARLIEST_FINISH, least.finish_s(level.steps_run))

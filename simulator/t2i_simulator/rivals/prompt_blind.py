"""Random K and least-loaded: the two baselines of no idea at all.

Source: none; they are the floor that any policy must clear. Random K draws every level of the papers' ladder with the
same probability and runs it from the nearest latent there is. Least-loaded runs everything exact on the worker that
owes the fewest steps for its speed: what a plain load balancer in front of a fixed pool does.
"""

from dataclasses import dataclass

from t2i_policy.level import Level
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.placement import Placement, PlacementReason
from t2i_simulator.rivals.by_level import place_anywhere
from t2i_simulator.rivals.decisions import decide_for
from t2i_simulator.rivals.variants import LadderPart, levels_of


@dataclass(frozen=True, slots=True)
class RandomLevel:
    """Any level, equally likely."""

    part: LadderPart = LadderPart.SKIPS
    name: str = "random-k"
    source: str = "uniformly random K, nearest latent"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:  # noqa: ARG002
        """Nothing to plan."""
        return course

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        """The level that the draw falls on."""
        levels = levels_of(rules.ladder, self.part)
        return decide_for(rules, arrival, pool, levels[min(len(levels) - 1, int(arrival.draw * len(levels)))])

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """Whichever worker finishes first."""
        return place_anywhere(level, pool, left_s, excluded)


@dataclass(frozen=True, slots=True)
class LeastLoaded:
    """Exact, on the worker with the least to do."""

    name: str = "least-loaded"
    source: str = "a plain load balancer: exact, the worker that owes the least work"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:  # noqa: ARG002
        """Nothing to plan."""
        return course

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        """Exact."""
        return decide_for(rules, arrival, pool, rules.ladder.exact)

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:  # noqa: ARG002
        """The free worker that would be through with what it owes first."""
        free = [worker for worker in pool.ready if worker.free_slots and worker.name not in excluded]
        if not free:
            return None
        least = min(free, key=lambda worker: (worker.steps_left / worker.steps_per_s, worker.in_flight, worker.name))
        return Placement(least.name, PlacementReason.EARLIEST_FINISH, least.finish_s(level.steps_run))

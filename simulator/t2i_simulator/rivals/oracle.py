"""The oracle knows all future arrivals and the true loss of every request. It shows how good a policy could be.

Source: ours. It knows the price of a denoising step in each window, computed beforehand from the whole future
(`clearing`). It also knows the true profile, where the others read the measured one. It serves

    argmin true loss + price x steps     among the levels that this request may have

Of levels that tie at the price it takes the cheaper one for the share that clears the window. Queue, batches and
admission are the simulator's, so it can fall short of the bound `OracleKnowledge.mean_loss`.
Simplified: what the cache holds depends on what was served before. The prices come from the neighbours that another
run saw (say, that of `prompt-aware`), the choice from those of this run. A window should be no shorter than the
planning loop's period, because the price changes when `replan` is called.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from t2i_policy.level import Level
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.profile import LevelProfile
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import Option, choose_wanted_level, eligible_options
from t2i_policy.request.placement import Placement, choose_worker
from t2i_policy.request.served import Served, ServedReason
from t2i_simulator.rivals.clearing import OracleKnowledge
from t2i_simulator.rivals.common import RivalCourse, memory_of

TIE = 1e-9  # costs this close are equal
AT_REST: Mapping[str, float] = MappingProxyType({"price": 0.0, "cheaper_share": 0.0})


def option_at_price(options: tuple[Option, ...], price: float, cheaper_share: float, draw: float) -> Option:
    """The option of least loss + price x steps; of equal ones that of fewest steps if `draw` < `cheaper_share`."""
    costs = [option.expected_loss + price * option.level.steps_run for option in options]
    least = min(costs)
    equal = [option for option, cost in zip(options, costs, strict=True) if cost <= least + TIE]
    pick = min if draw < cheaper_share else max
    return pick(equal, key=lambda option: (option.level.steps_run, option.level.skipped_steps))


@dataclass(frozen=True, slots=True)
class Oracle:
    """`profile` is the true one; `course.memory` holds the price and share of the present window."""

    knowledge: OracleKnowledge
    profile: LevelProfile
    name: str = "oracle"
    source: str = "knows all arrivals and true losses: clearing prices of one linear program over the whole future"

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:  # noqa: ARG002
        price, share = self.knowledge.at(seen.now_s)
        return RivalCourse(course.planning, course.shift, memory={"price": price, "cheaper_share": share})

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:
        limits, near = arrival.limits, arrival.near
        memory = memory_of(course) or AT_REST
        options = eligible_options(rules.ladder, self.profile, near, limits)
        best = option_at_price(options, memory["price"], memory["cheaper_share"], arrival.draw)
        wanted = choose_wanted_level(rules.ladder, options, near, limits)
        reason = ServedReason.AS_WANTED if best.level == wanted.level else ServedReason.PLANNED
        estimated_s = pool.queue_wait_s() + pool.best_finish_s(best.level.steps_run)
        served = Served(best.level, best.expected_loss, estimated_s, reason)
        return Decided(near, options, rules.classes.classify(near, limits), wanted, served, pressed=0.0)

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """Like our policy: spread at low load, fill batches at high load."""
        return choose_worker(pool.ready, level, left_s, pool.occupancy, excluded)

"""Small pools in virtual time, for the tests of the simulator."""

import random
from collections.abc import Sequence

from t2i_policy.level import Level, build_ladder
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import Limits, WantedLevel, WantedReason
from t2i_policy.request.placement import Placement, choose_worker
from t2i_policy.request.served import Served, ServedReason, estimate_s
from t2i_simulator.faults import Fault
from t2i_simulator.neighbours import DrawnNeighbours
from t2i_simulator.scenario import Scenario, ServiceTarget
from t2i_simulator.workers import Group

STEPS = 10
LADDER = build_ladder(STEPS, [Level(skip, STEPS) for skip in (0, 4, 8)])
BANDS = ((-1.0, 0.7, 3.0), (0.7, 0.9, 1.0), (0.9, 1.01, 0.1))  # lower, upper, loss in percent at K = 4
USUAL = ServiceTarget(slo_s=30.0, max_loss=0.2, max_queued=20)
DRAWN = ((0.3, 0.7, 1.0), (0.7, 0.9, 1.0), (0.9, 1.0, 1.0))


def step_profile(step_s: Sequence[float] = (1.0, 1.2), fixed_s: float = 0.0) -> LevelProfile:
    """Losses by band at K = 4, double at K = 8; none of diversity."""
    losses = tuple(
        BandLoss(Level(skip, STEPS), lower, upper, percent / 100 * skip / 4, 0.0, 0, 0.0)
        for skip in (4, 8)
        for lower, upper, percent in BANDS
    )
    return LevelProfile("test", "test", STEPS, tuple(step_s), fixed_s, losses)


def simulated_pool(
    arrived_s: Sequence[float],
    workers: int = 2,
    profile: LevelProfile | None = None,
    faults: tuple[Fault, ...] = (),
    target: ServiceTarget = USUAL,
) -> Scenario:
    """One group; similarities drawn evenly over the bands; SLO 30 s, floor 80 %, 20 may wait."""
    own = profile or step_profile()
    return Scenario(
        LADDER,
        own,
        (Group("gpu", workers, own),),
        target,
        list(arrived_s),
        lambda: DrawnNeighbours(DRAWN, LADDER.skips, len(arrived_s), 0),
        faults=faults,
    )


def poisson(rate_rps: float, num: int, seed: int = 1) -> list[float]:
    """Arrival times."""
    draw = random.Random(seed)
    at_s, times = 0.0, []
    for _ in range(num):
        at_s += draw.expovariate(rate_rps)
        times.append(at_s)
    return times


class ExactOnly:
    """Everything is exact, whatever it costs: a queue with a known answer."""

    name = "exact-only"
    source = "tests"

    def replan(self, rules: Rules, plan: Plan, seen: PoolState) -> Plan:
        """No plan."""
        return plan

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        """Exact."""
        exact = rules.ladder.exact
        options, _, prompt_class = rules.judge(arrival.near, Limits(0.0, exact=True))
        wanted = WantedLevel(exact, 0.0, WantedReason.EXACT_REQUESTED)
        served = Served(exact, 0.0, estimate_s(pool, exact), ServedReason.AS_WANTED)
        return Decided(arrival.near, options, prompt_class, wanted, served, 0.0)

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """As ours."""
        return choose_worker(pool.ready, level, left_s, pool.occupancy, excluded)

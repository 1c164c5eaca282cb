"""What policy tests share: a hybrid ladder of SDXL's steps with made-up losses, pools of equal workers, demands."""

from collections.abc import Mapping
from math import log

from t2i_policy.level import Level, build_ladder
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import NO_PLAN, Plan
from t2i_policy.policies import PoolState, ServingPolicy
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.decide import Arrival, Decided, Rules, build_rules
from t2i_policy.request.options import Limits, Neighbourhood
from t2i_simulator.rivals.common import RivalDecided

N, SLO_S = 50, 20.0
EXACT, K5, K10, K15, K20, K25 = SKIPS = tuple(Level(k, N) for k in (0, 5, 10, 15, 20, 25))
SHORT40, SHORT25 = Level(0, 40), Level(0, 25)
STEP_S = (0.084, 0.168, 0.252, 0.336)  # 4.2 s an exact image alone; batching gains nothing, as on an A10G
#: Lower edges of similarity and how much of a level's loss its prompts take.
BANDS = ((-1.0, 2.0), (0.65, 1.2), (0.75, 0.8), (0.85, 0.5), (0.90, 0.3), (0.95, 0.1))
SKIP_LOSS = {K5: 0.030, K10: 0.042, K15: 0.056, K20: 0.068, K25: 0.085}
SHORT_LOSS = {SHORT40: 0.02, SHORT25: 0.12}
STORED = frozenset({5, 10, 15, 20, 25})
ANYTHING = Limits(1.0)
EXACT_RPS = 8 / 4.2  # what 8 workers make in full; twice that at K=25
MIX = {"0.65": 0.4, "0.75": 0.3, "0.95": 0.3}


def make_rules(max_loss: float = 0.2) -> Rules:
    """The rules of the pool."""
    edges = [edge for edge, _ in BANDS]
    bands = [
        BandLoss(level, low, high, loss * factor, 0.0, 100)
        for level, loss in SKIP_LOSS.items()
        for (low, factor), high in zip(BANDS, [*edges[1:], 1.01], strict=True)
    ]
    bands += [BandLoss(level, -1.0, 1.01, loss, 0.0, 100) for level, loss in SHORT_LOSS.items()]
    profile = LevelProfile("digest", "A10G", N, STEP_S, 0.0, tuple(bands))
    return build_rules(build_ladder(N, [*SKIPS, SHORT40, SHORT25]), profile, SLO_S, max_loss)


RULES = make_rules()


def worker(name: str, running: int = 0, level: Level | None = None, steps_left: int | None = None) -> WorkerView:
    """One that holds `running` requests, half done unless told otherwise."""
    owed = 25 * running if steps_left is None else steps_left
    return WorkerView(name, True, running, 0, 4, STEP_S, 0.0, owed, "gpu", level)


def pool_of(count: int = 8, running: int = 0, queued: int = 0, levels: Mapping[int, Level] | None = None) -> PoolView:
    """`count` equal workers; `levels` says where some of them stand."""
    at = levels or {}
    return PoolView(tuple(worker(f"w{n}", running, at.get(n)) for n in range(count)), queued, 40 * queued)


def asks(similarity: float | None, draw: float = 0.5, limits: Limits = ANYTHING, left_s: float = SLO_S) -> Arrival:
    """A request with everything stored for its neighbour; none without a similarity."""
    stored = STORED if similarity is not None else frozenset[int]()
    return Arrival(limits, Neighbourhood(similarity, stored), left_s, draw)


def steady(rates_rps: Mapping[str, float], now_s: float = 1000.0) -> Demand:
    """A demand that has been at these rates for long."""
    half_life_s = Demand().half_life_s
    return Demand(half_life_s, now_s, {name: rate * half_life_s / log(2) for name, rate in rates_rps.items()})


def seen(rates_rps: Mapping[str, float], pool: PoolView | None = None, now_s: float = 1000.0) -> PoolState:
    """What the slow loop sees of a pool (8 idle workers) at a steady demand by prompt class."""
    pool = pool or pool_of()
    groups = group_capacities(pool.workers, RULES.ladder.levels, SLO_S)
    return PoolState(now_s, steady(rates_rps, now_s), groups, pool)


def mix(total_rps: float) -> dict[str, float]:
    """Demand by prompt class."""
    return {name: share * total_rps for name, share in MIX.items()}


def planned(policy: ServingPolicy, total_rps: float, pool: PoolView | None = None) -> Plan:
    """The plan of the first planning step."""
    return policy.replan(RULES, NO_PLAN, seen(mix(total_rps), pool))


def sent_to(policy: ServingPolicy, plan: Plan, similarity: float, draw: float) -> Level | None:
    """Where one request is sent."""
    decided = policy.serve(RULES, plan, asks(similarity, draw), pool_of())
    return decided.sent_to if isinstance(decided, RivalDecided) else None


def workers_at(plan: Plan) -> dict[Level, int]:
    """Workers by level."""
    return {level: count for (_, level), count in plan.workers.items()}


def place_level(decided: Decided) -> Level:
    """What `ServingPolicy.place` is asked for."""
    sent_to = decided.sent_to if isinstance(decided, RivalDecided) else None
    return sent_to or decided.served.level

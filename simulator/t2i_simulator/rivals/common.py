"""What the rivals share: how a chosen level is run, by which worker, and methods that several have in common.

A rival chooses the level K of a request. The cache decides what runs: the largest stored K' <= K that was measured at
this similarity, else the exact level. A worker does the same when a latent is missing (`t2i_cache.fetching`). No
price, quality floor or deadline plays a part.

In some systems a worker runs one level only (`WorkerView.level`, from the plan's counts by `planning.assign`). A
request then waits for a worker of its level, even if others are idle. If no worker has its level (before the first
plan, or when the last one left), any worker takes it, so that no request is stranded. Admission reckons with the line
of that level alone, as an author of such a system would.

Each rival is run twice: as published, and as strong as its rule gets on this engine (`Strength`, `catalogue`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType

from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView, WorkerView, best_finish_s
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import BOUND_Z, Limits, Neighbourhood, Option, choose_wanted_level
from t2i_policy.request.placement import Placement, choose_worker
from t2i_policy.request.served import Served, ServedReason


@dataclass(frozen=True, slots=True)
class Strength:
    """How strongly a rival's rule is carried out. By default as published, where the rule's own module says no other.

    `headroom`: capacity that is planned for, over the demand seen. `any_worker`: the level belongs to the request, as
    this engine allows; else a worker runs one level. `whole_ladder`: levels are budgets of steps, and each prompt runs
    what is measured to lose least within its budget. Short schedules and the loss of repeats are included. Without it
    the ladder is the papers': K of the full schedule, by similarity alone.
    """

    headroom: float = 1.0
    any_worker: bool = False
    whole_ladder: bool = False


AS_PUBLISHED = Strength()
NO_MEMORY: Mapping[str, float] = MappingProxyType({})
SPREAD = 0.0  # at this occupancy `choose_worker` never fills batches


def workers_at(workers: Sequence[WorkerView], level: Level) -> tuple[WorkerView, ...]:
    """The workers at `level`, or all workers if none is."""
    return tuple(worker for worker in workers if worker.level == level) or tuple(workers)


@quick_dataclass(frozen=True, slots=True)
class RivalDecided(Decided):
    """A rival's decision. `extra_steps` run before the served level's own and leave no image (a cascade's light run).

    `sent_to`: the level whose workers take it, where workers run one level each. A hole in the cache may make the
    served level another. `then`: a second run after the first one's image (a cascade of models). It replaces the first
    image if that lost more than `bears`, as a discriminator sees it. `keeps`: the first goes out if the second is not
    in time.
    """

    extra_steps: int = 0
    sent_to: Level | None = None
    then: Level | None = None
    bears: float = 0.0
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class RivalPlan(Plan):
    """A rival's plan. `memory`: numbers that its slow loop carries from one step to the next."""

    memory: Mapping[str, float] = field(default_factory=lambda: NO_MEMORY)


def memory_of(plan: Plan) -> Mapping[str, float]:
    """What the step before remembered; nothing at the first."""
    return plan.memory if isinstance(plan, RivalPlan) else NO_MEMORY


def with_memory(plan: Plan, memory: Mapping[str, float]) -> RivalPlan:
    """The same plan, with what the next step is to know."""
    return RivalPlan(**{one.name: getattr(plan, one.name) for one in fields(Plan)}, memory=memory)


class NothingPlanned:
    """A policy that never plans."""

    __slots__ = ()

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:  # noqa: ARG002
        return before


class AnyWorker:
    """A policy whose requests go where they finish first."""

    __slots__ = ()

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        return choose_worker(pool.of_model(level.model).ready, level, left_s, SPREAD, excluded)


class PlacedAsOurs:
    """A policy that differs from ours in levels alone."""

    __slots__ = ()

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        able = pool.of_model(level.model)
        return choose_worker(able.ready, level, left_s, able.occupancy, excluded)


class WorkersByLevel:
    """A policy whose workers run one level each, unless its strength frees them.

    Of the workers that may take it, a request goes where it finishes first.
    """

    __slots__ = ()
    strength: Strength

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        if self.strength.any_worker:
            return choose_worker(pool.of_model(level.model).ready, level, left_s, SPREAD, excluded)
        return place_by_level(level, pool, left_s, excluded)


def place_by_level(
    level: Level, pool: PoolView, left_s: float, excluded: frozenset[str], occupancy: float = SPREAD
) -> Placement | None:
    """Of the workers at `level` the one that finishes first, or the fullest from `placement.FILL_FROM_OCCUPANCY` on."""
    able = [worker for worker in pool.of_model(level.model).ready if worker.name not in excluded]
    return choose_worker(workers_at(able, level), level, left_s, occupancy)


def runnable_option(
    rules: Rules, level: Level, near: Neighbourhood, limits: Limits, strength: Strength = AS_PUBLISHED
) -> Option:
    """What runs for a request that is sent to `level`, with the bound on its loss."""
    if strength.whole_ladder:
        options = rules.judge(near, limits).options  # cheapest first
        within = [option for option in options if option.level.cost <= level.cost]
        return min(within, key=lambda option: option.expected_loss, default=options[0])
    if limits.fixed_steps is not None:
        return Option(Level(0, limits.fixed_steps), 0.0)
    if limits.exact:
        return Option(rules.ladder.exact, 0.0)
    cap = level.skipped_steps if limits.max_skipped_steps is None else limits.max_skipped_steps
    stored = [k for k in near.stored_steps if 0 < k <= min(level.skipped_steps, cap)]
    skips = [Level(k, level.num_inference_steps) for k in sorted(stored, reverse=True)]
    for candidate in skips if level.needs_latent else [level]:
        loss = rules.profile.expected_loss(candidate, near.similarity, BOUND_Z)
        if loss is not None:
            return Option(candidate, loss)
    return Option(rules.ladder.exact, 0.0)


def decide_for(
    rules: Rules,
    arrival: Arrival,
    pool: PoolView,
    sent_to: Level,
    strength: Strength = AS_PUBLISHED,
    wanted: Level | None = None,
) -> RivalDecided:
    """Run `sent_to` or its fallback at any worker. `wanted` is the level without load (None = exact)."""
    limits, near = arrival.limits, arrival.near
    run = runnable_option(rules, sent_to, near, limits, strength)
    liked = runnable_option(rules, wanted or rules.ladder.exact, near, limits, strength)
    reason = ServedReason.AS_WANTED if run.level == liked.level else ServedReason.PLANNED
    pool = pool.of_model(run.level.model)
    estimated_s = pool.for_cost(arrival.step_cost).expected_s(run.level.cost, arrival.left_s)
    return RivalDecided(
        near=near,
        options=(run,),
        prompt_class=rules.classes.classify(near, limits),
        wanted=choose_wanted_level(rules.ladder, (Option(liked.level, liked.expected_loss),), near, limits),
        served=Served(run.level, run.expected_loss, estimated_s, reason),
        pressed=0.0,
    )


def decide_by_level(
    rules: Rules,
    arrival: Arrival,
    pool: PoolView,
    sent_to: Level,
    strength: Strength,
    wanted: Level | None = None,
) -> RivalDecided:
    """Like `decide_for`, but only workers at `sent_to` take the request, even if its fallback runs."""
    decided = decide_for(rules, arrival, pool, sent_to, strength, wanted)
    return decided if strength.any_worker else in_line(replace(decided, sent_to=sent_to), pool, 0)


def in_line(decided: RivalDecided, pool: PoolView, waiting_steps: int) -> RivalDecided:
    """Estimate the request's end behind `waiting_steps` of its own level's line. Only the shell knows them."""
    if decided.sent_to is None:
        return decided
    pool = pool.of_model(decided.sent_to.model)
    there = workers_at(pool.ready, decided.sent_to)
    rate = sum(worker.steps_per_s for worker in there)
    wait_s = pool.turns * waiting_steps / rate if rate > 0 else float("inf")
    estimated_s = wait_s + best_finish_s(there, decided.served.level.cost)
    return replace(decided, served=replace(decided.served, estimated_s=estimated_s))

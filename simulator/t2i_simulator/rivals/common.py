"""What the rivals share: how a chosen level is run, by which worker, and methods that several have in common.

A rival chooses the level K of a request. The cache decides what runs: the largest stored K' <= K that was measured at
this similarity, else the exact level. A worker does the same when a latent is missing (`t2i_cache.fetching`). No
price, quality floor or deadline plays a part.

In some systems a worker runs one level only (`WorkerView.level`, from the plan's counts by `planning.assign`). A
request then waits for a worker of its level, even if others are idle. If no worker has its level (before the first
plan, or when the last one left), any worker takes it, so that no request is stranded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from t2i_policy.level import Level
from t2i_policy.policies import Course, PoolState
from t2i_policy.pool_view import PoolView, WorkerView, best_finish_s
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import BOUND_Z, Limits, Neighbourhood, Option, choose_wanted_level
from t2i_policy.request.placement import Placement, choose_worker
from t2i_policy.request.served import Served, ServedReason

NO_MEMORY: Mapping[str, float] = MappingProxyType({})
SPREAD = 0.0  # at this occupancy `choose_worker` never fills batches


def workers_at(workers: Sequence[WorkerView], level: Level) -> tuple[WorkerView, ...]:
    """The workers at `level`, or all workers if none is."""
    return tuple(worker for worker in workers if worker.level == level) or tuple(workers)


@dataclass(frozen=True, slots=True)
class RivalDecided(Decided):
    """A rival's decision. `extra_steps` run before the served level's own and leave no image (a cascade's light run).

    `sent_to`: the level whose workers take it, where workers run one level each. A hole in the cache may make the
    served level another.
    """

    extra_steps: int = 0
    sent_to: Level | None = None


@dataclass(frozen=True, slots=True)
class RivalCourse(Course):
    """What a rival's slow loop has settled. `memory`: numbers that it carries from one step to the next."""

    memory: Mapping[str, float] = field(default_factory=lambda: NO_MEMORY)


def memory_of(course: Course) -> Mapping[str, float]:
    """What the step before remembered; nothing at the first."""
    return course.memory if isinstance(course, RivalCourse) else NO_MEMORY


class NothingPlanned:
    """A policy that never plans."""

    __slots__ = ()

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:  # noqa: ARG002
        return course


class AnyWorker:
    """A policy whose requests go where they finish first."""

    __slots__ = ()

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        return choose_worker(pool.ready, level, left_s, SPREAD, excluded)


class WorkersByLevel:
    """A policy whose workers run one level each; of those at its level, a request goes where it finishes first."""

    __slots__ = ()

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        return place_by_level(level, pool, left_s, excluded)


def place_by_level(
    level: Level, pool: PoolView, left_s: float, excluded: frozenset[str], occupancy: float = SPREAD
) -> Placement | None:
    """Of the workers at `level` the one that finishes first, or the fullest from `placement.FILL_FROM_OCCUPANCY` on."""
    able = [worker for worker in pool.ready if worker.name not in excluded]
    return choose_worker(workers_at(able, level), level, left_s, occupancy)


def runnable_option(rules: Rules, level: Level, near: Neighbourhood, limits: Limits) -> Option:
    """What runs for a request that is sent to `level`, with the bound on its loss."""
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
    rules: Rules, arrival: Arrival, pool: PoolView, sent_to: Level, wanted: Level | None = None
) -> RivalDecided:
    """Run `sent_to` or its fallback at any worker. `wanted` is the level without load (None = exact)."""
    limits, near = arrival.limits, arrival.near
    run = runnable_option(rules, sent_to, near, limits)
    liked = runnable_option(rules, wanted or rules.ladder.exact, near, limits)
    reason = ServedReason.AS_WANTED if run.level == liked.level else ServedReason.PLANNED
    estimated_s = pool.queue_wait_s() + pool.best_finish_s(run.level.steps_run)
    return RivalDecided(
        near=near,
        options=(run,),
        prompt_class=rules.classes.classify(near, limits),
        wanted=choose_wanted_level(rules.ladder, (Option(liked.level, liked.expected_loss),), near, limits),
        served=Served(run.level, run.expected_loss, estimated_s, reason),
        pressed=0.0,
    )


def decide_by_level(
    rules: Rules, arrival: Arrival, pool: PoolView, sent_to: Level, wanted: Level | None = None
) -> RivalDecided:
    """Like `decide_for`, but only workers at `sent_to` take the request, even if its fallback runs."""
    decided = decide_for(rules, arrival, pool, sent_to, wanted)
    served, there = decided.served, workers_at(pool.ready, sent_to)
    estimated_s = pool.queue_wait_s() + best_finish_s(there, served.level.steps_run)
    return replace(decided, served=replace(served, estimated_s=estimated_s), sent_to=sent_to)

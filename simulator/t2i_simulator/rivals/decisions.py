"""Running: a baseline's level for one request, made into the decision that shells expect.

A baseline says where a request is sent; what is run there follows from the cache (`fallback`). The estimate is the
gateway's queue plus the best worker, of those at the level where workers run one level each. Nothing else is looked
at: no price, no floor, no deadline.
"""

from dataclasses import replace

from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView, best_finish_s
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import Option, choose_wanted_level
from t2i_policy.request.served import Served, ServedReason
from t2i_simulator.rivals.by_level import standing_at
from t2i_simulator.rivals.fallback import runnable_option


def decide_for(rules: Rules, arrival: Arrival, pool: PoolView, sent_to: Level, wanted: Level | None = None) -> Decided:
    """Run at `sent_to` or its fallback, by any worker. `wanted` is what the policy would have liked (None = exact)."""
    limits, near = arrival.limits, arrival.near
    run = runnable_option(rules, sent_to, near, limits)
    liked = runnable_option(rules, wanted or rules.ladder.exact, near, limits)
    reason = ServedReason.AS_WANTED if run.level == liked.level else ServedReason.PLANNED
    estimated_s = pool.queue_wait_s() + pool.best_finish_s(run.level.steps_run)
    return Decided(
        near=near,
        options=(run,),
        prompt_class=rules.classes.classify(near, limits),
        wanted=choose_wanted_level(rules.ladder, (Option(liked.level, liked.expected_loss),), near, limits),
        served=Served(run.level, run.expected_loss, estimated_s, reason),
        pressed=0.0,
    )


def decide_standing(
    rules: Rules, arrival: Arrival, pool: PoolView, sent_to: Level, wanted: Level | None = None
) -> Decided:
    """The same where workers run one level each: the workers at `sent_to` take it, whatever is run there."""
    decided = decide_for(rules, arrival, pool, sent_to, wanted)
    served, there = decided.served, standing_at(pool.ready, sent_to)
    estimated_s = pool.queue_wait_s() + best_finish_s(there, served.level.steps_run)
    return replace(decided, served=replace(served, estimated_s=estimated_s), sent_to=sent_to)

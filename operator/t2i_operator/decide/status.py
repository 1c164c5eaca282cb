"""The status: workers, levels, plan, quality and conditions, rendered from one look.

Nothing in it changes while nothing changes, so an idle pool is never written: rates and queues are metrics, not status.

What the API server refused is told in conditions and an event, as a problem of the pool:

exceeded quota     NoCapacity   the quota's own words
forbidden          Forbidden    which verb on which resource the operator may not
anything else      Refused      e.g. a value in a group's template that only the API server can judge
"""

from typing import Any

from t2i_api.levels import coordinates
from t2i_api.plan import render_plan
from t2i_api.status import LadderStatus, LevelStatus, PoolStatus
from t2i_operator.clock import Instant
from t2i_operator.decide.audits import judge_unread_quality, measured_percent, render_audits
from t2i_operator.decide.conditions import ConditionInputs, judge, render_conditions
from t2i_operator.decide.models import of_groups, render_groups, render_models
from t2i_operator.decide.plan import describe
from t2i_operator.decide.types import DesiredPool, Observed, Problem
from t2i_policy.level import Level
from t2i_policy.planning.plan import NO_PLAN, Plan

NO_CAPACITY = "NoCapacity"
FORBIDDEN = "Forbidden"
REFUSED = "Refused"
_QUOTA = "exceeded quota"


def render_status(desired: DesiredPool, inputs: ConditionInputs, now: Instant) -> PoolStatus:
    """The status of a pool whose spec can be carried out."""
    seen, spec, plan = inputs.seen, desired.spec, inputs.plan
    audits = render_audits(desired, seen)
    movement, ready = inputs.movement, of_groups(inputs.serving)
    return PoolStatus(
        observed_generation=seen.generation,
        conditions=render_conditions(judge(inputs), seen.status.get("conditions", ()), seen.generation, now),
        workers=inputs.total_workers,
        ready_workers=min(inputs.serving_workers, inputs.total_workers),
        groups=render_groups(spec, ready),
        models=render_models(spec, movement.assigned, inputs.serving, movement.reload_ms),
        move=movement.move,
        mix=describe(plan.numbers, spec.ladder.base_steps),
        levels=tuple(_level(level, plan, ready) for level in spec.ladder.levels),
        ladder=LadderStatus(source=desired.chosen.source, message=desired.chosen.sentence),
        plan=render_plan(plan) if plan.revision else None,
        quality_percent=_quality(plan),
        measured_quality_percent=measured_percent(audits),
        audits=audits,
    )


def render_problem(problem: Problem, seen: Observed, now: Instant) -> PoolStatus:
    """The status of a pool whose spec cannot be carried out: what runs is as it was, the conditions say why."""
    before = PoolStatus.model_validate(seen.status)
    inputs = ConditionInputs(
        seen, before.workers, 1, NO_PLAN, problem, (), writing=False, quality=judge_unread_quality(seen)
    )
    conditions = render_conditions(judge(inputs), seen.status.get("conditions", ()), seen.generation, now)
    ready = min(inputs.ready_workers, before.workers)
    return before.model_copy(
        update={"observed_generation": seen.generation, "conditions": conditions, "ready_workers": ready}
    )


def is_same(status: PoolStatus, before: dict[str, Any]) -> bool:
    """True if writing it would change nothing."""
    return status == PoolStatus.model_validate(before)


def to_document(status: PoolStatus) -> dict[str, Any]:
    """As the API server takes it."""
    return status.model_dump(by_alias=True, mode="json", exclude_none=True)


def _level(level: Level, plan: Plan, ready: dict[str, frozenset[int]]) -> LevelStatus:
    here = [(group, number) for (group, at), which in plan.numbers.items() if at == level for number in which]
    return LevelStatus(
        **coordinates(level),
        workers=len(here),
        ready=sum(number in ready.get(group, frozenset()) for group, number in here),
        load_percent=_load_percent(level, plan),
    )


def _load_percent(level: Level, plan: Plan) -> int:
    """Share of the planned traffic that is served at this level."""
    here_rps = sum(rate * plan.share(name, level) for name, rate in plan.rates_rps.items())
    return min(100, round(100 * here_rps / plan.demand_rps)) if plan.demand_rps > 0 else 0


def _quality(plan: Plan) -> int | None:
    """Unknown for a Fixed mix without demand: it depends on the prompts."""
    if not plan.revision or (plan.binds and not plan.rates_rps):
        return None
    return max(0, min(100, round(100 * (1 - plan.mean_loss))))


def explain_refusal(status: int, message: str) -> Problem:
    """`status` is HTTP's, `message` the API server's own, with the path before it."""
    if status == 403 and _QUOTA in message:
        return Problem(NO_CAPACITY, f"{message}; raise the quota of the namespace, or ask for less")
    if status == 403:
        return Problem(FORBIDDEN, f"{message}; grant it to the operator (docs/permissions.md lists what it needs)")
    return Problem(REFUSED, f"{message}; change what the message names")

"""The reconcile decision: from one look at a pool to what must be done about it, top to bottom.

A pool that is being deleted is left alone: its children go with it, by their owner references. A spec that cannot be
carried out changes the conditions and nothing else. Otherwise children come first, among them what audits correct, then
the status with the plan in it. The labels that follow the plan come next, then events. Crashing between any two of
these is harmless: the next look finds what is missing, and nothing is decided from memory.
"""

from collections.abc import Iterator
from dataclasses import replace

from t2i_api.names import level_value
from t2i_api.status import AuditsStatus, PoolStatus
from t2i_operator.clock import Instant
from t2i_operator.decide.audits import QUALITY_KEPT, judge_quality
from t2i_operator.decide.children import decide_children
from t2i_operator.decide.conditions import SETTLED, ConditionInputs
from t2i_operator.decide.corrections import RecordDecision, correct, next_record, read_record, render_record
from t2i_operator.decide.models import lost_models
from t2i_operator.decide.plan import decide_plan, running_plan
from t2i_operator.decide.status import is_same, render_problem, render_status, to_document
from t2i_operator.decide.types import Action, Announce, Decision, DesiredPool, LabelPod, Observed, Problem, WriteStatus
from t2i_operator.manifests.child import Manifest
from t2i_policy.planning.plan import Plan


def decide(seen: Observed, desired: DesiredPool | Problem, now: Instant) -> Decision:
    """What to do now, in this order."""
    if seen.deleting:
        return Decision((), settled=True)
    if isinstance(desired, Problem):
        return _finish(seen, (), (), render_problem(desired, seen, now))
    kept = _decide_record(seen, desired, now)
    wanted = [*desired.without(seen.unserved).children, *_record_child(seen, desired, kept)]
    children = decide_children(seen.ref.uid, wanted, seen.children)
    desired = correct(desired, kept.record)
    plan, movement = (decided := decide_plan(desired, seen, now)).plan, decided.movement
    inputs = ConditionInputs(
        seen=seen,
        total_workers=desired.spec.total_workers,
        total_gateways=desired.spec.gateway.replicas,
        plan=plan,
        problem=None,
        in_the_way=children.in_the_way,
        writing=bool(children.applies or children.deletes),
        spec=desired.spec,
        quality=judge_quality(desired, seen),
        movement=movement,
        below_floor=desired.below_floor,
    )
    rest: tuple[Action, ...] = (*_labels(seen, plan), *movement.events)
    decision = _finish(seen, (*children.applies, *children.deletes), rest, render_status(desired, inputs, now))
    return replace(decision, settled=False) if kept.waits else decision


def _decide_record(seen: Observed, desired: DesiredPool, now: Instant) -> RecordDecision:
    return next_record(read_record(seen.ref.name, seen.children), seen.audits.of(desired.audit_basis), now)


def _record_child(seen: Observed, desired: DesiredPool, kept: RecordDecision) -> list[Manifest]:
    """It goes with the audits."""
    return [] if desired.spec.quality is None else render_record(seen.ref, kept.record)


def _finish(seen: Observed, first: tuple[Action, ...], rest: tuple[Action, ...], status: PoolStatus) -> Decision:
    """The status only if it says something new, then the rest, and events on what changed in it."""
    settled = not first and _is_settled(status)
    if is_same(status, seen.status):
        return Decision((*first, *rest), settled)
    events = tuple(_events(seen, status))
    return Decision((*first, WriteStatus(to_document(status)), *rest, *events), settled)


def _is_settled(status: PoolStatus) -> bool:
    return any(one.type == "Progressing" and one.reason == SETTLED for one in status.conditions)


def _labels(seen: Observed, plan: Plan) -> Iterator[LabelPod]:
    """Pods whose label is not where the plan has them, stripped and edited ones too."""
    for pod in seen.workers:
        if pod.group is None or pod.number is None:
            continue
        level = plan.level_of(pod.group, pod.number)
        if level is not None and pod.level != level_value(level):
            yield LabelPod(pod.name, pod.uid, level_value(level))


def _events(seen: Observed, status: PoolStatus) -> Iterator[Announce]:
    """What a person would want to know: readiness gained or lost, a new obstacle, a gap in security, a new plan."""
    before = {one["type"]: one for one in seen.status.get("conditions", ())}
    for one in status.conditions:
        was = before.get(one.type, {})
        if one.type == "Ready" and one.status == "True" and was.get("status") != "True":
            yield Announce("Ready", one.message)
        if one.type == "Available" and one.status == "False" and was.get("status") == "True":
            yield Announce("Unavailable", one.message, warning=True)
        if one.type == "Degraded" and one.status == "True" and was.get("reason") != one.reason:
            yield Announce(one.reason, one.message, warning=True)
        if one.type == "Secured" and one.status == "False" and was.get("reason") != one.reason:
            yield Announce("Insecure", one.message, warning=True)
        if one.type == QUALITY_KEPT and one.status == "False" and was.get("status") != "False":
            yield Announce(one.reason, one.message, warning=True)
    corrected = PoolStatus.model_validate(seen.status).audits
    yield from lost_models(seen, status)
    if (
        status.audits is not None
        and status.audits.corrections_revision > (corrected or AuditsStatus()).corrections_revision
    ):
        yield Announce("Recalibrated", status.audits.correction_reason)
    if status.plan is not None and running_plan(seen.status).revision != status.plan.revision:
        yield Announce("Planned", f"Plan {status.plan.revision} ({status.plan.reason}): {status.mix}")

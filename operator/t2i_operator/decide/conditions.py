"""Conditions: what people and `kubectl wait` read. Each has a reason for programs and a sentence with the next step.

    Ready        every worker and gateway is ready, no worker fails, and a plan is in force
    Available    some worker that does not fail and some gateway are ready: requests are served
    Planned      a plan is in force for this spec
    Progressing  something is on its way to what the spec asks for
    Degraded     something is wrong that will not mend by waiting, or has failed and is tried again
    Secured      callers, gateways and workers prove who they are, and tenants share nothing
    QualityKept  audits find the quality that was promised (`audits`); only with spec.quality

"Why not ready" is answered by the first that applies: the spec, names taken by others, failing loads, images,
containers, no capacity. Then come workers that fail their requests, a model that no worker serves, last what is merely
not there yet. A worker that loads another model because the plan wants it is not missed. `lastTransitionTime` moves
only when `status` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2i_api.pool import PoolSpec
from t2i_api.status import ConditionStatus
from t2i_operator.clock import Instant
from t2i_operator.decide.models import MODEL_NOT_SERVED, of_groups, ready_by_model, spoken, strays, told_move
from t2i_operator.decide.moving import NO_MOVEMENT, Movement
from t2i_operator.decide.types import ChildSeen, Holding, Observed, PodSeen, Problem, TroubleKind
from t2i_policy.planning.plan import Plan

SETTLED = "Settled"
NAMED = 3


@dataclass(frozen=True, slots=True)
class ConditionInputs:
    """What conditions are judged from."""

    seen: Observed
    total_workers: int
    total_gateways: int
    plan: Plan
    problem: Problem | None
    in_the_way: tuple[str, ...]
    writing: bool  # children are being written in this very round
    spec: PoolSpec | None = None  # None: it cannot be carried out
    quality: "Verdict | None" = None  # None: nothing is audited
    movement: Movement = NO_MOVEMENT  # which model each worker is to hold
    below_floor: tuple[str, ...] = ()  # a sentence for each model that the floor forbids to all requests

    @property
    def ready_workers(self) -> int:
        return sum(pod.ready for pod in self.seen.workers)

    @property
    def serving_workers(self) -> int:
        """Ready ones that gateways do not leave out for their failures."""
        return self.ready_workers - len(self.seen.failing)

    @property
    def serving(self) -> Mapping[Holding, frozenset[int]]:
        """Workers that serve, by group and model."""
        return {} if self.spec is None else self.movement.serving(self.spec, self.seen)

    @property
    def unserved_models(self) -> list[str]:
        """Models that no worker serves, of pools with several; none while no worker serves at all."""
        if self.spec is None or not self.spec.models or not self.serving_workers:
            return []
        ready = ready_by_model(self.serving)
        return [model for model in ("", *self.spec.models) if not ready.get(model)]

    @property
    def strays(self) -> list[str]:
        """Ready workers that hold another model than the plan wants."""
        if self.spec is None:
            return []
        return strays(self.seen, self.spec, self.movement.assigned, self.movement.mover)

    @property
    def expected_workers(self) -> int:
        """Those that should be ready: all but the one that loads another model as the plan wants."""
        mover = self.movement.mover
        return self.total_workers - any(pod.name == mover and not pod.ready for pod in self.seen.workers)

    @property
    def ready_gateways(self) -> int:
        return sum(pod.ready for pod in self.seen.gateways)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without its times."""

    holds: bool | None
    reason: str
    message: str


NOT_IN_FORCE = Verdict(None, "SpecNotInForce", "The spec cannot be carried out: see Ready.")


def judge(inputs: ConditionInputs) -> dict[str, Verdict]:
    """A verdict for each condition, by its type."""
    obstacle = _obstacle(inputs)
    failing = _failing(inputs)
    missing = _missing(inputs)
    planned = _planned(inputs)
    ready = obstacle or failing or missing or (planned if not planned.holds else None)
    audited = {} if inputs.quality is None else {"QualityKept": inputs.quality}
    return {
        "Ready": ready or Verdict(True, "AllReady", f"{inputs.total_workers} workers serve."),
        "Available": _available(inputs, obstacle or failing),
        "Planned": planned,
        "Progressing": _progressing(inputs, obstacle, missing),
        "Degraded": _degraded(inputs, obstacle),
        "Secured": judge_security(inputs.spec),
        **audited,
    }


def _degraded(inputs: ConditionInputs, obstacle: Verdict | None) -> Verdict:
    """An obstacle, or what costs steps although requests are served."""
    if obstacle is not None:
        return Verdict(True, obstacle.reason, obstacle.message)
    failing = _failing(inputs)
    if failing is not None:
        return Verdict(True, failing.reason, failing.message)
    if inputs.below_floor:
        return Verdict(True, "ModelBelowFloor", " ".join(inputs.below_floor))
    if inputs.seen.unserved:
        text = "gateway.route: this cluster does not serve HTTPRoute (gateway.networking.k8s.io/v1), so there is no "
        return Verdict(True, "RouteNotServed", f"{text}route: install the Gateway API, or remove gateway.route.")
    for report in inputs.seen.reports:
        if report.embedder_trouble:
            text = f"{report.gateway} serves without cached latents: {report.embedder_trouble}"
            return Verdict(True, "EmbedderMissing", text)
        if report.store_trouble:
            text = f"{report.gateway} serves without cached latents: {report.store_trouble}"
            return Verdict(True, "StoreNotServing", text)
    return Verdict(False, "AsExpected", "Nothing is wrong.")


def judge_security(spec: PoolSpec | None) -> Verdict:
    """What the spec leaves open, the first that applies. What is open is allowed, but never silent."""
    if spec is None:
        return NOT_IN_FORCE
    if not spec.security.authenticated:
        text = "Whoever reaches a gateway may call it, and all callers are one tenant: set "
        return Verdict(
            False, "NoClientAuthentication", f"{text}spec.security.clientAuthentication to Token or MutualTLS."
        )
    if not spec.security.workers_secured:
        text = "Gateways and workers talk in clear: set spec.security.gatewayClientTlsSecretName and "
        return Verdict(False, "WorkersInClear", f"{text}workerTlsSecretName.")
    if spec.cache.scope == "Pool":
        text = "Tenants start from each other's latents, as spec.cache.sharedBetweenTenants allows: use scope Tenant."
        return Verdict(False, "LatentsShared", text)
    return Verdict(True, "Authenticated", "Callers, gateways and workers prove who they are; tenants share nothing.")


def _obstacle(inputs: ConditionInputs) -> Verdict | None:
    """What is wrong, worst first."""
    if inputs.problem is not None:
        return Verdict(False, inputs.problem.reason, inputs.problem.message)
    if inputs.in_the_way:
        names = ", ".join(inputs.in_the_way)
        text = f"{names}: the name is taken; delete it or wait until it is gone, or rename the pool or the worker group"
        return Verdict(False, "NameTaken", text)
    pods = (*inputs.seen.workers, *inputs.seen.gateways)
    for kind in TroubleKind:
        troubled = sorted((pod for pod in pods if pod.trouble and pod.trouble.kind is kind), key=lambda pod: pod.name)
        if troubled:
            return Verdict(False, kind, _summarize(troubled, len(pods)))
    for trouble in inputs.seen.starved:
        return Verdict(False, trouble.kind, trouble.message)
    return None


def _summarize(troubled: Sequence[PodSeen], of: int) -> str:
    trouble = troubled[0].trouble
    first = trouble.message if trouble is not None else ""
    return first if len(troubled) == 1 else f"{len(troubled)} of {of} pods; {first}"


def _failing(inputs: ConditionInputs) -> Verdict | None:
    """Pods that are ready by their own word, and fail what they are sent."""
    names = sorted(inputs.seen.failing)
    if not names:
        return None
    text = f"{len(names)} of {inputs.total_workers} workers fail their requests: {_listed(names)}."
    return Verdict(False, "WorkersFailing", f"{text} Read their logs, then delete these pods.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _missing(inputs: ConditionInputs) -> Verdict | None:
    if inputs.unserved_models:
        names = " and ".join(map(spoken, inputs.unserved_models))
        text = f"No worker serves {names}: requests go to other models, except those that ask for it."
        return Verdict(False, MODEL_NOT_SERVED, f"{text}{_by_group(inputs)} See the pods of its groups.")
    if inputs.ready_workers < inputs.expected_workers:
        text = f"{inputs.ready_workers} of {inputs.total_workers} workers are ready; the others start or load."
        return Verdict(False, "WorkersNotReady", text + _by_group(inputs))
    if inputs.ready_gateways < inputs.total_gateways:
        text = f"{inputs.ready_gateways} of {inputs.total_gateways} gateways are ready."
        return Verdict(False, "GatewaysNotReady", text)
    if inputs.strays:
        text = f"Started anew with the model of their group: {_listed(inputs.strays)}. Gateways tell them again."
        return Verdict(False, "ModelsNotHeld", text)
    return None


def _by_group(inputs: ConditionInputs) -> str:
    """How many workers of each group serve; empty in pools of one."""
    if inputs.spec is None or len(inputs.spec.worker_groups) == 1:
        return ""
    ready, sizes = of_groups(inputs.serving), inputs.spec.group_sizes
    told = [f"{group} {len(ready.get(group, ()))} of {size}" for group, size in sizes.items()]
    return f" By group: {', '.join(told)}."


def _available(inputs: ConditionInputs, obstacle: Verdict | None) -> Verdict:
    if inputs.serving_workers and inputs.ready_gateways:
        if inputs.unserved_models:
            names = " and ".join(map(spoken, inputs.unserved_models))
            return Verdict(True, "Serving", f"Requests are served, but none by {names}.")
        return Verdict(True, "Serving", "Requests are served.")
    if obstacle is not None:
        return obstacle
    what = "worker" if not inputs.ready_workers else "gateway"
    return Verdict(False, "WorkersNotReady" if what == "worker" else "GatewaysNotReady", f"No {what} is ready yet.")


def _planned(inputs: ConditionInputs) -> Verdict:
    if inputs.problem is not None:
        return Verdict(False, inputs.problem.reason, inputs.problem.message)
    plan = inputs.plan
    if not plan.revision:
        return Verdict(False, "NoWorkers", "The first plan is made when a worker is ready.")
    if plan.binds:
        return Verdict(True, "FixedMix", f"Plan {plan.revision} is the mix of the spec.")
    return Verdict(True, plan.outcome, f"Plan {plan.revision} was made because: {plan.reason}.")


def _progressing(inputs: ConditionInputs, obstacle: Verdict | None, missing: Verdict | None) -> Verdict:
    if obstacle is not None:
        return Verdict(False, obstacle.reason, "Stands still: see Degraded.")
    if inputs.writing:
        return Verdict(True, "Applying", "What the spec asks for is being written.")
    rolling = sorted(name for (_, name), child in inputs.seen.children.items() if is_rolling(child))
    if rolling:
        return Verdict(True, "RollingOut", f"Pods are being replaced or started: {', '.join(rolling)}.")
    if missing is not None:
        return Verdict(True, missing.reason, missing.message)
    if inputs.movement.move is not None:
        return Verdict(True, "Reloading", told_move(inputs.movement.move))
    return Verdict(False, SETTLED, "Everything is as the spec asks for.")


def is_rolling(child: ChildSeen) -> bool:
    """A StatefulSet or Deployment whose controller has not carried out its spec yet."""
    manifest = child.manifest
    if manifest["kind"] not in ("StatefulSet", "Deployment"):
        return False
    status, replicas = manifest.get("status", {}), manifest["spec"].get("replicas", 1)
    heard = status.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 0)
    updated = status.get("updatedReplicas", 0)
    if status.get("updateRevision") and status.get("updateRevision") == status.get("currentRevision"):
        updated = status.get("replicas", 0)  # a finished rollout counts no updated replicas
    return not heard or updated != replicas or status.get("replicas", 0) != replicas


def render_conditions(
    verdicts: Mapping[str, Verdict], before: Sequence[Mapping[str, Any]], generation: int, now: Instant
) -> tuple[ConditionStatus, ...]:
    """With times: a condition whose status did not change keeps its own."""
    times = {one["type"]: (one.get("status"), one.get("lastTransitionTime")) for one in before}
    rendered = []
    for kind, verdict in verdicts.items():
        status = {True: "True", False: "False", None: "Unknown"}[verdict.holds]
        was, since = times.get(kind, (None, None))
        rendered.append(
            ConditionStatus.model_validate(
                {
                    "type": kind,
                    "status": status,
                    "reason": verdict.reason,
                    "message": verdict.message[:32_000],
                    "lastTransitionTime": since if was == status and since else now.text,
                    "observedGeneration": generation,
                }
            )
        )
    return tuple(rendered)

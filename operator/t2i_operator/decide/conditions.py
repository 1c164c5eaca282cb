"""Conditions: what people and `kubectl wait` read. Each has a reason for programs and a sentence with the next step.

    Ready        every worker and gateway is ready, no worker fails, and a plan is in force
    Available    some worker that does not fail and some gateway are ready: requests are served
    Planned      a plan is in force for this spec
    Progressing  something is on its way to what the spec asks for
    Degraded     something is wrong that will not mend by waiting, or has failed and is tried again
    Secured      callers, gateways and workers prove who they are, and tenants share nothing

"Why not ready" is answered by the first that applies: the spec, names taken by others, failing loads, images,
containers, no capacity, workers that fail their requests, then what is merely not there yet. `lastTransitionTime` moves
only when `status` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2i_api.plan import PlanDocument
from t2i_api.pool import PoolSpec
from t2i_api.status import ConditionStatus
from t2i_operator.clock import Instant
from t2i_operator.decide.observed import ChildSeen, Observed, PodSeen, Problem, TroubleKind
from t2i_operator.decide.securing import find_gap

SETTLED = "Settled"
NAMED = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """What conditions are judged from."""

    seen: Observed
    total_workers: int
    total_gateways: int
    plan: PlanDocument | None
    problem: Problem | None
    in_the_way: tuple[str, ...]
    writing: bool  # children are being written in this very round
    spec: PoolSpec | None = None  # None: it cannot be carried out

    @property
    def ready_workers(self) -> int:
        return sum(pod.ready for pod in self.seen.workers)

    @property
    def serving_workers(self) -> int:
        """Ready ones that gateways do not leave out for their failures."""
        return self.ready_workers - len(self.seen.failing)

    @property
    def ready_gateways(self) -> int:
        return sum(pod.ready for pod in self.seen.gateways)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without its times."""

    holds: bool | None
    reason: str
    message: str


def judge(standing: Standing) -> dict[str, Verdict]:
    """All six."""
    obstacle = _obstacle(standing)
    failing = _failing(standing)
    missing = _missing(standing)
    planned = _planned(standing)
    ready = obstacle or failing or missing or (planned if not planned.holds else None)
    return {
        "Ready": ready or Verdict(True, "AllReady", f"{standing.total_workers} workers serve."),
        "Available": _available(standing, obstacle or failing),
        "Planned": planned,
        "Progressing": _progressing(standing, obstacle, missing),
        "Degraded": _degraded(standing, obstacle),
        "Secured": _secured(standing),
    }


def _degraded(standing: Standing, obstacle: Verdict | None) -> Verdict:
    """An obstacle, or what costs steps although requests are served."""
    if obstacle is not None:
        return Verdict(True, obstacle.reason, obstacle.message)
    failing = _failing(standing)
    if failing is not None:
        return Verdict(True, failing.reason, failing.message)
    for report in standing.seen.reports:
        if report.embedder_trouble:
            text = f"{report.gateway} serves without cached latents: {report.embedder_trouble}"
            return Verdict(True, "EmbedderMissing", text)
        if report.store_trouble:
            text = f"{report.gateway} serves without cached latents: {report.store_trouble}"
            return Verdict(True, "StoreNotServing", text)
    return Verdict(False, "AsExpected", "Nothing is wrong.")


def _secured(standing: Standing) -> Verdict:
    if standing.spec is None:
        return Verdict(None, "SpecNotInForce", "The spec cannot be carried out: see Ready.")
    gap = find_gap(standing.spec)
    if gap is not None:
        return Verdict(False, *gap)
    return Verdict(True, "Authenticated", "Callers, gateways and workers prove who they are; tenants share nothing.")


def _obstacle(standing: Standing) -> Verdict | None:
    """What is wrong, worst first."""
    if standing.problem is not None:
        return Verdict(False, standing.problem.reason, standing.problem.message)
    if standing.in_the_way:
        names = ", ".join(standing.in_the_way)
        text = f"{names}: the name is taken; delete it or wait until it is gone, or rename the pool or the worker group"
        return Verdict(False, "NameTaken", text)
    pods = (*standing.seen.workers, *standing.seen.gateways)
    for kind in TroubleKind:
        troubled = sorted((pod for pod in pods if pod.trouble and pod.trouble.kind is kind), key=lambda pod: pod.name)
        if troubled:
            return Verdict(False, kind, _told(troubled, len(pods)))
    for trouble in standing.seen.starved:
        return Verdict(False, trouble.kind, trouble.message)
    return None


def _told(troubled: Sequence[PodSeen], of: int) -> str:
    trouble = troubled[0].trouble
    first = trouble.message if trouble is not None else ""
    return first if len(troubled) == 1 else f"{len(troubled)} of {of} pods; {first}"


def _failing(standing: Standing) -> Verdict | None:
    """Pods that are ready by their own word, and fail what they are sent."""
    names = sorted(standing.seen.failing)
    if not names:
        return None
    told = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    text = f"{len(names)} of {standing.total_workers} workers fail their requests: {told}."
    return Verdict(False, "WorkersFailing", f"{text} Read their logs, then delete these pods.")


def _missing(standing: Standing) -> Verdict | None:
    if standing.ready_workers < standing.total_workers:
        text = f"{standing.ready_workers} of {standing.total_workers} workers are ready; the others start or load."
        return Verdict(False, "WorkersNotReady", text)
    if standing.ready_gateways < standing.total_gateways:
        text = f"{standing.ready_gateways} of {standing.total_gateways} gateways are ready."
        return Verdict(False, "GatewaysNotReady", text)
    return None


def _available(standing: Standing, obstacle: Verdict | None) -> Verdict:
    if standing.serving_workers and standing.ready_gateways:
        return Verdict(True, "Serving", "Requests are served.")
    if obstacle is not None:
        return obstacle
    what = "worker" if not standing.ready_workers else "gateway"
    return Verdict(False, "WorkersNotReady" if what == "worker" else "GatewaysNotReady", f"No {what} is ready yet.")


def _planned(standing: Standing) -> Verdict:
    if standing.problem is not None:
        return Verdict(False, standing.problem.reason, standing.problem.message)
    if standing.plan is None:
        return Verdict(False, "NoWorkers", "The first plan is made when a worker is ready.")
    document = standing.plan
    if document.fixed:
        return Verdict(True, "FixedMix", f"Plan {document.revision} is the mix of the spec.")
    return Verdict(True, document.plan.reason, f"Plan {document.revision} was made because: {document.reason}.")


def _progressing(standing: Standing, obstacle: Verdict | None, missing: Verdict | None) -> Verdict:
    if obstacle is not None:
        return Verdict(False, obstacle.reason, "Stands still: see Degraded.")
    if standing.writing:
        return Verdict(True, "Applying", "What the spec asks for is being written.")
    rolling = sorted(name for (_, name), child in standing.seen.children.items() if is_rolling(child))
    if rolling:
        return Verdict(True, "RollingOut", f"Pods are being replaced or started: {', '.join(rolling)}.")
    if missing is not None:
        return Verdict(True, missing.reason, missing.message)
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

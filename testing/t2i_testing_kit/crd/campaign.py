"""A campaign of changes against a live pool on a real API server, in the manner of Acto (SOSP '23).

From each of several states that a pool may have grown into, every mutation is written. The oracles:

1. The server accepts exactly what our parser accepts and the immutables allow.
2. What it accepts is stored as our parser reads it, defaults included. Writing the former spec back restores the former
   spec exactly.
3. What it refuses changes nothing: not the spec, not the status, not the resource version. The refusal names a field.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from t2i_api.crd import pool_schema
from t2i_api.parse import PoolError, read_pool
from t2i_api.pool import Pool
from t2i_testing_kit.crd.documents import Document, Pools, changed, pool_document
from t2i_testing_kit.crd.mutations import Mutation, mutations
from t2i_testing_kit.kube.server import Answer

MIX = {"mode": "Fixed", "workers": [{"workers": 3}, {"skippedSteps": 10, "workers": 1}]}
TURBO = {
    "name": "turbo",
    "source": "hf://acme/turbo",
    "numInferenceSteps": 4,
    "adapters": [{"name": "a", "source": "pvc://claim/a"}],
}

#: state -> the changes of the small valid pool that led to it, one write after the other
STATES: dict[str, tuple[dict[str, object], ...]] = {
    "new": (),
    "resized": ({"spec.workerGroups.0.workers": 8}, {"spec.workerGroups": [{"name": "gpu", "workers": 2}]}),
    "fixed": ({"spec.mix": MIX}, {"spec.levels.3": {"skippedSteps": 5}}),
    "fixed on the default ladder": ({"spec.levels": []}, {"spec.mix": MIX}),
    "several models": (
        {"spec.workerGroups.2": {"name": "few", "workers": 1, "model": TURBO}},
        {"spec.levels.3": {"model": "turbo", "numInferenceSteps": 2}, "spec.mix": {"moves": "Reload"}},
    ),
    "back to auto": ({"spec.mix": MIX}, {"spec.mix": {"mode": "Auto"}}),
    "everything set": (
        {
            "spec.slo": {"latencyMilliseconds": 1, "minQualityPercent": 100},
            "spec.cache": {"scope": "Off", "storeUrl": "redis://h:1", "ttlSeconds": 1, "capacityMebibytes": 1},
            "spec.gateway": {
                "replicas": 64,
                "maxQueuedRequests": 0,
                "tenants": [{"name": "a"}, {"name": "b"}],
                "rateLimits": {
                    "requestsPerMinute": 1,
                    "stepsPerMinute": 1_000_000_000,
                    "tenants": [{"name": "a", "requestsPerMinute": 2}, {"name": "b", "stepsPerMinute": 3}],
                },
                "http": "Enabled",
                "playground": "Enabled",
                "qualities": [{"name": "low", "minQualityPercent": 50}, {"name": "high", "exact": True}],
            },
            "spec.security": {
                "clientAuthentication": "Token",
                "gatewayTlsSecretName": "g",
                "tokensSecretName": "t",
                "gatewayClientTlsSecretName": "c",
                "workerTlsSecretName": "w",
                "metricsNamespaces": ["monitoring", "ops"],
            },
            "spec.safety": {
                "prompt": {"url": "https://h:65535/p?a=b", "timeoutMilliseconds": 1, "secretName": "s"},
                "image": {"url": "http://[::1]:1", "maxConcurrent": 1024, "failOpen": True},
            },
            "spec.provenance": {"metadata": True, "prompt": True},
            "spec.quality": {"judge": "scenes", "auditPerMille": 5, "recalibrate": True, "template": {"env": []}},
            "spec.workerGroups.0.template": {"nodeSelector": {"zone": "a"}, "env": [{"name": "A", "value": "b"}]},
            "spec.gateway.template": {
                "extraArgs": ["--announce"],
                "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
                "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
            },
            "spec.levels.1.numInferenceSteps": 20,
        },
    ),
}
STATUS = {"observedGeneration": 1, "workers": 4, "mix": "3x0 1x10", "plan": {"revision": 3, "reason": "NoPlan"}}


class CampaignCase(NamedTuple):
    """A mutation of the document that belongs to a state."""

    state: str
    document: Document
    mutation: Mutation


@dataclass
class CampaignOutcome:
    """Counts by kind of mutation, and every failure in a sentence."""

    tried: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def cases(stride: int = 1) -> Iterator[CampaignCase]:
    """Every stride-th of each kind of change, so that no kind is missed however few it has."""
    schema = pool_schema()
    documents = {state: _document(state) for state in STATES}
    met: Counter[str] = Counter()
    for state, document in documents.items():
        for mutation in mutations(schema, document):
            if met[mutation.kind] % stride == 0:
                yield CampaignCase(state, document, mutation)
            met[mutation.kind] += 1


def _document(state: str) -> Document:
    """The state's document as the server stores it: defaults filled in."""
    document = pool_document(state.replace(" ", "-"))
    for changes in STATES[state]:
        document = changed(document, changes)
    return {**document, "spec": _read(document).spec.model_dump(by_alias=True, exclude_none=True, mode="json")}


def _read(document: Document) -> Pool:
    return read_pool(document)


def reach(pools: Pools, state: str) -> Document:
    """Create a pool and write it into the state step by step; the stored object, status included."""
    document = pool_document(state.replace(" ", "-"))
    pools.create(document)
    for changes in STATES[state]:
        document = changed(document, changes)
        stored = pools.get(document["metadata"]["name"])
        answer = pools.replace({**stored, "spec": document["spec"]})
        assert answer.ok, answer.message
    assert pools.patch(document["metadata"]["name"], {"status": STATUS}, "/status").ok
    return pools.get(document["metadata"]["name"])


def run_campaign(pools: Pools, chosen: Iterable[CampaignCase]) -> CampaignOutcome:
    """Write every mutation; see the oracles above."""
    outcome = CampaignOutcome()
    reached: dict[str, Document] = {}
    for state, document, mutation in chosen:
        if state not in reached:
            reached[state] = reach(pools, state)
            if reached[state]["spec"] != document["spec"]:
                outcome.failures.append(f"{state}: the server stored another spec than the parser reads")
        outcome.tried[mutation.kind] += 1
        said = _try(pools, reached[state], mutation, outcome)
        if said:
            outcome.failures.append(f"{state}: {mutation}: {said}")
            pools.delete(reached.pop(state)["metadata"]["name"])  # where it is now, nobody knows
    return outcome


def _try(pools: Pools, before: Document, mutation: Mutation, outcome: CampaignOutcome) -> str:
    """What is wrong with the server's answer; "" = nothing."""
    wanted = mutation.of(before)
    allowed = _allowed(before, wanted)
    stored = pools.get(before["metadata"]["name"])
    answer = pools.replace({**wanted, "metadata": stored["metadata"]})
    if answer.ok != (allowed is not None):
        return f"the server {'accepts' if answer.ok else 'refuses'} it, we do not: {answer.message}"
    if allowed is None:
        outcome.refused += 1
        return _judge_refusal(pools, stored, answer)
    outcome.accepted += 1
    return _judge_acceptance(pools, before, answer, allowed)


def _judge_refusal(pools: Pools, stored: Document, answer: Answer) -> str:
    if pools.get(stored["metadata"]["name"]) != stored:
        return "the refused change left something behind"
    if answer.status not in (400, 422):
        return f"refused with {answer.status}: {answer.message}"
    return "" if "spec" in answer.message else f"the refusal names no field: {answer.message}"


def _judge_acceptance(pools: Pools, before: Document, answer: Answer, allowed: Pool) -> str:
    read = allowed.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    stored = answer.body["spec"]
    other = {
        name: (stored.get(name), read.get(name)) for name in {**stored, **read} if stored.get(name) != read.get(name)
    }
    if other:
        return f"(stored, read by us) differ: {other}"
    back = pools.replace({**answer.body, "spec": before["spec"]})
    if not back.ok:
        return f"no way back: {back.message}"
    if (back.body["spec"], back.body["status"]) != (before["spec"], before["status"]):
        return "the way back does not lead to the former state"
    return ""


def _allowed(before: Document, wanted: Document) -> Pool | None:
    """The parsed pool if our parser accepts it and no immutable changes; else None."""
    former = _read(before)
    try:
        pool = _read(wanted)
    except PoolError:
        return None
    fixed = {group.name: (group.engine, group.model) for group in former.spec.worker_groups}
    groups = {group.name: (group.engine, group.model) for group in pool.spec.worker_groups}
    kept = all(fixed.get(name, parts) == parts for name, parts in groups.items())
    return pool if kept and pool.spec.model == former.spec.model else None

"""Conditions out of one look, as tables: which reason wins, what the message holds, and when a time moves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from operator_world import pool_document
from pool_scenes import NOW, gateway, look, problem, report, there, wanted, worker
from t2i_operator.clock import Instant
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.status import explain_refusal
from t2i_operator.decide.types import (
    Announce,
    ChildSeen,
    Decision,
    DesiredPool,
    Observed,
    Problem,
    Trouble,
    TroubleKind,
    WriteStatus,
)

ALL_KINDS = {"Ready", "Available", "Planned", "Progressing", "Degraded", "Secured"}
FIXED = {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 1}]}


def trouble(kind: TroubleKind) -> Trouble:
    """Its words are its own."""
    return Trouble(kind, f"words of {kind}")


def status_of(decision: Decision) -> dict[str, Any]:
    """The status that is written."""
    return next(one.status for one in decision.actions if isinstance(one, WriteStatus))


def conditions(seen: Observed, wants: DesiredPool | Problem | None = None) -> dict[str, Mapping[str, str]]:
    """By type."""
    status = status_of(decide(seen, wants or wanted(), NOW))
    return {one["type"]: one for one in status["conditions"]}


def foreign(name: str) -> Observed:
    """A look that finds somebody else's object under a child's name."""
    children = there(wanted())
    key = next(key for key in children if key[1] == name)
    child = children[key]
    owner = {"kind": "T2IServingPool", "name": "p-a", "uid": "theirs", "controller": True}
    manifest = {**child.manifest, "metadata": {**child.manifest["metadata"], "ownerReferences": [owner]}}
    return look(children={**children, key: ChildSeen(manifest, "theirs", "theirs")})


def failing(kind: TroubleKind) -> Observed:
    """A pool whose first worker has this trouble; the other is ready."""
    return look(workers=(worker(0, False, trouble(kind)), worker(1)))


def rolling(**status: Any) -> Observed:
    """A pool whose StatefulSet has this status."""
    return look(children=there(wanted(), StatefulSet={"status": status}))


OBSTACLES = {
    "a worker whose model does not load": (failing(TroubleKind.LOAD_FAILED), "LoadFailed", "words of LoadFailed"),
    "a worker killed for its memory": (failing(TroubleKind.OUT_OF_MEMORY), "OutOfMemory", "words of"),
    "an image that cannot be pulled": (failing(TroubleKind.IMAGE_PULL_FAILED), "ImagePullFailed", "words of"),
    "a container that cannot be made": (failing(TroubleKind.CONFIG_FAILED), "ContainerConfigFailed", "words of"),
    "no node with room": (failing(TroubleKind.NO_CAPACITY), "NoCapacity", "words of"),
    "the gateway's image": (
        look(gateways=(gateway(False, trouble(TroubleKind.IMAGE_PULL_FAILED)),)),
        "ImagePullFailed",
        "words of",
    ),
    "pods that a quota forbids": (
        look(workers=(), starved=(trouble(TroubleKind.NO_CAPACITY),)),
        "NoCapacity",
        "words of",
    ),
    "pods that admission refuses": (
        look(workers=(), starved=(trouble(TroubleKind.PODS_REFUSED),)),
        "PodsRefused",
        "words of",
    ),
    "two troubles: the load failure is told, with how many": (
        look(
            workers=tuple(
                worker(n, False, trouble(kind))
                for n, kind in enumerate((TroubleKind.NO_CAPACITY, TroubleKind.LOAD_FAILED))
            )
        ),
        "LoadFailed",
        "words of LoadFailed",
    ),
    "the same trouble twice: how many of how many": (
        look(workers=tuple(worker(n, False, trouble(TroubleKind.NO_CAPACITY)) for n in range(2))),
        "NoCapacity",
        "2 of 3 pods; words of NoCapacity",
    ),
    "a child's name that another pool has": (foreign("p-a"), "NameTaken", "of T2IServingPool p-a"),
}


@pytest.mark.parametrize(("seen", "reason", "words"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_what_is_wrong(seen: Observed, reason: str, words: str) -> None:
    """Ready is False and Degraded True for the same reason in the same words; all six conditions are there."""
    found = conditions(seen)
    assert found.keys() == ALL_KINDS
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", reason)
    assert words in found["Ready"]["message"]
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", reason)
    assert found["Degraded"]["message"] == found["Ready"]["message"]
    assert found["Progressing"]["status"] == "False"


def test_missing_embedder_costs_steps_and_not_readiness() -> None:
    """Requests are served without cached latents: Degraded in the gateway's words, Ready as before."""
    words = "model.embedder: 'acme/x' cannot be downloaded; it is tried again"
    found = conditions(look(reports=(report(1.0), replace(report(1.0, name="g2"), embedder_trouble=words))))
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", "EmbedderMissing")
    assert found["Degraded"]["message"] == f"g2 serves without cached latents: {words}"
    assert (found["Available"]["status"], found["Progressing"]["reason"]) == ("True", "Settled")


def test_store_that_does_not_serve_costs_steps_and_not_readiness() -> None:
    """Requests are served without cached latents: Degraded in the gateway's words, Ready as before."""
    words = "cache.storeUrl: the server runs in cluster mode"
    found = conditions(look(reports=(report(1.0), replace(report(1.0, name="g2"), store_trouble=words))))
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", "StoreNotServing")
    assert found["Degraded"]["message"] == f"g2 serves without cached latents: {words}"
    assert (found["Available"]["status"], found["Progressing"]["reason"]) == ("True", "Settled")


def told_of(*workers: str, reason: str = "Failing", **facts: Any) -> Observed:
    """A pool whose gateway leaves out these workers."""
    return look(reports=(replace(report(1.0), left_out=dict.fromkeys(workers, reason)),), **facts)


def test_worker_that_fails_its_requests_is_told_of() -> None:
    """Its pod is ready, by its own word. The pool serves with the others, and says which one to look at."""
    status = status_of(decide(told_of("p-a-1"), wanted(), NOW))
    found = {one["type"]: one for one in status["conditions"]}
    for kind, holds in (("Ready", "False"), ("Degraded", "True")):
        assert (found[kind]["status"], found[kind]["reason"]) == (holds, "WorkersFailing")
        assert "1 of 2 workers fail their requests: p-a-1." in found[kind]["message"]
    assert (found["Available"]["status"], found["Progressing"]["reason"]) == ("True", "Settled")
    assert status["readyWorkers"] == 1


def test_pool_whose_workers_all_fail_is_not_available() -> None:
    """Its gateways are not ready for that very reason, and still say so."""
    found = conditions(told_of("p-a-0", "p-a-1", gateways=(gateway(False),)))
    assert (found["Available"]["status"], found["Available"]["reason"]) == ("False", "WorkersFailing")
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", "WorkersFailing")


LEFT_ALONE = {
    "slow for a few seconds": told_of("p-a-1", reason="SlowSteps"),
    "of another pool": told_of("q-a-1"),
}


@pytest.mark.parametrize("seen", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_what_passes_by_itself_changes_no_condition(seen: Observed) -> None:
    """Conditions that flicker are of no use."""
    assert conditions(seen)["Degraded"]["status"] == "False"


def test_pod_that_is_not_ready_has_its_own_reason() -> None:
    """It failed its requests, and is being replaced now."""
    found = conditions(told_of("p-a-1", workers=(worker(0), worker(1, False))))
    assert found["Ready"]["reason"] == "WorkersNotReady"


PROBLEMS = {
    "a template that cannot be merged": (
        problem(workerGroups=[{"name": "a", "workers": 2, "template": {"labels": {"a": 1}}}]),
        "InvalidSpec",
        "labels must map names to texts",
    ),
    "a profile that is missing": (
        Problem("ProfileMissing", "profileRef: there is no ConfigMap"),
        "ProfileMissing",
        "ConfigMap",
    ),
    "a profile of another schedule": (
        problem(
            model={"source": "builtin://scenes", "numInferenceSteps": 20, "width": 48, "height": 48},
            levels=[{"skippedSteps": 0}],
        ),
        "ModelNotMeasured",
        "the pool's own model was measured at 12 steps, its numInferenceSteps in model is 20",
    ),
    "a profile of another guidance": (
        problem(model={**pool_document()["spec"]["model"], "guidanceScalePercent": 700}),
        "ModelNotMeasured",
        "the pool's own model was measured at guidance scale 2, its guidanceScalePercent in model is 700",
    ),
    "a permission that is missing": (
        explain_refusal(403, 'services "x" is forbidden: User "op" cannot patch resource "services"'),
        "Forbidden",
        "cannot patch",
    ),
    "a quota that is exceeded": (
        explain_refusal(403, 'services "x" is forbidden: exceeded quota: q, requested: services=1'),
        "NoCapacity",
        "raise the quota",
    ),
    "a value that the API server refuses": (
        explain_refusal(422, "spec.template: Invalid value"),
        "Refused",
        "Invalid value",
    ),
}


@pytest.mark.parametrize(("wants", "reason", "words"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_spec_that_cannot_be_carried_out(wants: Problem, reason: str, words: str) -> None:
    """What runs keeps running: Available stays True, no child is touched, the plan stands."""
    running = status_of(decide(look(), wanted(), NOW))
    decision = decide(look(status=running, generation=2), wants, NOW)
    found = {one["type"]: one for one in status_of(decision)["conditions"]}
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", reason)
    assert words in found["Ready"]["message"]
    assert found["Available"]["status"] == "True"
    assert status_of(decision)["plan"] == running["plan"]
    assert status_of(decision)["observedGeneration"] == 2
    assert all(isinstance(one, WriteStatus | Announce) for one in decision.actions)


WAITING = {
    "one worker of two": (look(workers=(worker(0), worker(1, False))), "WorkersNotReady", "1 of 2"),
    "no worker yet": (look(workers=()), "WorkersNotReady", "0 of 2"),
    "workers but no gateway": (look(gateways=(gateway(False),)), "GatewaysNotReady", "0 of 1"),
}


@pytest.mark.parametrize(("seen", "reason", "words"), WAITING.values(), ids=WAITING.keys())
def test_what_is_not_there_yet_is_not_wrong(seen: Observed, reason: str, words: str) -> None:
    """Degraded stays False: it mends by waiting."""
    found = conditions(seen)
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", reason)
    assert words in found["Ready"]["message"]
    assert found["Degraded"]["status"] == "False"
    assert found["Progressing"]["status"] == "True"


PROGRESS = {
    "children are missing": (look(children={}), "Applying"),
    "a StatefulSet that its controller has not seen": (rolling(), "RollingOut"),
    "a StatefulSet with an old pod": (
        rolling(observedGeneration=1, replicas=2, updatedReplicas=1),
        "RollingOut",
    ),
    "a finished rollout that counts no updated pods": (
        rolling(observedGeneration=1, replicas=2, currentRevision="r", updateRevision="r"),
        "Settled",
    ),
    "everything as it should be": (look(), "Settled"),
}


@pytest.mark.parametrize(("seen", "reason"), PROGRESS.values(), ids=PROGRESS.keys())
def test_progressing(seen: Observed, reason: str) -> None:
    """True while something is on its way."""
    found = conditions(seen)["Progressing"]
    assert (found["status"], found["reason"]) == ("False" if reason == "Settled" else "True", reason)


@pytest.mark.parametrize(
    ("seen", "wants", "status", "reason"),
    [
        pytest.param(look(workers=()), wanted(), "False", "NoWorkers", id="no plan before a worker is ready"),
        pytest.param(look(), wanted(), "True", "NoDemand", id="the first plan is for no demand"),
        pytest.param(look(reports=(report(2.0),)), wanted(), "True", "AllServed", id="a plan for what is asked"),
        pytest.param(look(reports=(report(90.0),)), wanted(), "True", "SomeShed", id="more than can be served"),
        pytest.param(look(wanted(mix=FIXED)), wanted(mix=FIXED), "True", "FixedMix", id="the mix of the spec"),
    ],
)
def test_planned(seen: Observed, wants: DesiredPool, status: str, reason: str) -> None:
    """Its reason is what kind of plan it is."""
    found = conditions(seen, wants)["Planned"]
    assert (found["status"], found["reason"]) == (status, reason)


def test_time_moves_with_the_status_only() -> None:
    """Another reason or message keeps lastTransitionTime; another status sets it."""
    first = status_of(decide(look(workers=()), wanted(), NOW))
    later = Instant(NOW.unix_s + 60)
    one_ready = status_of(decide(look(status=first, workers=(worker(0),)), wanted(), later))
    all_ready = status_of(decide(look(status=one_ready), wanted(), later))
    times = [
        {one["type"]: one["lastTransitionTime"] for one in status["conditions"]}
        for status in (first, one_ready, all_ready)
    ]
    assert times[0]["Ready"] == times[1]["Ready"] == NOW.text
    assert times[1]["Available"] == later.text
    assert times[2]["Ready"] == later.text


def test_settled_pool_asks_for_nothing() -> None:
    """The same look with the status that was written: no action, and no need to look again."""
    first = decide(look(), wanted(), NOW)
    level = "0-of-12"
    again = look(status=status_of(first), workers=(worker(0, level=level), worker(1, level=level)))
    assert decide(again, wanted(), Instant(NOW.unix_s + 60)) == Decision((), settled=True)


def test_deleted_pool_is_left_alone() -> None:
    """Its children go by their owner references."""
    assert decide(look(deleting=True, children={}), wanted(), NOW) == Decision((), settled=True)


def test_events_tell_what_changed() -> None:
    """Ready, Planned and Insecure at first; then the trouble once, with its reason as category; not while it lasts."""
    first = decide(look(), wanted(), NOW)
    assert {one.reason for one in first.actions if isinstance(one, Announce)} == {"Ready", "Planned", "Insecure"}
    bad = {"workers": (worker(0), worker(1, False, trouble(TroubleKind.LOAD_FAILED)))}
    second = decide(look(status=status_of(first), **bad), wanted(), NOW)
    told = [one for one in second.actions if isinstance(one, Announce) and one.warning]
    assert [one.reason for one in told] == ["LoadFailed"]
    third = decide(look(status=status_of(second), **bad), wanted(), NOW)
    assert not any(isinstance(one, Announce) and one.warning for one in third.actions)

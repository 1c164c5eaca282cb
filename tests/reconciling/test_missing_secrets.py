"""A Secret that does not exist: which field of the spec names it, and which pods are asked about. No API server."""

from typing import Any

import pytest

from pool_scenes import gateway, look, problem, wanted, worker
from t2i_operator.decide.pods import find_unmounted, is_creating, name_fields, tell_unmounted
from t2i_operator.decide.types import Trouble, TroubleKind

SECURITY = {
    "clientAuthentication": "Token", "gatewayTlsSecretName": "g", "tokensSecretName": "t",
    "gatewayClientTlsSecretName": "c", "workerTlsSecretName": "w",
}  # fmt: skip
CACHE = {"storeUrl": "rediss://valkey:6379", "storeSecretRef": {"name": "s"}}
WANTED = wanted(security=SECURITY, cache=CACHE)


def missing(name: str) -> Trouble:
    """In the kubelet's words."""
    return Trouble(TroubleKind.CONFIG_FAILED, f'p-a-0: secret "{name}" not found')


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("s", "spec.cache.storeSecretRef"),
        ("g", "spec.security.gatewayTlsSecretName"),
        ("t", "spec.security.tokensSecretName"),
        ("c", "spec.security.gatewayClientTlsSecretName"),
        ("w", "spec.security.workerTlsSecretName"),
    ],
)
def test_field_that_names_the_secret_is_told(name: str, field: str) -> None:
    """Of workers and gateways alike."""
    seen = name_fields(
        look(workers=(worker(0, False, missing(name)),), gateways=(gateway(False, missing(name)),)), WANTED
    )
    for pod in (*seen.workers, *seen.gateways):
        assert pod.trouble is not None
        assert (
            pod.trouble.message
            == f"{missing(name).message}: create the Secret that {field} names, or correct the field"
        )


def test_secret_of_a_template_stays_in_the_kubelets_words() -> None:
    """No field of ours names it; with a spec that cannot be carried out, none can be told."""
    seen = look(workers=(worker(0, False, missing("theirs")), worker(1)))
    assert name_fields(seen, WANTED) == seen
    seen = look(workers=(worker(0, False, missing("s")),))
    bad = problem(workerGroups=[{"name": "a", "workers": 2, "template": {"restartPolicy": "Never"}}])
    assert name_fields(seen, bad) == seen


def pod(*reasons: str, **metadata: str) -> dict[str, Any]:
    """Its containers wait for these reasons; "" runs."""
    states = [{"state": {"waiting": {"reason": reason}} if reason else {"running": {}}} for reason in reasons]
    return {"metadata": {"name": "p-a-0", "uid": "uid-0", **metadata}, "status": {"containerStatuses": states}}


@pytest.mark.parametrize(
    ("document", "creating"),
    [
        (pod("ContainerCreating"), True),
        (pod("PodInitializing", "ContainerCreating"), True),
        (pod(""), False),
        (pod("ContainerCreating", "CrashLoopBackOff"), False),
        (pod("ImagePullBackOff"), False),
        (pod(), False),
        (pod("ContainerCreating", deletionTimestamp="2026-11-26T10:00:00Z"), False),
    ],
    ids=["creating", "with an init container", "running", "one crashed", "pulling failed", "unscheduled", "deleted"],
)
def test_only_pods_that_wait_for_their_containers_are_asked_about(document: dict[str, Any], creating: bool) -> None:
    """Events cost a call; others tell why by themselves, or nothing is wrong."""
    assert is_creating(document) is creating


def test_only_own_events_count_and_a_pod_that_is_ready_has_no_trouble() -> None:
    """A pod of another pool; one that became ready meanwhile; one that tells its trouble by itself."""
    events = [{"involvedObject": {"uid": "uid-0"}, "message": "words"}, {"involvedObject": {"uid": "uid-1"}}]
    found = find_unmounted([pod("ContainerCreating")], events)
    assert {uid: trouble.message for uid, trouble in found.items()} == {"uid-0": "p-a-0: words"}
    own = Trouble(TroubleKind.LOAD_FAILED, "own")
    assert tell_unmounted(look(workers=(worker(0),)), found).workers[0].trouble is None
    assert tell_unmounted(look(workers=(worker(0, False, own),)), found).workers[0].trouble == own
    assert tell_unmounted(look(workers=(worker(0, False),)), found).workers[0].trouble == found["uid-0"]

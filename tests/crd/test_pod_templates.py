"""What a pod template may not change: refused by the API server and by our parser in the same words."""

import pytest

from t2i_api.template_rules import (
    AUDITOR_OWNED,
    FLAGS_MESSAGE,
    FOLDERS_MESSAGE,
    GATEWAY_OWNED,
    VARIABLES_MESSAGE,
    VOLUMES_MESSAGE,
    WORKER_OWNED,
    OwnedFields,
    containers_message,
)
from t2i_testing_kit.crd.documents import Document, Pools, changed, pool_document, refusal_by_us
from t2i_testing_kit.kube.server import KubeServer

PLACES: dict[str, tuple[str, str, OwnedFields]] = {
    "gateway": ("spec.gateway.template", "spec.gateway.template", GATEWAY_OWNED),
    "auditor": ("spec.quality.template", "spec.quality.template", AUDITOR_OWNED),
    "workers": ("spec.workerGroups.1.template", "spec.workerGroups[1].template", WORKER_OWNED),
}
#: A value of the field's kind; text where none is named.
VALUES: dict[str, object] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"nodeSelector": {"a": "b"}},
    "livenessProbe": {},
    "readinessProbe": {},
    "startupProbe": {},
    "lifecycle": {},
    "command": ["x"],
    "args": ["x"],
    "ports": [{"name": "x"}],
    "ephemeralContainers": [{"name": "x"}],
    "terminationGracePeriodSeconds": 5,
    "automountServiceAccountToken": False,
}
ENTRIES: dict[str, tuple[dict[str, object], str]] = {
    "the pod's name": ({"env": [{"name": "A"}, {"name": "POD_NAME", "value": "x"}]}, VARIABLES_MESSAGE),
    "the store's password": ({"env": [{"name": "T2I_STORE_PASSWORD", "value": "x"}]}, VARIABLES_MESSAGE),
    "the config volume": ({"volumes": [{"name": "config", "emptyDir": {}}]}, VOLUMES_MESSAGE),
    "the volume of tokens": ({"volumes": [{"name": "tokens", "emptyDir": {}}]}, VOLUMES_MESSAGE),
    "a mount over the config": ({"volumeMounts": [{"name": "x", "mountPath": "/etc/t2i"}]}, FOLDERS_MESSAGE),
    "a mount in the certificates": (
        {"volumeMounts": [{"name": "x", "mountPath": "/etc/t2i-security/tls/"}]},
        FOLDERS_MESSAGE,
    ),
    "another port": ({"extraArgs": ["--announce", "--listen=0.0.0.0:1"]}, FLAGS_MESSAGE),
    "another pool, in two words": ({"extraArgs": ["--pool", "/tmp/pool.yaml"]}, FLAGS_MESSAGE),
}


def document_with(place: str, template: dict[str, object]) -> Document:
    """A pool with this template; every one audits, as an auditor has a template too."""
    return changed(pool_document(), {"spec.quality.judge": "scenes", PLACES[place][0]: template})


def refused(pools: Pools, place: str, template: dict[str, object]) -> tuple[str, str]:
    """What the server and what we say."""
    document = document_with(place, template)
    answer = pools.try_create(document)
    assert answer.status == 422, answer.body
    return answer.message, refusal_by_us(document) or ""


@pytest.mark.parametrize(("place", "field"), [(place, field) for place in PLACES for field in PLACES[place][2].fields])
def test_operators_field_is_refused_by_name(pools: Pools, place: str, field: str) -> None:
    """Names, ports, probes, times and accounts are the operator's; what people nest by habit is told to be flat."""
    server, ours = refused(pools, place, {field: VALUES.get(field, "x")})
    _, path, owned = PLACES[place]
    said = f"{field} {owned.fields[field]}"
    assert f"{path}.{field}:" in server
    assert said in server
    assert said in ours


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", ENTRIES)
def test_operators_entry_is_refused(pools: Pools, place: str, case: str) -> None:
    """An entry of a list that would replace one of ours."""
    template, said = ENTRIES[case]
    server, ours = refused(pools, place, template)
    assert f"{PLACES[place][1]}.{next(iter(template))}:" in server
    assert said in server
    assert said in ours


@pytest.mark.parametrize("place", PLACES)
def test_operators_container_is_refused(pools: Pools, place: str) -> None:
    """It is reached by the template's own fields, so that probes and ports stay."""
    name = PLACES[place][2].container
    server, ours = refused(pools, place, {"containers": [{"name": "side"}, {"name": name, "image": "x"}]})
    assert containers_message(name) in server
    assert containers_message(name) in ours


ALLOWED: dict[str, dict[str, object]] = {
    "what resembles ours": {
        "env": [{"name": "T2I_STORE"}, {"name": "HOME", "value": "/home"}],
        "volumes": [{"name": "models", "emptyDir": {}}, {"name": "configs", "emptyDir": {}}],
        "volumeMounts": [{"name": "configs", "mountPath": "/etc/t2i-mine"}, {"name": "models", "mountPath": "/models"}],
        "extraArgs": ["--announce", "--listener=x", "--pools"],
        "containers": [{"name": "gateways", "image": "x"}, {"name": "workers", "image": "x"}],
    },
    "fields that are null": dict.fromkeys(("restartPolicy", "env", "ports", "containers", "nodeSelector")),
    "a whole pod's worth": {
        "labels": {"a": "b"},
        "imagePullSecrets": [{"name": "s"}],
        "priorityClassName": "p",
        "topologySpreadConstraints": [],
        "envFrom": [{"secretRef": {"name": "s"}}],
    },
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", ALLOWED)
def test_owners_field_is_accepted(pools: Pools, place: str, case: str) -> None:
    """Everything else is the owner's."""
    document = document_with(place, ALLOWED[case])
    assert refusal_by_us(document) is None
    answer = pools.try_create(document)
    assert answer.ok, answer.message


def test_workers_may_run_under_an_account(pools: Pools) -> None:
    """A cloud's identity for downloads, for instance; a gateway has one of its own."""
    document = changed(pool_document(), {"spec.workerGroups.0.template": {"serviceAccountName": "s"}})
    assert refusal_by_us(document) is None
    assert pools.try_create(document).ok


def test_kubectl_explains_the_gateway_template(kube: KubeServer) -> None:
    """What may be set, and where the refusals come from."""
    said = kube.kubectl("explain", "t2iservingpools.spec.gateway.template")
    assert "imagePullSecrets" in " ".join(said.split())
    assert "volumeMounts" in said
